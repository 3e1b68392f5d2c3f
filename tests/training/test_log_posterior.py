"""The density that is sampled: against enumeration and scipy, its coordinates, its gradient, its basis."""

import numpy as np
import pytest
import torch
from exact import Enumeration, level_probabilities
from factories import log_of, random_matrix, tiny_model
from numpy.typing import NDArray
from scipy import stats
from scipy.special import expit

from mnar_recsys.config import ModelConfig
from mnar_recsys.data import RatingLog
from mnar_recsys.model.decoders import OrdinalDecoder
from mnar_recsys.model.missing.base import TYPICAL_SELECTION, Slope
from mnar_recsys.model.mnar_vae import MnarVae
from mnar_recsys.model.priors import log_half_normal
from mnar_recsys.training.alignment import to_basis
from mnar_recsys.training.log_posterior import LogPosterior

MATRIX = random_matrix(5, 3, seed=1)
CONFIG = ModelConfig(item_weights="variational", selection_prior_sd=0.4)


@pytest.fixture(scope="module")
def log() -> RatingLog:
    return log_of(MATRIX)


def make(log: RatingLog, **settings: object) -> MnarVae:
    chosen = {"decoder": "ordinal", "missing": "shared", "item_weights": "variational"} | settings
    return tiny_model(log, seed=2, **chosen)


def random_coordinates(posterior: LogPosterior, seed: int) -> torch.Tensor:
    return 0.7 * torch.randn(posterior.size, generator=torch.Generator().manual_seed(seed))


def expected_density(posterior: LogPosterior, coordinates: torch.Tensor, log: RatingLog) -> float:
    """log p(x_obs, s | z) with every completion enumerated, and the priors from scipy, as the module describes them."""
    values, z = posterior.parameters(coordinates)
    model = make(log)
    model.load_state_dict(values, strict=False)
    value = {name: part.double().numpy() for name, part in values.items()}
    slope = np.logaddexp(0, value["missing.slope.raw"])[0]
    levels = np.array([1.0, 2.0, 3.0])
    centred = (levels - model.missing.centre) / model.missing.unit
    pi = expit(slope * centred + value["missing.item_bias"][:, None])
    total = 0.0
    for row, latent in zip(MATRIX, z.double().numpy(), strict=True):
        if np.isnan(row).all():
            continue
        at_z = Enumeration(np.ones(1), level_probabilities(model, latent), pi[None], levels)
        total += at_z.log_evidence(row) + stats.norm.logpdf(latent).sum()
    # Coordinates u of a weight w = m + t u: density of w times t.
    t, m = np.exp(value["decoder.weight_posterior.log_prior_sd"]), value["decoder.weight_posterior.prior_mean"]
    total += (stats.norm.logpdf(value["decoder.weight"], m, t) + np.log(t)).sum() + stats.norm.logpdf(m).sum()
    total += (stats.halfnorm.logpdf(t, scale=0.5) + np.log(t)).sum()
    t, m = np.exp(value["decoder.bias_posterior.log_prior_sd"]), posterior.model.decoder.bias_posterior.prior_mean
    total += (stats.norm.logpdf(value["decoder.bias"], m.detach().double().numpy(), t) + np.log(t)).sum()
    total += (stats.halfnorm.logpdf(t, scale=0.5) + np.log(t)).sum()
    share = log.n_ratings / (log.n_users * log.n_items)
    total += stats.norm.logpdf(value["missing.item_bias"], np.log(share / (1 - share)), 3.0).sum()
    # The selection between the ends, 4 units, is log-normal; d selection / d raw = 4 sigmoid(raw).
    total += stats.lognorm.logpdf(4 * slope, 0.4, scale=TYPICAL_SELECTION) + np.log(
        expit(value["missing.slope.raw"][0])
    )
    shares = level_probabilities(zero_scores(model), np.zeros(1))[0, 0]
    total += stats.dirichlet.logpdf(shares / shares.sum(), np.ones(3)) + log_volume_of_cuts(model.decoder)
    return float(total)


