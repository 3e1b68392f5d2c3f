"""not-MIWAE finds the selection of a simulated log, and predicts what was never rated better than its MIWAE twin."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest

from mnar_recsys import MNARRecommender, simulate_ratings
from mnar_recsys.data.simulate import Simulation
from mnar_recsys.model_card import selection_by_level

pytestmark = pytest.mark.slow

SETTINGS: dict[str, Any] = {
    "decoder": "ordinal",
    "estimator": "marginal",
    "user_activity": True,
    "exposure_size": 0,
    "exposure_sees_taste": False,
    "item_weights": "point",
    "weight_prior_sd": None,
    "bias_prior_sd": None,
    "latent_size": 4,
    "samples": 8,
    "batch_size": 100,
    "learning_rate": 1e-2,
    "max_steps": 500,
    "evaluate_every": 50,
    "device": "cpu",
}

Fit = Callable[[str, str, str], tuple[MNARRecommender, float, float]]


@cache
def simulation(preset: str) -> Simulation:
    return simulate_ratings(preset, n_users=1500, n_items=200, seed=1, ratings_per_user=20)


@pytest.fixture(scope="module")
def fit() -> Fit:
    @cache
    def run(preset: str, missing: str, sign: str) -> tuple[MNARRecommender, float, float]:
        """Return the fitted model with its squared error and bias on all true unrated cells of 400 users."""
        data = simulation(preset)
        model = MNARRecommender(missing=missing, sign=sign, **SETTINGS).fit(data.train, seed=0)
        complete = data.truth.block(0, 400)[0]
        unrated = np.ones(complete.shape, dtype=bool)
        inside = data.train.rows < 400
        unrated[data.train.rows[inside], data.train.items[inside]] = False
        users, items = np.nonzero(unrated)
        error = model.predictor.predict(users, items).mean - complete[users, items]
        return model, float(np.square(error).mean()), float(error.mean())

    return run


@pytest.mark.parametrize("sign", ["positive", "free"])
def test_a_rising_selection_is_found_and_its_bias_removed(fit: Fit, sign: str) -> None:
    model, error, bias = fit("monotone", "shared", sign)
    _, ignorant_error, ignorant_bias = fit("monotone", "ignorable", "positive")
    assert error < 0.85 * ignorant_error
    assert abs(bias) < 0.6 * ignorant_bias
    slope = np.polyfit(*zip(*selection_by_level(model.fitted).items(), strict=True), 1)[0]
    assert 0.2 < slope < 0.8  # truth: .6 a star


def test_selection_by_level_is_found_without_being_told_its_sign(fit: Fit) -> None:
    model, error, bias = fit("r3-like", "per-level", "free")
    _, ignorant_error, ignorant_bias = fit("r3-like", "ignorable", "positive")
    assert error < 0.6 * ignorant_error
    assert abs(bias) < 0.6 * ignorant_bias
    found = list(selection_by_level(model.fitted).values())
    truth = simulation("r3-like").truth.selection
    assert np.corrcoef(found, truth)[0, 1] > 0.9
    assert np.argmax(found) == np.argmax(truth) == 4
    assert np.argmin(found) == np.argmin(truth) == 1  # not monotone: two stars are given least
