"""The importance-weighted bound against exact likelihoods of tiny models."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from exact import enumerate_model, normal_grid
from factories import log_of, tiny_model
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import norm

from mnar_recsys.data import RatingLog
from mnar_recsys.model.batch import make_batch
from mnar_recsys.model.bound import effective_sample_size, importance_bound
from mnar_recsys.model.mnar_vae import MnarVae

NAN = np.nan
MATRIX = np.array([[3, NAN, 1, NAN], [NAN, 2, NAN, NAN], [3, 3, 1, 2], [NAN, NAN, NAN, NAN]])
PROPENSITIES = ((1.0, 0.15), (2.0, 0.4), (3.0, 0.75))
LEVELS = np.array([1.0, 2.0, 3.0])
SAMPLES = 20_000


@pytest.fixture(scope="module")
def log() -> RatingLog:
    return log_of(MATRIX)


def softplus(x: torch.Tensor) -> NDArray[np.float64]:
    return np.log1p(np.exp(x.detach().double().numpy()))


def selection_of(model: MnarVae, kind: str, sign: str, centre: float = 15 / 7) -> NDArray[np.float64]:
    """What each level adds to the log-odds, (R,) or (P, R), from the raw parameters."""
    raw = {name: value for name, value in model.missing.named_parameters() if name != "item_bias"}
    free, positive = (lambda x: x.detach().double().numpy()), softplus
    direction = {"free": free, "positive": positive, "negative": lambda x: -softplus(x)}[sign]
    # The mean rating of MATRIX is 15 / 7; a quarter of the range from 1 to 3 is one half.
    centred = (LEVELS - centre) / 0.5
    match kind:
        case "shared":
            return direction(raw["slope.raw"]) * centred
        case "per-item":
            return direction(raw["slope.raw"])[:, None] * centred
        case "per-level":
            steps = direction(raw["increments.raw"])
            rising = np.array([0, steps[0], steps[0] + steps[1]])
            return rising - rising.mean()
        case "known":
            given = np.log([0.15 / 0.85, 0.4 / 0.6, 0.75 / 0.25])
            return softplus(raw["steepness.raw"]) * (given - given.mean()) if "steepness.raw" in raw else given
    return np.zeros(3)


def log_weights(
    model: MnarVae, log: RatingLog, *, marginal: bool, samples: int = SAMPLES, seed: int = 5
) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(samples, log.n_users, model.latent_size, generator=generator)
    cell_noise = None if marginal else model.decoder.noise((samples, log.n_users, log.n_items), generator)
    with torch.no_grad():
        weights, _ = model.log_weights(
            make_batch(log, np.arange(log.n_users)), noise, model.estimator(marginal=marginal), cell_noise
        )
    return weights.total.double()


def assert_bound_is(log_w: torch.Tensor, exact: NDArray[np.float64], *, power: float) -> None:
    """Compare within 3 standard errors of a log of a mean, each of which must be below ``power`` nats."""
    w = torch.exp(log_w - log_w.max())
    error = (w.std(0) / w.mean(0)).numpy() / math.sqrt(len(w))
    assert error.max() < power
    difference = importance_bound(log_w).numpy() - exact
    assert (np.abs(difference) < 3 * error + 1e-5).all(), (difference, error)


CASES = [
    ("ignorable", {}),
    ("shared", {"sign": "positive"}),
    ("shared", {"sign": "negative"}),
    ("shared", {"sign": "free"}),
    ("per-item", {"sign": "free"}),
    ("per-item", {"sign": "positive"}),
    ("per-level", {"sign": "positive"}),
    ("per-level", {"sign": "negative"}),
    ("per-level", {"sign": "free"}),
    ("known", {"known_propensities": PROPENSITIES}),
    ("known", {"known_propensities": PROPENSITIES, "known_adjust": True}),
]


EXPOSURES = {"none": {}, "activity": {"user_activity": True}, "latent": {"exposure_size": 1}}


@pytest.mark.parametrize("marginal", [True, False], ids=["marginal", "sampled"])
@pytest.mark.parametrize("exposure", EXPOSURES)
@pytest.mark.parametrize("decoder", ["categorical", "ordinal"])
@pytest.mark.parametrize(("kind", "settings"), CASES)
def test_bound_is_the_enumerated_likelihood(
    *, log: RatingLog, decoder: str, kind: str, settings: dict[str, object], exposure: str, marginal: bool
) -> None:
    scale = "per-user" if kind == "per-item" else "shared"
    model = tiny_model(
        log, seed=3, decoder=decoder, missing=kind, posterior_scale=scale, **EXPOSURES[exposure], **settings
    )
    selection = selection_of(model, kind, str(settings.get("sign", "positive")))
    enumeration = enumerate_model(model, log, selection)
    exact = np.array([enumeration.log_evidence(row) for row in MATRIX])
    assert_bound_is(log_weights(model, log, marginal=marginal), exact, power=0.04)


@pytest.mark.parametrize("could_be_rated", [True, False])
@pytest.mark.parametrize("exposure", EXPOSURES)
@pytest.mark.parametrize("kind", ["ignorable", "shared"])
def test_bound_with_ratings_of_a_survey(log: RatingLog, kind: str, exposure: str, could_be_rated: bool) -> None:
    # The first known rating of each user was collected at random.
    surveyed = [np.flatnonzero(~np.isnan(row))[:1].tolist() for row in MATRIX]
    marks = np.array([item in surveyed[row] for row, item in zip(log.rows, log.items, strict=True)])
    model = tiny_model(
        replace(log, surveyed=marks), seed=3, missing=kind, survey_could_be_rated=could_be_rated, **EXPOSURES[exposure]
    )
    with torch.no_grad():
        model.encoder.survey_shift.normal_(generator=torch.Generator().manual_seed(0))
    selection = selection_of(model, kind, "positive", centre=float(log.ratings[~marks].mean()))
    enumeration = enumerate_model(model, log, selection)
    exact = np.array(
        [
            enumeration.log_evidence(row, items, could_be_rated=could_be_rated)
            for row, items in zip(MATRIX, surveyed, strict=True)
        ]
    )
    log_w = log_weights(model, replace(log, surveyed=marks), marginal=True)
    assert_bound_is(log_w, exact, power=0.05)
    # The mark matters to the encoder, and thereby to the weights.
    assert not torch.equal(log_w, log_weights(model, replace(log, surveyed=~marks), marginal=True))


@pytest.mark.parametrize("marginal", [True, False], ids=["marginal", "sampled"])
@pytest.mark.parametrize("kind", ["ignorable", "shared"])
def test_bound_with_exposure_and_activity(log: RatingLog, kind: str, marginal: bool) -> None:
    model = tiny_model(log, seed=3, missing=kind, user_activity=True, exposure_size=1)
    enumeration = enumerate_model(model, log, selection_of(model, kind, "positive"))
    exact = np.array([enumeration.log_evidence(row) for row in MATRIX[[0, 2]]])
    assert_bound_is(log_weights(model, log, marginal=marginal)[:, [0, 2]], exact, power=0.04)


@pytest.mark.parametrize("marginal", [True, False], ids=["marginal", "sampled"])
@pytest.mark.parametrize("variance", ["shared", "per-item"])
@pytest.mark.parametrize("kind", ["ignorable", "shared", "per-item", "per-level", "known"])
def test_gaussian_bound_is_the_integrated_likelihood(log: RatingLog, kind: str, variance: str, marginal: bool) -> None:
    settings = {"known_propensities": PROPENSITIES} if kind == "known" else {"sign": "free"}
    model = tiny_model(log, seed=2, decoder="gaussian", missing=kind, gaussian_variance=variance, **settings)
    with torch.no_grad():
        model.decoder.log_sd.copy_(torch.linspace(-1.2, -0.3, model.decoder.log_sd.numel()))
    at_levels = np.broadcast_to(selection_of(model, kind, "free"), (4, 3))
    bias = model.missing.item_bias.detach().double().numpy()

    def pi(j: int, x: NDArray[np.float64]) -> NDArray[np.float64]:
        inside = np.interp(x, LEVELS, at_levels[j])
        if kind in ("shared", "per-item"):  # straight lines go on beyond the levels
            inside = at_levels[j, 0] + (at_levels[j, 1] - at_levels[j, 0]) * (x - 1)
        return expit(inside + bias[j])

    z, prior = normal_grid(241)
    t, under_t = normal_grid(401)
    weight, shift = (value.detach().double().numpy() for value in (model.decoder.weight, model.decoder.bias))
    mean = 0.5 + 3 * expit(z[:, None] * weight[0, :, 0] + shift[0])  # (G, P); the scale is 1, 2, 3
    sd = np.broadcast_to(np.exp(model.decoder.log_sd.detach().double().numpy()), 4)
    exact = []
    for row in MATRIX:
        density = prior.copy()
        for j, x in enumerate(row):
            if np.isnan(x):
                density *= (1 - pi(j, mean[:, j, None] + sd[j] * t)) @ under_t
            else:
                density *= norm.pdf(x, mean[:, j], sd[j]) * pi(j, np.array(x))
        exact.append(np.log(density.sum()))
    assert_bound_is(log_weights(model, log, marginal=marginal), np.array(exact), power=0.04)


@pytest.mark.parametrize("decoder", ["categorical", "ordinal", "gaussian"])
def test_sampled_weights_average_to_the_marginal_one_at_fixed_z(log: RatingLog, decoder: str) -> None:
    model = tiny_model(log, seed=7, decoder=decoder, missing="shared", sign="free", user_activity=True)
    with torch.no_grad():
        model.missing.slope.raw.fill_(2.0)  # strong selection, so that the two estimators lie well apart
        model.missing.item_bias.fill_(0.0)
    z = torch.randn(6, log.n_users, 1, generator=torch.Generator().manual_seed(0))
    activity = torch.linspace(-1, 1, 6)[:, None, None].expand(6, log.n_users, 1)
    batch = make_batch(log, np.arange(log.n_users))
    fills, generator = 4000, torch.Generator().manual_seed(1)
    with torch.no_grad():
        marginal = model.estimator(marginal=True)(z, activity, batch, None).double()
        noise = model.decoder.noise((fills * 6, log.n_users, log.n_items), generator)
        sampled = model.estimator(marginal=False)(z.repeat(fills, 1, 1), activity.repeat(fills, 1, 1), batch, noise)
    sampled = sampled.double().view(fills, 6, log.n_users)
    ratio = torch.exp(sampled - marginal)
    error = ratio.std(0) / math.sqrt(fills)
    assert ((ratio.mean(0) - 1).abs() <= 3 * error + 1e-5).all()
    # Jensen: the log of a mean is above the mean of logs, strictly where anything is unrated.
    gap = marginal - sampled.mean(0)
    assert (gap[:, [0, 1, 3]] > 3 * sampled.std(0)[:, [0, 1, 3]] / math.sqrt(fills)).all()
    torch.testing.assert_close(gap[:, 2], torch.zeros(6).double())  # this user rated everything


def test_bound_rises_with_the_number_of_samples(log: RatingLog) -> None:
    model = tiny_model(log, seed=11, missing="shared", user_activity=True)
    log_w = log_weights(model, log, marginal=True, samples=50 * 400)
    bounds = {S: importance_bound(log_w.view(-1, S, 400, log.n_users).transpose(0, 1)).mean(0) for S in (1, 5, 50)}
    for fewer, more in ((1, 5), (5, 50)):
        rise = bounds[more] - bounds[fewer]  # (400, B), the same draws cut into smaller sets
        assert (rise.mean(0) > 3 * rise.std(0) / math.sqrt(400)).all()


def test_sampled_bound_is_below_the_marginal_one(log: RatingLog) -> None:
    model = tiny_model(log, seed=11, missing="shared", sign="free")
    few = [log_weights(model, log, marginal=flag, samples=5 * 2000).view(5, 2000, -1) for flag in (True, False)]
    gap = importance_bound(few[0]) - importance_bound(few[1])
    is_open = [0, 1, 3]
    assert (gap.mean(0)[is_open] > 3 * gap.std(0)[is_open] / math.sqrt(2000)).all()


def test_ignorable_bound_is_that_of_a_constant_missing_model(log: RatingLog) -> None:
    flat = tiny_model(log, seed=4, missing="shared", sign="free")
    with torch.no_grad():
        flat.missing.slope.raw.zero_()
    miwae = tiny_model(log, seed=4, missing="ignorable")
    miwae.load_state_dict({key: value for key, value in flat.state_dict().items() if key != "missing.slope.raw"})
    torch.testing.assert_close(
        log_weights(flat, log, marginal=True, samples=50),
        log_weights(miwae, log, marginal=True, samples=50),
        rtol=1e-5,
        atol=1e-5,
    )
    # Without the mask it is MIWAE of the ratings alone: what is left is log p(s), constant in z.
    pi = expit(miwae.missing.item_bias.detach().double().numpy())
    rated = ~np.isnan(MATRIX)
    constant = (rated * np.log(pi) + ~rated * np.log(1 - pi)).sum(1)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(5)
        noise = torch.randn(50, 4, 1, generator=generator)
        terms, _ = miwae.log_weights(make_batch(log, np.arange(4)), noise, miwae.estimator(marginal=True))
    np.testing.assert_allclose(terms.log_p_s.numpy(), np.tile(constant, (50, 1)), rtol=1e-5)


def test_effective_sample_size() -> None:
    assert effective_sample_size(torch.zeros(8, 1)).item() == pytest.approx(8)
    assert effective_sample_size(torch.tensor([[0.0], [-200.0]])).item() == pytest.approx(1)
    assert effective_sample_size(torch.log(torch.tensor([[3.0], [1.0]]))).item() == pytest.approx(16 / 10)