def zero_scores(model: MnarVae) -> MnarVae:
    with torch.no_grad():
        model.decoder.weight.zero_()
        model.decoder.bias.zero_()
    return model


def log_volume_of_cuts(decoder: OrdinalDecoder) -> float:
    """log |d shares / d (first cut, raw gaps)|, by autograd on the shares themselves."""

    def shares(stored: torch.Tensor) -> torch.Tensor:
        gaps = torch.nn.functional.softplus(stored[1:]) + 1e-3
        cuts = torch.cat([stored[:1], stored[:1] + gaps.cumsum(0)])
        return torch.diff(torch.sigmoid(cuts), prepend=stored.new_zeros(1))

    stored = torch.cat([decoder.first_cut, decoder.raw_gaps]).detach().double()
    return float(torch.linalg.slogdet(torch.autograd.functional.jacobian(shares, stored))[1])


def test_the_density_is_that_of_enumeration_and_the_stated_priors(log: RatingLog) -> None:
    posterior = LogPosterior(make(log), log, CONFIG)
    points = [random_coordinates(posterior, seed) for seed in range(4)]
    found = np.array([float(posterior(point)) for point in points])
    expected = np.array([expected_density(posterior, point, log) for point in points])
    assert np.ptp(found) > 5
    np.testing.assert_allclose(found - found[0], expected - expected[0], atol=2e-3)


@pytest.mark.parametrize("size", [1, 4])
@pytest.mark.parametrize("sd", [0.5, None])
def test_slopes_have_the_prior_of_their_sum_and_uniform_proportions(size: int, sd: float | None) -> None:
    slope = Slope("positive", float(size), size)

    def place(raw: torch.Tensor) -> torch.Tensor:
        """Selection (or its log, where that has the prior) and proportions of all slopes but the last."""
        slopes = torch.nn.functional.softplus(raw)
        total = slopes.sum()
        first = total if sd is None else total.log()
        return torch.cat([first[None], (slopes / total)[:-1]])

    def expected(raw: torch.Tensor) -> float:
        log_total = float(torch.nn.functional.softplus(raw).sum().log())
        prior = 0.0 if sd is None else stats.norm.logpdf(log_total, np.log(TYPICAL_SELECTION), sd)
        return float(prior + torch.linalg.slogdet(torch.autograd.functional.jacobian(place, raw))[1])

    points = [torch.linspace(-1, 1, size, dtype=torch.float64) + shift for shift in (-1.0, 0.0, 1.5)]
    found = []
    for raw in points:
        with torch.no_grad():
            slope.raw.copy_(raw)
        found.append(float(slope.log_density(sd).detach()))
    differences = [expected(raw) - expected(points[0]) for raw in points]
    np.testing.assert_allclose(np.array(found) - found[0], differences, atol=1e-4)
    assert Slope("free", 4.0, size).log_density(sd) == 0.0


def test_a_half_normal_scale_in_its_logarithm() -> None:
    log_sd = torch.tensor([-2.0, 0.3])
    expected = torch.distributions.HalfNormal(0.5).log_prob(log_sd.exp()) + log_sd
    found = torch.stack([log_half_normal(one, 0.5) for one in log_sd])
    torch.testing.assert_close(found - found[0], expected - expected[0])


ALL = {"exposure_size": 1, "exposure_sees_taste": True, "user_activity": True, "latent_size": 2}


