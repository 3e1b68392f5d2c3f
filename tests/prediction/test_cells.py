"""Predictions of cells against exact conditionals of tiny models."""

import numpy as np
import pytest
import torch
from exact import Array, Enumeration, enumerate_model
from factories import LinearGaussian, log_of, tiny_model
from scipy import stats
from scipy.special import expit

from mnar_recsys.config import ModelConfig
from mnar_recsys.data import RatingLog, RatingScale
from mnar_recsys.model.batch import make_batch
from mnar_recsys.model.build import build_model
from mnar_recsys.model.exposure import Exposure
from mnar_recsys.model.missing import Ignorable
from mnar_recsys.model.mnar_vae import MnarVae
from mnar_recsys.model.proposal import propose
from mnar_recsys.prediction import UNKNOWN, Predictor
from mnar_recsys.prediction.cells import Estimand

NAN = np.nan
MATRIX = np.array([[3, NAN, 1, NAN], [NAN, 2, NAN, NAN], [3, NAN, 1, 2], [NAN, NAN, NAN, NAN]])
LEVELS = np.array([1.0, 2.0, 3.0])
WEIGHTS = np.array([[-1.4, 0.2, 1.2], [0.6, -1.2, 0.6], [-2.0, 0.0, 2.0], [1.0, 0.0, -1.0]])
DRAWS = 2**14


@pytest.fixture(scope="module")
def log() -> RatingLog:
    return log_of(MATRIX)


EXPOSURES = {"": {}, "activity": {"user_activity": True}, "exposure": {"exposure_size": 1}}


def selective_model(log: RatingLog, decoder: str, exposure: str) -> MnarVae:
    """Build a model where selection is strong and differs by item, through slopes of two signs."""
    model = tiny_model(log, seed=1, decoder=decoder, missing="per-item", sign="free", **EXPOSURES[exposure])
    with torch.no_grad():
        model.missing.slope.raw.copy_(torch.tensor([1.2, -0.8, 0.9, 1.1]))
        model.missing.item_bias.copy_(torch.tensor([0.3, -0.2, 0.5, 0.0]))
    return model


def enumerated(model: MnarVae, log: RatingLog) -> Enumeration:
    centred = (LEVELS - np.nanmean(MATRIX)) / 0.5  # a quarter of the range from 1 to 3
    return enumerate_model(model, log, np.array([1.2, -0.8, 0.9, 1.1])[:, None] * centred)


@pytest.fixture(scope="module", params=["categorical", "ordinal", "categorical-activity", "ordinal-exposure"])
def case(request: pytest.FixtureRequest, log: RatingLog) -> tuple[MnarVae, Enumeration]:
    decoder, _, exposure = request.param.partition("-")
    model = selective_model(log, decoder, exposure)
    return model, enumerated(model, log)


def unrated_cells() -> list[tuple[int, int]]:
    return [(user, item) for user, item in np.argwhere(np.isnan(MATRIX)).tolist() if user < 3]


def check_moments(found: object, place: int, by_z: Array, posterior: Array, tolerance: float = 2e-3) -> None:
    """``by_z`` (G, R) is the cell's distribution at each point of the posterior (G,)."""
    p = posterior @ by_z
    mean = p @ LEVELS
    assert found.mean[place] == pytest.approx(mean, abs=tolerance)
    assert found.sd[place] == pytest.approx(np.sqrt(p @ (LEVELS - mean) ** 2), abs=tolerance)
    assert found.mean_se[place] == pytest.approx(np.sqrt(posterior @ (by_z @ LEVELS - mean) ** 2), abs=tolerance)
    np.testing.assert_allclose(found.levels[place], p, atol=tolerance)
    for wanted, got in zip((0.05, 0.3, 0.5, 0.95), found.quantiles[:, place], strict=True):
        if np.abs(np.cumsum(p) - wanted).min() > tolerance:
            assert got == LEVELS[np.searchsorted(np.cumsum(p), wanted)]


def test_unrated_cells_follow_the_enumerated_conditional(log: RatingLog, case: tuple[MnarVae, Enumeration]) -> None:
    model, enumeration = case
    users, items = np.array(unrated_cells()).T
    predictor = Predictor(model, log, draws=DRAWS)
    found = predictor.predict(users, items, probabilities=(0.05, 0.3, 0.5, 0.95), levels=True)
    for place, (user, item) in enumerate(unrated_cells()):
        row, posterior = MATRIX[user], enumeration.posterior(MATRIX[user])
        check_moments(found, place, enumeration.given_z(row, item), posterior)
        np.testing.assert_allclose(found.levels[place], enumeration.cell(row, item), atol=2e-3)
        propensity = posterior @ (enumeration.p[:, item] * enumeration.pi[:, item]).sum(-1)
        assert found.propensity[place] == pytest.approx(propensity, abs=2e-3)
    assert not found.cold.any()


