"""The Student-t decoder against scipy: density, distribution function, draws, quadrature, and data with heavy tails."""

import math

import numpy as np
import pytest
import torch
from exact import normal_grid
from factories import log_of, random_matrix, tiny_model
from scipy import integrate, stats
from scipy.special import expit

from mnar_recsys.config import Settings
from mnar_recsys.data import RatingLog, RatingScale
from mnar_recsys.model.batch import make_batch
from mnar_recsys.model.bound import importance_bound
from mnar_recsys.model.build import build_model
from mnar_recsys.model.decoders import RatingDistribution, StudentTDecoder, StudentTRatings
from mnar_recsys.model.decoders.student_math import (
    cdf,
    log_density,
    quadrature_nodes,
    quadrature_weights,
    quantile,
)
from mnar_recsys.model.proposal import propose
from mnar_recsys.prediction import Predictor
from mnar_recsys.training import Trainer

NAN = np.nan
FREEDOMS = [2.1, 3.0, 8.0, 60.0, 400.0]


def freedom(df: float) -> torch.Tensor:
    return torch.tensor([df], requires_grad=True)


def slope_in_df(function: object, df: float, step: float = 1e-4) -> np.ndarray:
    return (function(df * (1 + step)) - function(df * (1 - step))) / (2 * df * step)


@pytest.mark.parametrize("df", FREEDOMS)
def test_density_and_its_slope_in_df_are_those_of_scipy(df: float) -> None:
    t = np.concatenate([np.linspace(-60, 60, 41), np.linspace(-3, 3, 41)])
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-7)):
        parameter = freedom(df)
        found = log_density(torch.from_numpy(t).to(dtype), parameter)
        np.testing.assert_allclose(found.detach(), stats.t.logpdf(t, parameter.item()), rtol=tolerance, atol=tolerance)
        found.sum().backward()
        expected = slope_in_df(lambda value: stats.t.logpdf(t, value).sum(), df)
        assert parameter.grad.item() == pytest.approx(expected, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("df", FREEDOMS)
def test_cdf_and_its_slopes_are_those_of_scipy(df: float) -> None:
    t = torch.cat([torch.linspace(-500, 500, 100), torch.linspace(-4, 4, 201)]).requires_grad_()
    parameter = freedom(df)
    found = cdf(t, parameter)
    points = t.detach().double().numpy()
    np.testing.assert_allclose(found.detach(), stats.t.cdf(points, parameter.item()), atol=2e-6)
    by_t, by_df = torch.autograd.grad(found.sum(), [t, parameter])
    np.testing.assert_allclose(by_t, stats.t.pdf(points, df), atol=1e-3)
    # Every point's slope in df; their sum alone would cancel by symmetry.
    weights = torch.sign(t.detach())
    (by_df,) = torch.autograd.grad((weights * cdf(t, parameter)).sum(), [parameter])
    expected = slope_in_df(lambda value: (np.sign(points) * stats.t.cdf(points, value)).sum(), df)
    assert by_df.item() == pytest.approx(expected, rel=2e-3, abs=1e-5)


@pytest.mark.parametrize("df", FREEDOMS)
def test_quantiles_and_their_slope_in_df_are_those_of_scipy(df: float) -> None:
    p = np.concatenate([[1e-6, 1e-4], np.linspace(0.005, 0.995, 100), [1 - 1e-4]])
    parameter = freedom(df)
    found = quantile(torch.from_numpy(p), parameter)
    np.testing.assert_allclose(found.detach(), stats.t.ppf(p, parameter.item()), rtol=1e-4, atol=2e-5)
    expected = slope_in_df(lambda value: stats.t.ppf(p, value), df)
    for place in (0, 1, 10, 40, 90, 102):
        (slope,) = torch.autograd.grad(found[place], [parameter], retain_graph=True)
        assert slope.item() == pytest.approx(expected[place], rel=1e-2)
    ends = quantile(torch.tensor([1e-7, 1 - 1e-7]), parameter)
    assert torch.isfinite(ends).all()


def largest_error(df: float, slope: float, low: float, high: float) -> float:
    """Largest error of log E[1 - pi] over intercepts, for logit pi = slope * t + intercept, t of ``df``."""
    nodes, log_jacobian = quadrature_nodes()
    rule = nodes, quadrature_weights(nodes, log_jacobian, torch.tensor([df]))
    intercepts = np.linspace(low, high, 9)
    cells = StudentTRatings(torch.zeros(1, 1, 9), torch.ones(1), torch.tensor([df]), rule)
    found = cells.log_unrated(slope * cells.support + torch.from_numpy(intercepts).float(), None)
    exact = []
    for b in intercepts:
        # The kink of the logistic function is where it is steepest; a t has no end, so quad maps the half-lines.
        cut = -b / slope
        parts = [
            integrate.quad(lambda x, b=b: stats.t.pdf(x, df) * expit(-(slope * x + b)), *ends, epsabs=1e-13, limit=200)
            for ends in ((-np.inf, min(cut, 0)), (min(cut, 0), max(cut, 0)), (max(cut, 0), np.inf))
        ]
        exact.append(math.log(sum(value for value, _ in parts)))
    return float(np.abs(found.numpy().ravel() - exact).max())


@pytest.mark.parametrize("df", [2.05, 3.0, 8.0, 60.0, 400.0])
def test_quadrature_keeps_its_stated_tolerance(df: float) -> None:
    # The promise of ``quadrature_weights``.
    for slope in (0.3, -1.0, 1.5):
        assert largest_error(df, slope, -10, 2) < 4e-4
        assert largest_error(df, slope, -6, 6) < 4e-3


@pytest.mark.parametrize("offset_shape", [None, (3, 2), (3, 2, 4)])
def test_fused_term_and_its_gradients_are_those_of_the_quadrature(offset_shape: tuple[int, ...] | None) -> None:
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int, spread: float = 1.0) -> torch.Tensor:
        return (spread * torch.randn(shape, generator=generator, dtype=torch.float64)).requires_grad_()

    location, sd, df = drawn(3, 2, 4, spread=2.0), drawn(4).exp().detach().requires_grad_(), drawn(1)
    slope, intercept = drawn(4), drawn(4, spread=2.0)
    offset = drawn(*offset_shape) if offset_shape else None
    unrated, pull = torch.tensor([[1.0, 0, 1, 1], [0, 1, 1, 0]]).double(), drawn(3, 2).detach()
    nodes, log_jacobian = (tensor.double() for tensor in quadrature_nodes())
    freedom = 2 + df.exp()
    cells = StudentTRatings(location, sd, freedom, (nodes, quadrature_weights(nodes, log_jacobian, freedom)))
    fused = cells.sum_log_unrated_linear(slope, intercept, offset, unrated)
    plain = RatingDistribution.sum_log_unrated(cells, slope * cells.support + intercept, offset, unrated)
    torch.testing.assert_close(fused, plain, rtol=1e-8, atol=1e-8)
    wanted = [location, sd, df, slope, intercept, *([offset] if offset is not None else [])]
    for mine, theirs in zip(
        torch.autograd.grad((fused * pull).sum(), wanted, retain_graph=True),
        torch.autograd.grad((plain * pull).sum(), wanted),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-7, atol=1e-8)


