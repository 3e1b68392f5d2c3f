"""How far two models are apart in what a log shows: against enumeration, and where the nearest law is known."""

from itertools import product

import numpy as np
import pytest
import torch
from exact import enumerate_model
from factories import log_of, random_matrix, tiny_model
from scipy.special import expit, logit

from mnar_recsys.config import Settings
from mnar_recsys.data import RatingLog, RatingScale, add_survey
from mnar_recsys.model.batch import make_batch
from mnar_recsys.model.mnar_vae import MnarVae
from mnar_recsys.model_folder import FittedModel
from mnar_recsys.sensitivity.law import law_divergence
from mnar_recsys.sensitivity.starts import fresh, held, nearest_law

LOG = log_of(random_matrix(6, 3, seed=2))
LEVELS = torch.tensor([1.0, 2.0, 3.0])


def pair(decoder: str, missing: str) -> tuple[MnarVae, MnarVae]:
    """A model, and another with its latent and encoder."""
    one, other = (tiny_model(LOG, seed=seed, decoder=decoder, missing=missing) for seed in (3, 5))
    other.encoder.load_state_dict(one.encoder.state_dict())
    return one, other


def laws(model: MnarVae) -> tuple[np.ndarray, np.ndarray]:
    """(G,) weights of z, (G, P, R + 1) what each cell shows: a level, or nothing."""
    world = enumerate_model(model, LOG, model.missing.selection(LEVELS).detach().double().numpy())
    shown = world.p * world.pi
    return world.prior, np.concatenate([shown, 1 - shown.sum(-1, keepdims=True)], axis=-1)


@pytest.mark.parametrize(("decoder", "missing"), [("ordinal", "per-level"), ("categorical", "shared")])
def test_the_divergence_is_that_of_the_enumerated_laws(decoder: str, missing: str) -> None:
    one, other = pair(decoder, missing)
    with torch.no_grad():  # z drawn from the prior
        for parameter in one.encoder.parameters():
            parameter.zero_()
    prior, mine = laws(one)
    _, theirs = laws(other)
    given_z = (mine * np.log(mine / theirs)).sum((1, 2)) @ prior
    batch = make_batch(LOG, np.array([1]))
    noise = torch.randn(1000, 1, 1, generator=torch.Generator().manual_seed(0))
    drawn = torch.cat([law_divergence(one, other, batch, noise[k : k + 1]).detach() for k in range(1000)])
    assert drawn.mean().item() == pytest.approx(given_z, abs=4 * drawn.std().item() / np.sqrt(len(drawn)))
    assert law_divergence(one, one, batch, noise[:5]).abs().max().item() < 1e-5
    # With z summed out, the laws of a whole row are nearer to each other: the promise of the docstring.
    cells = range(mine.shape[1])
    rows = [
        [
            float(prior @ np.prod([law[:, j, state] for j, state in zip(cells, row, strict=True)], axis=0))
            for law in (mine, theirs)
        ]
        for row in product(range(mine.shape[2]), repeat=len(cells))
    ]
    summed_out = sum(p * np.log(p / q) for p, q in rows)
    assert sum(p for p, _ in rows) == pytest.approx(1.0, abs=1e-6)
    assert 0 < summed_out <= given_z


@pytest.mark.parametrize("could_be_rated", [True, False])
def test_a_cell_that_was_asked_about_shows_its_rating_in_any_case(could_be_rated: bool) -> None:
    matrix = random_matrix(6, 3, seed=2)
    unrated = np.argwhere(np.isnan(matrix))
    unrated = unrated[unrated[:, 0] > 0][:1]
    answers = np.full(matrix.shape, np.nan)
    answers[unrated[0, 0], unrated[0, 1]] = 2.0
    log = add_survey(log_of(matrix), log_of(answers))
    one, other = (tiny_model(log, seed=seed, decoder="ordinal", missing="shared") for seed in (3, 5))
    one.survey_could_be_rated = could_be_rated
    z = torch.zeros(1, 1, 1)
    with torch.no_grad():
        for parameter in one.encoder.parameters():
            parameter.zero_()
        one.encoder.log_sd_bias.fill_(-20.0)  # z = 0
        found = law_divergence(one, other, make_batch(log, unrated[:, 0]), z).item()

    def world(model: MnarVae) -> tuple[np.ndarray, np.ndarray]:
        exact = enumerate_model(model, log, model.missing.selection(LEVELS).detach().double().numpy())
        middle = len(exact.prior) // 2
        return exact.p[middle], exact.pi[middle]

    (p, pi), (q, rho) = world(one), world(other)
    expected = 0.0
    for j in range(3):
        if j == unrated[0, 1]:
            expected += (p[j] * np.log(p[j] / q[j])).sum()
            mask = pi[j] * np.log(pi[j] / rho[j]) + (1 - pi[j]) * np.log((1 - pi[j]) / (1 - rho[j]))
            expected += could_be_rated * (p[j] * mask).sum()
        else:
            mine, theirs = ((a * b, 1 - (a * b).sum()) for a, b in ((p[j], pi[j]), (q[j], rho[j])))
            expected += (mine[0] * np.log(mine[0] / theirs[0])).sum() + mine[1] * np.log(mine[1] / theirs[1])
    assert found == pytest.approx(expected, rel=1e-4)