def test_rated_cells_follow_the_distribution_of_a_rating_given_by_choice(
    log: RatingLog, case: tuple[MnarVae, Enumeration]
) -> None:
    model, enumeration = case
    users, items = np.nonzero(~np.isnan(MATRIX))
    found = Predictor(model, log, draws=DRAWS).predict(users, items, probabilities=(0.05, 0.3, 0.5, 0.95), levels=True)
    for place, (user, item) in enumerate(zip(users, items, strict=True)):
        chosen = enumeration.p[:, item] * enumeration.pi[:, item]
        by_z = chosen / chosen.sum(-1, keepdims=True)
        check_moments(found, place, by_z, enumeration.posterior(MATRIX[user]))


def test_people_without_ratings_get_the_prior(log: RatingLog, case: tuple[MnarVae, Enumeration]) -> None:
    model, enumeration = case
    for user in (3, UNKNOWN):
        users, items = np.full(4, user), np.arange(4)
        found = Predictor(model, log, draws=DRAWS).predict(
            users, items, probabilities=(0.05, 0.3, 0.5, 0.95), levels=True
        )
        assert found.cold.all()
        np.testing.assert_allclose(found.ess, DRAWS, rtol=1e-3)
        for item in range(4):
            check_moments(found, item, enumeration.p[:, item], enumeration.prior)


def test_unknown_items_are_like_one_of_the_catalogue_at_random(
    log: RatingLog, case: tuple[MnarVae, Enumeration]
) -> None:
    model, enumeration = case
    users = np.array([0, 1, UNKNOWN])
    found = Predictor(model, log, draws=DRAWS).predict(users, np.full(3, UNKNOWN), probabilities=(0.3,), levels=True)
    for place, user in enumerate(users):
        posterior = enumeration.prior if user == UNKNOWN else enumeration.posterior(MATRIX[user])
        by_item = np.einsum("g,gjr->jr", posterior, enumeration.p)
        p = by_item.mean(0)
        assert found.mean[place] == pytest.approx(p @ LEVELS, abs=2e-3)
        np.testing.assert_allclose(found.levels[place], p, atol=2e-3)
        assert found.sd[place] == pytest.approx(np.sqrt(p @ LEVELS**2 - (p @ LEVELS) ** 2), abs=2e-3)
    assert found.cold.all()


def test_paper_estimand_is_equation_18_and_leaves_the_own_missingness_out(
    log: RatingLog, case: tuple[MnarVae, Enumeration]
) -> None:
    model, enumeration = case
    users, items = np.array(unrated_cells()).T
    paper = Predictor(model, log, draws=2**16, estimand=Estimand.PAPER).predict(users, items)
    own = Predictor(model, log, draws=DRAWS).predict(users, items)
    for place, (user, item) in enumerate(unrated_cells()):
        expected = enumeration.posterior(MATRIX[user]) @ (enumeration.p[:, item] @ LEVELS)
        # Weights with drawn ratings are noisy: 3 standard errors of a self-normalised mean.
        assert paper.mean[place] == pytest.approx(
            expected, abs=float(3 * paper.mean_se[place] / np.sqrt(paper.ess[place]))
        )
    assert np.abs(paper.mean - own.mean).max() > 0.1


def test_known_mechanism_constant_in_the_rating_changes_nothing(log: RatingLog) -> None:
    flat = tiny_model(log, missing="known", known_propensities=((1.0, 0.3), (3.0, 0.3)))
    ignorable = tiny_model(log, missing="ignorable")
    for name in ("encoder", "decoder"):
        getattr(ignorable, name).load_state_dict(getattr(flat, name).state_dict())
    users, items = np.indices((4, 4)).reshape(2, -1)
    one, other = (Predictor(model, log).predict(users, items, levels=True) for model in (flat, ignorable))
    for name in ("mean", "sd", "mean_se", "levels"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=2e-4, atol=1e-5)
    np.testing.assert_allclose(one.propensity, 0.3, rtol=1e-5)


def test_resampled_draws_follow_the_enumerated_joint_distribution() -> None:
    # 500 users with the same row, so that 40 draws of each are 20,000 draws of one posterior.
    row = MATRIX[1]
    log = log_of(np.tile(row, (500, 1)))
    model = selective_model(log, "categorical", "activity")
    with torch.no_grad():
        model.decoder.weight.mul_(2)  # strong tastes, so that two cells of a user hang together
    centred = (LEVELS - 2.0) / 0.5
    enumeration = enumerate_model(model, log, np.array([1.2, -0.8, 0.9, 1.1])[:, None] * centred)
    predictor = Predictor(model, log, draws=1024)
    users = np.repeat(np.arange(500), 2)
    drawn = predictor.draw(users, np.tile([2, 3], 500), 40, np.random.default_rng(0)).reshape(-1, 2)
    joint = enumeration.two_cells(row, 2, 3)
    counts = np.histogram2d(*drawn.T, bins=[0.5, 1.5, 2.5, 3.5])[0]
    assert counts.sum() == 20_000
    assert stats.chisquare(counts.ravel(), 20_000 * joint.ravel()).pvalue > 1e-3
    # The test has the power to see draws that ignore what the two cells share.
    apart = np.outer(joint.sum(1), joint.sum(0))
    assert stats.chisquare(counts.ravel(), 20_000 * apart.ravel()).pvalue < 1e-6