@pytest.mark.parametrize(
    "settings",
    [
        {"missing": "per-level"},
        {"missing": "per-item", "sign": "free", "decoder": "categorical"},
        {"decoder": "gaussian"},
        {"missing": "ignorable"},
        {"missing": "known", "known_propensities": ((1, 0.1), (3, 0.4)), "known_adjust": True},
        {"missing": "known", "known_propensities": ((1, 0.1), (3, 0.4))},
    ],
    ids=str,
)
def test_its_gradient_is_its_slope_whatever_the_model(log: RatingLog, settings: dict[str, object]) -> None:
    posterior = LogPosterior(make(log, **ALL, **settings), log, CONFIG)
    point = random_coordinates(posterior, 0).requires_grad_()
    (gradient,) = torch.autograd.grad(posterior(point), point)
    directions = torch.randn(3, posterior.size, generator=torch.Generator().manual_seed(1))
    step = 5e-3
    with torch.no_grad():
        for direction in directions:
            slope = float(posterior(point + step * direction) - posterior(point - step * direction)) / (2 * step)
            assert slope == pytest.approx(float(gradient @ direction), rel=2e-2, abs=2e-2)
    assert (gradient != 0).float().mean() > 0.9  # nothing is left out
    assert all(np.isfinite(value) for value in posterior.monitored(point.detach()).values())


def with_features(log: RatingLog) -> RatingLog:
    from mnar_recsys.data import FeatureTable

    def table(rows: int) -> FeatureTable:
        values: NDArray[np.float32] = np.random.default_rng(rows).normal(size=(rows, 2)).astype(np.float32)
        return FeatureTable(("a", "b"), values)

    return log.with_features(user_features=table(log.n_users), item_features=table(log.n_items))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("settings", [{}, {"decoder": "gaussian"}, {"exposure_size": 2, "user_activity": True}])
def test_it_can_be_compiled_in_one_piece(log: RatingLog, settings: dict[str, object]) -> None:
    posterior = LogPosterior(make(log, **settings), log, CONFIG)
    coordinates = random_coordinates(posterior, 0).requires_grad_()
    # Without a compiler, which would find the same pieces: a call that cannot be traced costs a third of the speed.
    traced = torch.compile(posterior.__call__, fullgraph=True, dynamic=False, backend="eager")
    found, plain = (torch.autograd.grad(density(coordinates), coordinates)[0] for density in (traced, posterior))
    torch.compiler.reset()
    torch.testing.assert_close(found, plain)


def test_a_turned_draw_is_the_same_draw_nearer_to_the_encoder(log: RatingLog) -> None:
    log = with_features(log)
    model = make(log, **ALL)
    posterior = LogPosterior(model, log, CONFIG)
    values, z = posterior.parameters(random_coordinates(posterior, 3))
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(z.shape, generator=generator)
    turned, latents = to_basis(model, values, z, target)
    assert (latents - target).norm() < (z - target).norm() - 0.1
    assert torch.equal(latents[:, -1], z[:, -1])  # activity has no basis
    assert not {name for name in turned if "prior" in name}
    assert turned.keys() >= {"decoder.weight_effect.weight", "user_effect.weight", "exposure.effect.weight"}

    def outcome(parameters: dict[str, torch.Tensor], latent: torch.Tensor) -> tuple[torch.Tensor, ...]:
        model.load_state_dict(parameters, strict=False)
        taste, z_x = model.split_latent(latent[None])
        return model.decoder.cells(taste).mean, model.exposure.cells(z_x), (latent - model.prior_mean(batch)).norm()

    batch = posterior.batch
    rated = torch.from_numpy(posterior.users)
    for before, after in zip(outcome(values, z[rated]), outcome(turned, latents[rated]), strict=True):
        torch.testing.assert_close(before, after)


def test_chains_start_apart_near_the_variational_fit(log: RatingLog) -> None:
    model = make(log, **ALL)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    posterior = LogPosterior(model, log, CONFIG)
    one, other = (posterior.start(torch.Generator().manual_seed(seed)) for seed in (0, 1))
    assert torch.equal(one, posterior.start(torch.Generator().manual_seed(0)))
    assert (one != other).all()
    weights, _ = posterior.parameters(one)
    gap = (weights["decoder.weight"] - model.decoder.weight).abs()
    assert (gap < 6 * torch.exp(model.decoder.weight_posterior.log_sd)).all()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
