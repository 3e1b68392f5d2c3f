"""The missing-entry term: fused kernels against the plain form, quadrature against integrals."""

import itertools
import math

import numpy as np
import pytest
import torch
from exact import normal_grid
from factories import log_of, random_matrix, tiny_model
from scipy import integrate
from scipy.special import expit
from scipy.stats import norm

from mnar_recsys.model import missing_term
from mnar_recsys.model.batch import make_batch
from mnar_recsys.model.decoders import GaussianRatings, LevelRatings, OrdinalRatings, RatingDistribution
from mnar_recsys.model.decoders.base import DrawnRatings
from mnar_recsys.model.decoders.level_math import gumbel
from mnar_recsys.model.decoders.location import HardDraw, Squashed
from mnar_recsys.model.quadrature import gauss_hermite

LEVELS = torch.arange(1.0, 6.0).double()


def drawn(*shape: int, spread: float = 1.0, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (spread * torch.randn(shape, generator=generator, dtype=torch.float64)).requires_grad_()


def exact_sum(p: torch.Tensor, table: torch.Tensor, offset: torch.Tensor | None, unrated: torch.Tensor) -> torch.Tensor:
    """Sum of log sum_r p_r (1 - pi_r), cell by cell, in the plainest arithmetic there is."""
    S, B, R, P = p.shape
    table = table.expand(R, P)
    if offset is not None:
        offset = (offset if offset.ndim == 3 else offset[..., None]).expand(S, B, P)
    total = torch.zeros(S, B, dtype=p.dtype)
    for s, b, j in itertools.product(range(S), range(B), range(P)):
        shift = 0.0 if offset is None else offset[s, b, j]
        stays = sum(p[s, b, r, j] / (1 + torch.exp(table[r, j] + shift)) for r in range(R))
        total[s, b] = total[s, b] + unrated[b, j] * torch.log(stays)
    return total


@pytest.mark.parametrize("offset_shape", [None, (3, 2), (3, 2, 4), (1, 1, 4)])
@pytest.mark.parametrize("columns", [1, 4])
@pytest.mark.parametrize("kind", ["categorical", "ordinal"])
def test_fused_term_and_its_gradients_are_those_of_the_plain_sum(
    kind: str, columns: int, offset_shape: tuple[int, ...] | None
) -> None:
    table = drawn(5, columns, spread=2.0, seed=1)
    offset = drawn(*offset_shape, seed=2) if offset_shape else None
    unrated = torch.tensor([[1.0, 0, 1, 1], [0, 1, 1, 0]]).double()
    pull = drawn(3, 2, seed=3).detach()
    if kind == "categorical":
        parameters = [drawn(3, 2, 5, 4, spread=2.0)]
        p = torch.softmax(parameters[0], dim=-2)
        cells: RatingDistribution = LevelRatings(parameters[0], LEVELS, 0.5)
    else:
        parameters = [drawn(3, 2, 4, spread=2.0), torch.tensor([-2.0, -0.5, 0.3, 2.0]).double().requires_grad_()]
        below = torch.sigmoid(parameters[1][:, None] - parameters[0].unsqueeze(-2))
        edges = torch.zeros_like(below[..., :1, :]), torch.ones_like(below[..., :1, :])
        p = torch.diff(torch.cat([edges[0], below, edges[1]], dim=-2), dim=-2)
        cells = OrdinalRatings(parameters[0], parameters[1], LEVELS, 0.5)
    wanted = [*parameters, table, *([offset] if offset is not None else [])]

    plain = exact_sum(p, table, offset, unrated)
    fused = cells.sum_log_unrated(table, offset, unrated)
    torch.testing.assert_close(fused, plain, rtol=1e-9, atol=1e-9)
    for mine, theirs in zip(
        torch.autograd.grad((fused * pull).sum(), wanted),
        torch.autograd.grad((plain * pull).sum(), wanted),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-9)
    # The generic form that a new decoder inherits agrees too.
    generic = RatingDistribution.sum_log_unrated(cells, table, offset, unrated)
    torch.testing.assert_close(generic, plain, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("offset_shape", [None, (3, 2), (3, 2, 4)])
def test_fused_drawn_term_and_its_gradients_are_those_of_the_soft_one_hot(offset_shape: tuple[int, ...] | None) -> None:
    logits, table = drawn(3, 2, 5, 4, spread=2.0), drawn(5, 4, spread=2.0, seed=1)
    offset = drawn(*offset_shape, seed=2) if offset_shape else None
    unrated = torch.tensor([[1.0, 0, 1, 1], [0, 1, 1, 0]]).double()
    pull = drawn(3, 2, seed=3).detach()
    noise = gumbel((3, 2, 5, 4), torch.Generator().manual_seed(4)).double()
    draws = LevelRatings(logits, LEVELS, 0.5).draw(noise)
    fused = draws.sum_log_unrated(table, offset, unrated)
    plain = DrawnRatings.sum_log_unrated(draws, table, offset, unrated)
    torch.testing.assert_close(fused, plain, rtol=1e-9, atol=1e-9)
    wanted = [logits, table, *([offset] if offset is not None else [])]
    for mine, theirs in zip(
        torch.autograd.grad((fused * pull).sum(), wanted),
        torch.autograd.grad((plain * pull).sum(), wanted),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("offset_shape", [None, (3, 2), (3, 2, 4), (1, 1, 4)])
@pytest.mark.parametrize("size", [1, 4])
def test_fused_gaussian_term_and_its_gradients_are_those_of_the_quadrature(
    size: int, offset_shape: tuple[int, ...] | None
) -> None:
    mean, sd = drawn(3, 2, 4, spread=2.0), drawn(size, seed=4).exp().detach().requires_grad_()
    slope, intercept = drawn(size, seed=5), drawn(4, spread=2.0, seed=1)
    offset = drawn(*offset_shape, seed=2) if offset_shape else None
    unrated = torch.tensor([[1.0, 0, 1, 1], [0, 1, 1, 0]]).double()
    pull = drawn(3, 2, seed=3).detach()
    nodes, weights = (tensor.double() for tensor in gauss_hermite(8))
    cells = GaussianRatings(mean, sd, (nodes, weights))
    fused = cells.sum_log_unrated_linear(slope, intercept, offset, unrated)
    plain = RatingDistribution.sum_log_unrated(cells, slope * cells.support + intercept, offset, unrated)
    torch.testing.assert_close(fused, plain, rtol=1e-9, atol=1e-9)
    wanted = [mean, sd, slope, intercept, *([offset] if offset is not None else [])]
    for mine, theirs in zip(
        torch.autograd.grad((fused * pull).sum(), wanted),
        torch.autograd.grad((plain * pull).sum(), wanted),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("offset_shape", [None, (3, 2), (3, 2, 4), (1, 1, 4)])
@pytest.mark.parametrize("size", [1, 4])
@pytest.mark.parametrize("is_squashed", [True, False])
def test_fused_drawn_density_and_its_gradients_are_those_of_the_draw(
    is_squashed: bool, size: int, offset_shape: tuple[int, ...] | None
) -> None:
    score, sd = drawn(3, 2, 4, spread=2.0), drawn(size, seed=4).exp().detach().requires_grad_()
    slope, intercept = drawn(size, seed=5), drawn(size, spread=2.0, seed=1)
    offset = drawn(*offset_shape, seed=2) if offset_shape else None
    noise = drawn(3, 2, 4, seed=6)
    unrated = torch.tensor([[1.0, 0, 1, 2.5], [0, 1, 1, 0]]).double()
    pull = drawn(3, 2, seed=3).detach()
    draws = HardDraw(Squashed(score, 0.5, 5.0) if is_squashed else score, sd, noise)
    fused = draws.sum_log_unrated_linear(slope, intercept, offset, unrated)
    rating = (0.5 + 5 * torch.sigmoid(score) if is_squashed else score) + sd * noise
    log_odds = slope * rating + intercept
    if offset is not None:
        log_odds = log_odds + (offset if offset.ndim == 3 else offset[..., None])
    plain = (torch.log(1 - torch.sigmoid(log_odds)) * unrated).sum(-1)
    torch.testing.assert_close(fused, plain, rtol=1e-9, atol=1e-9)
    wanted = [score, sd, slope, intercept, noise, *([offset] if offset is not None else [])]
    found, expected = (torch.autograd.grad((term * pull).sum(), wanted) for term in (fused, plain))
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-9)


def test_fused_gaussian_term_stays_finite_far_out() -> None:
    mean = torch.tensor([-80.0, -8.0, 0.0, 8.0, 80.0])[None, None].requires_grad_()
    slope, intercept = torch.tensor([2.0], requires_grad=True), torch.zeros(5, requires_grad=True)
    cells = GaussianRatings(mean, torch.tensor([3.0]), gauss_hermite(8))
    found = cells.sum_log_unrated_linear(slope, intercept, torch.full((1, 1), 5.0), torch.ones(1, 5))
    found.sum().backward()
    assert torch.isfinite(found).all()
    assert all(torch.isfinite(tensor.grad).all() for tensor in (mean, slope, intercept))


@pytest.mark.parametrize("missing", ["shared", "per-item"])
def test_a_linear_logit_is_its_line(missing: str) -> None:
    part = tiny_model(log_of(random_matrix(7, 5, seed=2)), missing=missing).missing
    ratings = torch.tensor([1.0, 2.5, 3.0])[:, None]
    slope, intercept = part.line(slice(None))
    torch.testing.assert_close(slope * ratings + intercept, part.added(ratings, slice(None)))


@pytest.mark.parametrize("with_offset", [True, False])
@pytest.mark.parametrize("direction", [1.0, -1.0])
@pytest.mark.parametrize("kind", ["categorical", "ordinal"])
def test_fused_term_stays_finite_and_right_at_extremes(kind: str, direction: float, with_offset: bool) -> None:
    scores = torch.tensor([-60.0, -8.0, 0.0, 8.0, 60.0])
    table = (direction * torch.tensor([-12.0, -5.0, 0.0, 5.0, 12.0])[:, None] + torch.zeros(5)).requires_grad_()
    offset = torch.full((1, 1), 2.0, requires_grad=True) if with_offset else None
    if kind == "categorical":
        natural = (scores * torch.linspace(-1, 1, 5)[:, None])[None, None].requires_grad_()
        p = torch.softmax(natural.detach().double(), -2)
        cells: RatingDistribution = LevelRatings(natural, LEVELS.float(), 0.5)
    else:
        natural = scores[None, None].clone().requires_grad_()
        cuts = torch.tensor([-3.0, -1.0, 1.0, 3.0]).double()
        # 1 - sigmoid written as sigmoid of the negative: exact in both tails.
        ends = torch.full((1,), 1e6).double()
        upper = torch.cat([cuts, ends])[:, None] - scores.double()
        lower = torch.cat([-ends, cuts])[:, None] - scores.double()
        p = torch.where(
            lower + upper > 0,
            torch.sigmoid(-lower) - torch.sigmoid(-upper),
            torch.sigmoid(upper) - torch.sigmoid(lower),
        )[None, None]
        cells = OrdinalRatings(natural, cuts.float(), LEVELS.float(), 0.5)
    unrated = torch.ones(1, 5)
    found = torch.stack(
        [
            cells.sum_log_unrated(table, offset, torch.nn.functional.one_hot(torch.tensor([j]), 5).float())
            for j in range(5)
        ]
    ).squeeze()
    shift = 2.0 if with_offset else 0.0
    stays = (p[0, 0] * torch.sigmoid(-(table.detach().double() + shift))).sum(0)
    torch.testing.assert_close(found.double(), torch.log(stays), rtol=1e-4, atol=1e-5)
    cells.sum_log_unrated(table, offset, unrated).sum().backward()
    for tensor in (natural, table, *([offset] if offset is not None else [])):
        assert torch.isfinite(tensor.grad).all()


def test_certain_selection_gives_a_large_finite_penalty() -> None:
    cells = LevelRatings(torch.zeros(1, 1, 5, 2, requires_grad=True), LEVELS.float(), 0.5)
    for offset in (None, torch.full((1, 1), 30.0)):
        table = torch.full((5, 2), 200.0, requires_grad=True)
        value = cells.sum_log_unrated(table, offset, torch.ones(1, 2))
        value.sum().backward()
        assert -500 < value.item() < -79
        assert torch.isfinite(table.grad).all()


@pytest.mark.parametrize("kind", ["categorical", "ordinal"])
def test_sure_dislike_under_falling_selection_is_a_number(kind: str) -> None:
    # As u_R + sum_r F_r (u_r - u_{r+1}) this rounds to 0 or below: nan in some of these draws, wrong in all.
    for seed in range(100):
        generator = torch.Generator().manual_seed(seed)
        table = torch.sort(6 * torch.rand(5, 1, generator=generator) - 3, dim=0, descending=True).values
        table[0] += 20
        score, cuts = torch.full((1, 1, 1), -60.0), torch.tensor([-3.0, -1.0, 1.0, 3.0])
        cells: RatingDistribution = OrdinalRatings(score, cuts, LEVELS.float(), 0.5)
        if kind == "categorical":
            cells = LevelRatings(torch.tensor([0.0, -40, -60, -80, -99])[None, None, :, None], LEVELS.float(), 0.5)
        found = cells.sum_log_unrated(table, None, torch.ones(1, 1)).item()
        assert found == pytest.approx(-table[0].item(), rel=1e-4)


@pytest.mark.parametrize("marginal", [True, False])
@pytest.mark.parametrize("decoder", ["categorical", "ordinal", "gaussian"])
@pytest.mark.parametrize("missing", ["shared", "per-item", "ignorable"])
def test_neither_blocks_nor_recomputation_change_value_or_gradient(
    monkeypatch: pytest.MonkeyPatch, decoder: str, missing: str, marginal: bool
) -> None:
    log = log_of(random_matrix(7, 5, seed=2))
    model = tiny_model(log, decoder=decoder, missing=missing, user_activity=True, exposure_size=2)
    batch = make_batch(log, np.arange(7))
    z = torch.randn(3, 7, 1, generator=torch.Generator().manual_seed(0))
    z_x = torch.randn(3, 7, 3, generator=torch.Generator().manual_seed(1)).requires_grad_()
    noise = model.decoder.noise((3, 7, 5), torch.Generator().manual_seed(2))
    term = model.estimator(marginal=marginal)
    results = []
    for cells, stored in ((1, 0), (3 * 5 * 2, 0), (3 * 5 * 2, 10**6), (10**6, 0), (10**6, 10**6)):
        monkeypatch.setattr(missing_term, "STORED_CELLS", stored)
        value = term(z, z_x, batch, noise, block_cells=cells)
        model.zero_grad()
        z_x.grad = None
        value.sum().backward()
        results.append([value.detach(), z_x.grad, *[p.grad for p in model.parameters() if p.grad is not None]])
        with torch.no_grad():
            torch.testing.assert_close(term(z, z_x, batch, noise, block_cells=cells), value.detach())
    for other in results[1:]:
        for mine, theirs in zip(results[0], other, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("nodes", [2, 5, 8])
def test_nodes_integrate_normal_moments_exactly(nodes: int) -> None:
    points, weights = (tensor.double() for tensor in gauss_hermite(nodes))
    for power in range(2 * nodes):
        moment = 0.0 if power % 2 else math.prod(range(1, power, 2))  # (power - 1)!!
        assert (weights * points**power).sum().item() == pytest.approx(moment, rel=1e-5, abs=1e-4 * max(1.0, moment))


def largest_error(nodes: int, slope: float) -> float:
    """Largest error of log E[1 - pi] over biases, for logit pi = slope * t + bias, t standard normal."""
    bias = np.linspace(-12, 12, 97)
    cells = GaussianRatings(torch.zeros(1, 1, 97), torch.ones(1), gauss_hermite(nodes))
    found = cells.log_unrated(slope * cells.support + torch.from_numpy(bias).float(), None)
    t, under_t = normal_grid(2001, 12.0)
    exact = np.log(under_t @ expit(-(slope * t[:, None] + bias)))
    return float(np.abs(found.numpy() - exact).max())


def test_the_reference_integral_is_that_of_scipy() -> None:
    t, under_t = normal_grid(2001, 12.0)
    for slope, bias in ((1.5, 1.75), (-0.7, 10.0)):
        exact, _ = integrate.quad(lambda x, w=slope, b=bias: norm.pdf(x) * expit(-(w * x + b)), -12, 12, epsrel=1e-11)
        assert under_t @ expit(-(slope * t + bias)) == pytest.approx(exact, rel=1e-8)


def test_default_quadrature_keeps_its_stated_tolerance() -> None:
    # The promise of ModelConfig.quadrature_nodes for its default of 8; 2e-6 for single precision.
    for slope in (-1.0, 0.3, 1.0):
        assert largest_error(8, slope) < 1e-5 + 2e-6
    for slope in (-1.5, 1.25, 1.5):
        assert largest_error(8, slope) < 4e-4
    assert largest_error(16, 1.5) < 1e-5


def test_quadrature_is_the_mean_over_draws() -> None:
    generator = torch.Generator().manual_seed(0)
    mean, sd = torch.tensor([[[2.0, 3.5, 4.8]]]), torch.tensor([0.4, 0.9, 1.3])
    cells = GaussianRatings(mean, sd, gauss_hermite(8))
    x = mean + sd * torch.randn(200_000, 1, 3, generator=generator)
    stays = torch.sigmoid(-(0.8 * (x - 3) - 0.5))
    error = stays.std(0) / math.sqrt(len(x)) / stays.mean(0)
    found = cells.log_unrated(0.8 * (cells.support - 3) - 0.5, None)
    assert ((found - torch.log(stays.mean(0))).abs() < 3 * error).all()
    torch.testing.assert_close(cells.mean, mean)


@pytest.mark.parametrize("margin", [0, 0.5, 3])
def test_gaussian_log_density_and_bin_masses_are_those_of_scipy(margin: float) -> None:
    log = log_of(random_matrix(7, 5, seed=2))
    decoder = tiny_model(log, decoder="gaussian", gaussian_variance="per-item", mean_margin=margin).decoder
    with torch.no_grad():
        decoder.log_sd.copy_(torch.linspace(-1.5, 0.4, 5))
        z = torch.randn(2, 3, 1, generator=torch.Generator().manual_seed(0))
        cells, grid = decoder.cells(z), decoder.grid()
        natural = z.numpy() * decoder.weight[0, :, 0].numpy() + decoder.bias[0].numpy()
        mean, sd = 1 - margin + (2 + 2 * margin) * expit(natural), np.exp(np.linspace(-1.5, 0.4, 5))
        x = torch.tensor([1.0, 2.0, 3.0, 2.5, -0.5])
        np.testing.assert_allclose(cells.log_prob(x), norm.logpdf(x.numpy(), mean, sd), rtol=1e-4, atol=1e-5)
        masses = cells.mass(grid)
        edges = np.concatenate([[-np.inf], grid.upper.numpy()[:-1].astype(float), [np.inf]])
        exact = np.diff(norm.cdf(edges[:, None], mean[..., None, :], sd), axis=-2)
    np.testing.assert_allclose(masses, exact, atol=1e-5)
    assert torch.equal(grid.lower[1:], grid.upper[:-1])
    width = (grid.upper - grid.lower).numpy()
    assert width.max() <= 0.5 * np.exp(-1.5) + 1e-6
    assert grid.lower[0] <= 1 - margin - 4 * np.exp(0.4)
    assert grid.upper[-1] >= 3 + margin + 4 * np.exp(0.4)
    for half in (1.5, 2.5):  # a level's probability is a sum of whole bins
        assert np.abs(grid.upper.numpy() - half).min() < 1e-5


@pytest.mark.parametrize("decoder", ["categorical", "ordinal"])
def test_level_log_probabilities_survive_far_out(decoder: str) -> None:
    log = log_of(random_matrix(7, 5, seed=2))
    part = tiny_model(log, decoder=decoder).decoder
    z = torch.tensor([[[-200.0]], [[0.0]], [[200.0]]])
    with torch.no_grad():
        logs = torch.stack([part.cells(z).log_prob(torch.full((5,), level)) for level in (1.0, 2.0, 3.0)], dim=-2)
        mass = part.cells(z).mass(part.grid())
    assert torch.isfinite(logs).all()
    torch.testing.assert_close(torch.exp(logs), mass, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(torch.logsumexp(logs, -2), torch.zeros(3, 1, 5), rtol=0, atol=1e-5)


def test_gumbel_draws_have_the_level_probabilities() -> None:
    log = log_of(random_matrix(7, 5, seed=2))
    for decoder in ("categorical", "ordinal"):
        part = tiny_model(log, decoder=decoder).decoder
        n = 20_000
        with torch.no_grad():
            cells = part.cells(torch.full((n, 1, 1), 0.3))
            weights = cells.draw(part.noise((n, 1, 5), torch.Generator().manual_seed(0))).weights
            p = cells.support_weights[0, 0]
        error = (p * (1 - p) / n).sqrt()
        assert ((weights.mean(0)[0] - p).abs() < 3.5 * error + 1e-4).all()