def gaussian_world(slope: float, share: float | None) -> FittedModel:
    """Items of means m_j, ratings N(m_j, 1), log-odds slope * x + b_j; without a ``share`` there is a mirror image."""
    scale = RatingScale(-2.0, 6.0)
    rng = np.random.default_rng(0)
    means = rng.uniform(0.5, 1.5, 8)
    log = RatingLog.from_arrays(
        np.repeat(np.arange(40), 8), np.tile(np.arange(8), 40), rng.uniform(0, 3, 320), scale=scale
    )
    model = tiny_model(log, decoder="gaussian", missing="shared", quadrature_nodes=8)
    low, high = model.decoder.mean_range
    with torch.no_grad():
        model.decoder.weight.zero_()
        model.decoder.bias.copy_(torch.from_numpy(logit((means - low) / (high - low)))[None])
        model.decoder.log_sd.zero_()
        # Units of rating are a quarter of the scale, two points, from the mean rating.
        model.missing.slope.raw.fill_(float(np.log(np.expm1(2 * slope))))
        bias = -slope * (means + slope / 2) if share is None else logit(share) - slope * (means + slope / 2)
        model.missing.item_bias.copy_(torch.from_numpy(bias + slope * model.missing.centre))
    settings = Settings().replace({"decoder": "gaussian", "missing": "shared"})
    return FittedModel(settings, 0, log, model, (), finished=True)


def item_means(model: MnarVae) -> np.ndarray:
    low, high = model.decoder.mean_range
    return low + (high - low) * expit(model.decoder.bias.detach().double().numpy()[0])


def test_the_nearest_law_of_the_opposite_slope_is_the_mirror_image() -> None:
    """Zhang et al. (ICDE 2024): N(m, 1) with slope w and N(m + w, 1) with slope -w, half of the cells rated."""
    world = gaussian_world(2.0, None)
    near, gap = nearest_law(world, -16.0, np.arange(40), seed=0)  # -2 a point, 8 points from end to end
    assert gap < 0.1
    np.testing.assert_allclose(item_means(near), item_means(world.model) + 2.0, atol=0.05)
    assert near.missing.slope().item() == pytest.approx(-4.0)
    # The fitted weights with the slope turned round are far away, and so is no selection at all.
    batch = make_batch(world.log, np.arange(40))
    turned = law_divergence(world.model, held(world.model, -16.0), batch, torch.zeros(1, 40, 1)).sum().item()
    assert turned > 100
    # No selection gives a Gaussian; this one has shorter tails, by .0011 nats a rating, of which there are 72.
    assert nearest_law(world, 0.0, np.arange(40), seed=0)[1] == pytest.approx(0.078, abs=0.01)


def test_where_few_cells_are_rated_every_slope_has_nearly_the_same_law() -> None:
    """A rating N(m, 1) chosen with odds e^(w x) is N(m + w, 1): the slope only moves the mean."""
    world = gaussian_world(0.5, 0.01)
    for held_at, mean in ((-4.0, 1.0), (0.0, 0.5)):
        near, gap = nearest_law(world, held_at, np.arange(40), seed=0)
        assert gap < 0.05
        np.testing.assert_allclose(item_means(near), item_means(world.model) + mean, atol=0.05)


@pytest.mark.parametrize("weights", ["point", "variational"])
def test_a_model_of_its_own_selection_is_nearest_to_itself(weights: str) -> None:
    log = log_of(random_matrix(30, 5, seed=2))
    chosen = {"decoder": "ordinal", "missing": "per-level", "exposure_sees_taste": True, "item_weights": weights}
    model = tiny_model(log, seed=3, **chosen)
    settings = Settings().replace(chosen)
    fitted = FittedModel(settings, 0, log, model, (), finished=True)
    now = torch.diff(model.missing.selection(torch.tensor([1.0, 3.0]))).item()
    near, gap = nearest_law(fitted, now, np.arange(1, 30), seed=0)
    assert gap < 0.05
    torch.testing.assert_close(near.decoder.bias, model.decoder.bias, atol=0.05, rtol=0.0)


def test_fresh_weights_are_new_and_hold_the_selection() -> None:
    log = log_of(random_matrix(30, 5, seed=2))
    chosen = {"decoder": "ordinal", "missing": "per-level", "exposure_sees_taste": True, "latent_size": 1}
    model = tiny_model(log, seed=3, **chosen)
    fitted = FittedModel(Settings().replace(chosen), 0, log, model, (), finished=True)
    started = fresh(fitted, -1.5, seed=0)
    ends = started.missing.selection(torch.tensor([1.0, 3.0])).tolist()
    assert ends[1] - ends[0] == pytest.approx(-1.5, abs=1e-5)
    steps = torch.diff(model.missing.weights()), torch.diff(started.missing.weights())
    torch.testing.assert_close(steps[1], steps[0] * (steps[1].sum() / steps[0].sum()))
    assert not torch.equal(started.encoder.item_embedding, model.encoder.item_embedding)