@pytest.mark.parametrize("missing", ["shared", "ignorable"])
def test_gaussian_cells_follow_the_tilted_normal_of_a_single_draw(missing: str) -> None:
    log = log_of(MATRIX)
    model = tiny_model(log, decoder="gaussian", missing=missing, sign="free", quadrature_nodes=16)
    with torch.no_grad():
        model.decoder.log_sd.fill_(np.log(0.45))
        if missing == "shared":
            model.missing.slope.raw.fill_(0.9)
    probabilities = (0.05, 0.25, 0.5, 0.9)
    predictor = Predictor(model, log, draws=1)
    found = predictor.predict(np.ones(3, int), np.array([0, 2, 3]), probabilities=probabilities, levels=True)
    proposal = propose(model, make_batch(log, np.array([1])), model.estimator(marginal=True))
    z = proposal.draw(predictor.noise[0])[0].item()
    x = np.linspace(-3, 7, 20_001)
    for place, item in enumerate((0, 2, 3)):
        natural = z * model.decoder.weight[0, item, 0].item() + model.decoder.bias[0, item].item()
        density = stats.norm.pdf(x, 0.5 + 3 * expit(natural), 0.45)
        if missing == "shared":
            logit = 0.9 * (x - np.nanmean(MATRIX)) / 0.5 + model.missing.item_bias[item].item()
            density = density * (1 - expit(logit))
        density /= density.sum()
        mean = (density * x).sum()
        assert found.mean[place] == pytest.approx(np.clip(mean, 1, 3), abs=1e-3)
        assert found.sd[place] == pytest.approx(np.sqrt((density * (x - mean) ** 2).sum()), abs=1e-3)
        assert found.mean_se[place] == pytest.approx(0, abs=1e-3)
        below = np.cumsum(density)
        quantiles = np.clip(x[np.searchsorted(below, probabilities)], 1, 3)
        np.testing.assert_allclose(found.quantiles[:, place], quantiles, atol=0.02)  # linear inside bins of half an sd
        at_levels = np.diff(np.interp([1.5, 2.5], x, below), prepend=0, append=1)
        np.testing.assert_allclose(found.levels[place], at_levels, atol=0.01)


def test_linear_gaussian_posterior_is_the_closed_form() -> None:
    rng = np.random.default_rng(0)
    P, K, sd = 6, 2, 0.8
    loadings, shift = rng.normal(size=(P, K)), rng.normal(size=P)
    complete = rng.normal(size=(5, K)) @ loadings.T + shift + sd * rng.normal(size=(5, P))
    matrix = np.where(rng.random((5, P)) < 0.5, complete, np.nan)
    scale = RatingScale(-50, 50)
    log = log_of(matrix, scale)
    config = ModelConfig(
        decoder="gaussian",
        missing="ignorable",
        user_activity=False,
        exposure_size=0,
        latent_size=K,
        posterior_scale="shared",
    )
    encoder = build_model(config, log, 0).encoder
    decoder = LinearGaussian(
        torch.zeros(P), scale, initial_sd=sd, margin=0, latent_size=K, variance="shared", quadrature_nodes=8
    )
    with torch.no_grad():
        decoder.weight.copy_(torch.from_numpy(loadings)[None])
        decoder.bias.copy_(torch.from_numpy(shift)[None])
        for parameter in (encoder.mean.weight, encoder.mean.bias, encoder.log_sd_bias):
            parameter.zero_()  # q(z|x) is the prior: importance sampling does the rest
    model = MnarVae(encoder, decoder, Ignorable(torch.zeros(P)), Exposure(P, 0, activity=False))
    users, items = np.nonzero(np.isnan(matrix))
    found = Predictor(model, log, draws=2**13).predict(users, items, probabilities=(0.05, 0.5, 0.95))
    covariance = loadings @ loadings.T
    for place, (user, item) in enumerate(zip(users, items, strict=True)):
        seen = np.flatnonzero(~np.isnan(matrix[user]))
        gain = covariance[item, seen] @ np.linalg.inv(covariance[np.ix_(seen, seen)] + sd**2 * np.eye(len(seen)))
        mean = shift[item] + gain @ (matrix[user, seen] - shift[seen])
        variance = covariance[item, item] - gain @ covariance[seen, item]
        tolerance = float(3 * np.sqrt(variance / found.ess[place]) + 2e-3)
        assert tolerance < 0.12
        assert found.mean[place] == pytest.approx(mean, abs=tolerance)
        assert found.mean_se[place] == pytest.approx(np.sqrt(variance), abs=2 * tolerance)
        assert found.sd[place] == pytest.approx(np.sqrt(variance + sd**2), abs=2 * tolerance)
        exact = stats.norm.ppf([0.05, 0.5, 0.95], mean, np.sqrt(variance + sd**2))
        np.testing.assert_allclose(found.quantiles[:, place], exact, atol=2 * tolerance + 0.03)
