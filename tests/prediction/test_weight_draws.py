"""Predictions of a model whose item weights have a posterior: an equal mixture over draws of them."""

import numpy as np
import pytest
import torch
from factories import log_of, random_matrix, tiny_model

from mnar_recsys.data import RatingLog
from mnar_recsys.model.mnar_vae import MnarVae
from mnar_recsys.prediction import Predictor
from mnar_recsys.prediction.cells import Moments
from mnar_recsys.prediction.weight_draws import WEIGHT_DRAWS, WeightDraws

USERS, ITEMS = (indices.ravel() for indices in np.indices((7, 5)))


@pytest.fixture(scope="module")
def log() -> RatingLog:
    return log_of(random_matrix(7, 5, seed=2))


@pytest.fixture(scope="module")
def model(log: RatingLog) -> MnarVae:
    settings = {"exposure_size": 1, "exposure_sees_taste": True, "missing": "shared", "user_activity": True}
    found = tiny_model(log, seed=3, item_weights="variational", **settings)
    with torch.no_grad():
        found.decoder.weight_posterior.log_sd.fill_(-0.5)
        found.decoder.bias_posterior.log_sd.fill_(-0.7)
    return found


def test_a_mixture_has_the_moments_of_its_draws_taken_together() -> None:
    rng = np.random.default_rng(0)
    means, spreads = rng.normal(size=(4, 3)), rng.uniform(0.1, 2, size=(4, 3))
    draws = means[:, None] + spreads[:, None] * rng.standard_normal((4, 400_000, 3))
    parts = [
        Moments(*(torch.from_numpy(values) for values in (mean, spread, spread / 2, mean**2)))
        for mean, spread in zip(means, spreads, strict=True)
    ]
    mixed = Moments.mixed(parts)
    together = draws.reshape(-1, 3)
    np.testing.assert_allclose(mixed.mean, together.mean(0), atol=0.01)
    np.testing.assert_allclose(mixed.sd, together.std(0), rtol=0.01)
    np.testing.assert_allclose(mixed.mean_se, np.sqrt(means.var(0) + (spreads**2 / 4).mean(0)))
    np.testing.assert_allclose(mixed.propensity, (means**2).mean(0))
    assert Moments.mixed(parts[:1]) is parts[0]


def test_predictions_average_over_draws_of_the_weights(log: RatingLog, model: MnarVae) -> None:
    predictor = Predictor(model, log, seed=4, draws=512)
    found = predictor.predict(USERS, ITEMS, levels=True)
    draws = WeightDraws(model, 4)
    assert len(draws) == len(predictor.weights) == WEIGHT_DRAWS
    shares, ess = [], []
    for number in range(len(draws)):
        # Frozen to a draw, the model is one without a posterior.
        frozen = tiny_model(
            log, seed=3, exposure_size=1, exposure_sees_taste=True, missing="shared", user_activity=True
        )
        with draws.at(number):
            weight, bias = model.decoder.current()
            frozen.decoder.weight.data.copy_(weight)
            frozen.decoder.bias.data.copy_(bias)
            frozen.exposure.weight.data.copy_(model.exposure.current())
            frozen.missing.item_bias.data.copy_(model.missing.bias())
        one = Predictor(frozen, log, seed=4, draws=512).predict(USERS, ITEMS, levels=True)
        shares.append(one.levels)
        ess.append(one.ess)
    np.testing.assert_allclose(found.levels, np.mean(shares, axis=0), atol=5e-3)  # other noise, another start
    np.testing.assert_allclose(found.mean, found.levels @ [1, 2, 3], atol=1e-4)
    np.testing.assert_allclose(found.ess, np.sum(ess, axis=0), rtol=0.1)
    assert np.ptp(shares, axis=0).max() > 0.1  # the draws differ
    again = predictor.predict(USERS[::-1], ITEMS[::-1], levels=True)
    np.testing.assert_allclose(again.levels[::-1], found.levels, atol=1e-6)


def test_draws_come_in_mirrored_pairs_and_leave_no_trace(model: MnarVae) -> None:
    draws = WeightDraws(model, 0)
    before, _ = model.decoder.current()
    seen = []
    for number in (0, 1, 2, 0):
        with draws.at(number):
            seen.append(model.decoder.current()[0].detach() - before)
    torch.testing.assert_close(seen[0], -seen[1])
    assert torch.equal(seen[0], seen[3])
    assert not torch.allclose(seen[0].abs(), seen[2].abs())
    assert torch.equal(model.decoder.current()[0], before)
    assert model.missing.bias_shift is None


def test_imputations_are_draws_from_the_mixture(log: RatingLog, model: MnarVae) -> None:
    predictor = Predictor(model, log, seed=4, draws=512)
    shares = predictor.predict(USERS, ITEMS, levels=True).levels
    count = 4000
    drawn = predictor.draw(USERS, ITEMS, count, np.random.default_rng(0))
    for place, level in enumerate((1, 2, 3)):
        error = np.sqrt(shares[:, place] * (1 - shares[:, place]) / count)
        assert (np.abs((drawn == level).mean(0) - shares[:, place]) < 4 * error + 2e-3).all()


def test_weights_that_are_known_well_enough_are_not_drawn(log: RatingLog) -> None:
    found = tiny_model(log, seed=3, item_weights="variational")
    mean_square = found.decoder.weight.square().mean().item()
    for share, drawn in ((0.12, WEIGHT_DRAWS), (0.08, 1)):
        with torch.no_grad():
            found.decoder.weight_posterior.log_sd.fill_(0.5 * np.log(share * mean_square))
        assert len(WeightDraws(found, 0)) == drawn


def test_a_model_with_point_weights_has_one_draw_its_values(log: RatingLog) -> None:
    predictor = Predictor(tiny_model(log, seed=3), log)
    assert len(predictor.weights) == 1
    assert not predictor.weights.are_drawn
    assert predictor.n_draws == 128