def student_decoder(**settings: object) -> StudentTDecoder:
    return tiny_model(log_of(random_matrix(7, 5, seed=2)), decoder="student-t", missing="shared", **settings).decoder


def test_draws_have_the_distribution_and_repeat_with_their_seed() -> None:
    decoder = student_decoder(student_df=3.0)
    n = 20_000
    noise = [decoder.noise((n, 1, 5), torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(noise[0], noise[1])
    assert not torch.equal(noise[0], noise[2])
    with torch.no_grad():
        cells = decoder.cells(torch.full((n, 1, 1), 0.3))
        ratings = cells.draw(noise[0]).ratings[:, 0].numpy()
        location, sd = cells.mean[0, 0].numpy(), cells.sd.item()
    for item in range(5):
        assert stats.kstest(ratings[:, item], stats.t(3.0, location[item], sd).cdf).pvalue > 1e-3
        assert stats.kstest(ratings[:, item], stats.norm(location[item], sd).cdf).pvalue < 1e-6


def test_bin_masses_are_those_of_scipy() -> None:
    decoder = student_decoder(gaussian_variance="per-item", student_df=3.0)
    with torch.no_grad():
        decoder.log_sd.copy_(torch.linspace(-1.5, 0.4, 5))
        cells, grid = decoder.cells(torch.randn(2, 3, 1, generator=torch.Generator().manual_seed(0))), decoder.grid()
        masses = cells.mass(grid)
    edges = np.concatenate([[-np.inf], grid.upper.numpy()[:-1].astype(float), [np.inf]])
    exact = stats.t.cdf(edges[:, None], 3.0, cells.mean.numpy()[..., None, :], np.exp(np.linspace(-1.5, 0.4, 5)))
    np.testing.assert_allclose(masses, np.diff(exact, axis=-2), atol=1e-5)


def test_degrees_of_freedom_are_learned_or_fixed() -> None:
    log = log_of(random_matrix(20, 5, seed=2))
    start = build_model(Settings().replace({"decoder": "student-t"}).model, log, 0).decoder
    assert start.df.item() == pytest.approx(8, rel=1e-5)
    assert start.raw_df.requires_grad
    spread = math.exp(start.log_sd.item()) * math.sqrt(8 / 6)  # the standard deviation of a t
    assert spread == pytest.approx(log.ratings.std(), rel=1e-5)
    fixed = build_model(Settings().replace({"decoder": "student-t", "student_df": "4.5"}).model, log, 0).decoder
    assert fixed.df.item() == pytest.approx(4.5, rel=1e-5)
    assert not fixed.raw_df.requires_grad


@pytest.mark.parametrize("marginal", [True, False], ids=["marginal", "sampled"])
def test_the_bound_has_the_gradient_in_df(marginal: bool) -> None:
    log = log_of(random_matrix(9, 5, seed=2))
    model = tiny_model(log, seed=2, decoder="student-t", missing="shared", sign="free")
    batch = make_batch(log, np.arange(9))
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(50, 9, 1, generator=generator)
    cell_noise = None if marginal else model.decoder.noise((50, 9, 5), generator)

    def bound() -> torch.Tensor:
        weights, _ = model.log_weights(batch, noise, model.estimator(marginal=marginal), cell_noise)
        # The mask alone: of the ratings, the density test speaks.
        return importance_bound(weights.log_p_s.double()).sum()

    bound().backward()
    slope, step, values = model.decoder.raw_df.grad.item(), 0.3, []
    for sign in (1, -1):
        with torch.no_grad():
            model.decoder.raw_df.add_(sign * step)
            values.append(bound().item())
            model.decoder.raw_df.sub_(sign * step)
    assert abs(slope) > 1e-4
    assert slope == pytest.approx((values[0] - values[1]) / (2 * step), rel=3e-2, abs=2e-5)


@pytest.mark.parametrize("marginal", [True, False], ids=["marginal", "sampled"])
@pytest.mark.parametrize("kind", ["ignorable", "shared", "per-item"])
def test_bound_is_the_integrated_likelihood(kind: str, marginal: bool) -> None:
    matrix = np.array([[3, NAN, 1, NAN], [NAN, 2, NAN, NAN], [3, 3, 1, 2], [NAN, NAN, NAN, NAN]])
    log = log_of(matrix)
    model = tiny_model(log, seed=2, decoder="student-t", missing=kind, sign="free", student_df=3.0)
    with torch.no_grad():
        model.decoder.log_sd.fill_(math.log(0.5))
    weight, shift = (value.detach().double().numpy() for value in (model.decoder.weight, model.decoder.bias))
    bias = model.missing.item_bias.detach().double().numpy()
    slope = np.zeros(4) if kind == "ignorable" else model.missing.slope.raw.detach().double().numpy() * np.ones(4)
    z, prior = normal_grid(241)
    t = stats.t.ppf((np.arange(4000) + 0.5) / 4000, 3.0)  # equally likely points
    location = 0.5 + 3 * expit(z[:, None] * weight[0, :, 0] + shift[0])  # (G, P); the scale is 1, 2, 3
    exact = []
    for row in matrix:
        density = prior.copy()
        for j, x in enumerate(row):
            x_or_draws = location[:, j, None] + 0.5 * t if np.isnan(x) else np.array(x)
            pi = expit(slope[j] * (x_or_draws - 15 / 7) / 0.5 + bias[j])
            density *= (1 - pi).mean(1) if np.isnan(x) else stats.t.pdf(x, 3.0, location[:, j], 0.5) * pi
        exact.append(math.log(density.sum()))
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(20_000, 4, 1, generator=generator)
    cell_noise = None if marginal else model.decoder.noise((20_000, 4, 4), generator)
    with torch.no_grad():
        weights, _ = model.log_weights(
            make_batch(log, np.arange(4)), noise, model.estimator(marginal=marginal), cell_noise
        )
    w = torch.exp(weights.total.double())
    error = (w.std(0) / w.mean(0)).numpy() / math.sqrt(len(w))
    assert error.max() < 0.04
    np.testing.assert_array_less(np.abs(importance_bound(weights.total).numpy() - exact), 3 * error + 2e-4)


def test_cells_follow_the_tilted_t_of_a_single_draw() -> None:
    matrix = np.array([[3, NAN, 1, NAN], [NAN, 2, NAN, NAN], [3, NAN, 1, 2], [NAN, NAN, NAN, NAN]])
    log = log_of(matrix)
    model = tiny_model(log, decoder="student-t", missing="shared", sign="free", student_df=4.0)
    with torch.no_grad():
        model.decoder.log_sd.fill_(math.log(0.4))
        model.missing.slope.raw.fill_(0.9)
    probabilities = (0.05, 0.25, 0.5, 0.9)
    predictor = Predictor(model, log, draws=1)
    found = predictor.predict(np.ones(3, int), np.array([0, 2, 3]), probabilities=probabilities, levels=True)
    z = propose(model, make_batch(log, np.array([1])), model.marginal()).draw(predictor.noise[0])[0].item()
    x = np.linspace(-40, 44, 84_001)
    for place, item in enumerate((0, 2, 3)):
        natural = z * model.decoder.weight[0, item, 0].item() + model.decoder.bias[0, item].item()
        logit = 0.9 * (x - np.nanmean(matrix)) / 0.5 + model.missing.item_bias[item].item()
        density = stats.t.pdf(x, 4.0, 0.5 + 3 * expit(natural), 0.4) * (1 - expit(logit))
        density /= density.sum()
        mean = density @ x
        assert found.mean[place] == pytest.approx(np.clip(mean, 1, 3), abs=2e-3)
        assert found.sd[place] == pytest.approx(math.sqrt(density @ (x - mean) ** 2), abs=0.01)
        below = np.cumsum(density)
        quantiles = np.clip(x[np.searchsorted(below, probabilities)], 1, 3)
        np.testing.assert_allclose(found.quantiles[:, place], quantiles, atol=0.02)
        at_levels = np.diff(np.interp([1.5, 2.5], x, below), prepend=0, append=1)
        np.testing.assert_allclose(found.levels[place], at_levels, atol=0.01)


def heavy_tailed(n_users: int, n_items: int, df: float) -> tuple[RatingLog, np.ndarray]:
    """Ratings at random, on a real scale, with t noise around a taste of one dimension; and the expected ratings."""
    rng = np.random.default_rng(0)
    natural = rng.normal(size=(n_users, 1)) * rng.normal(0.8, 0.3, n_items) + rng.normal(0, 0.5, n_items)
    location = 2 + 6 * expit(natural)
    ratings = np.clip(location + 0.4 * rng.standard_t(df, size=location.shape), 0, 10)
    return log_of(np.where(rng.random(location.shape) < 0.4, ratings, NAN), RatingScale(0, 10)), location


@pytest.mark.slow
def test_heavy_tails_are_found_and_no_longer_hurt() -> None:
    log, location = heavy_tailed(600, 25, df=2.5)
    unrated = np.ones(location.shape, dtype=bool)
    unrated[log.rows, log.items] = False
    users, items = np.nonzero(unrated)
    bounds, errors = {}, {}
    for decoder in ("gaussian", "student-t"):
        settings = Settings().replace(
            {"decoder": decoder, "missing": "ignorable", "latent_size": 3, "exposure_size": 0, "item_weights": "point",
             "exposure_sees_taste": False, "stop": "held-out", "max_steps": 1500, "device": "cpu"}
        )  # fmt: skip
        model = build_model(settings.model, log, 0)
        trainer = Trainer(model, log, settings, seed=0)
        trainer.run()
        bounds[decoder] = trainer.held_out_bound()
        predicted = Predictor(model, log).predict(users, items).mean
        errors[decoder] = float(np.square(predicted - location[users, items]).mean())
    gain = bounds["student-t"] - bounds["gaussian"]
    assert gain.mean() > 3 * gain.std() / math.sqrt(len(gain))
    assert errors["student-t"] < 0.9 * errors["gaussian"]
    assert 2.0 < model.decoder.df.item() < 3.5
    assert math.exp(model.decoder.log_sd.item()) == pytest.approx(0.4, rel=0.15)
