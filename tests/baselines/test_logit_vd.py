"""Logit-vd: its M-step against finite differences, and recovery of planted effects of level and item."""

import numpy as np
import pytest
from factories import log_of
from scipy.special import expit

from baselines.cptv import CptV
from baselines.logit_vd import LogisticSelection, LogitVd
from mnar_recsys.data import RatingScale, Split
from mnar_recsys.errors import ConfigError

RATED = np.random.default_rng(0).gamma(2.0, 5.0, size=(6, 4))
UNRATED = np.random.default_rng(1).gamma(2.0, 20.0, size=(6, 4))
HERE = LogisticSelection(np.array([-1.0, 0.2, -0.4, 0.9]), np.linspace(-2.0, 0.5, 6), variance=3.0)


def moved(place: int, by: float) -> LogisticSelection:
    coordinates = HERE.coordinates()
    coordinates[place] += by
    return HERE.at(coordinates)


def test_gradient_agrees_with_finite_differences() -> None:
    h = 1e-5
    expected = [
        (moved(place, h).value(RATED, UNRATED) - moved(place, -h).value(RATED, UNRATED)) / (2 * h)
        for place in range(10)
    ]
    np.testing.assert_allclose(HERE.gradient(RATED, UNRATED), expected, rtol=1e-6)


def test_newton_step_solves_the_full_system() -> None:
    h = 1e-5
    hessian = np.stack(
        [
            (moved(place, h).gradient(RATED, UNRATED) - moved(place, -h).gradient(RATED, UNRATED)) / (2 * h)
            for place in range(10)
        ]
    )
    expected = -np.linalg.solve(hessian, HERE.gradient(RATED, UNRATED))
    np.testing.assert_allclose(HERE.newton_step(RATED, UNRATED), expected, rtol=1e-6)


def test_updates_climb_to_the_maximum() -> None:
    # From far out a full Newton step overshoots, so this needs the halving.
    selection = HERE.at(np.where(np.arange(10) % 2, 9.0, -9.0))
    for _ in range(60):
        further = selection.update(RATED, UNRATED)
        assert further.value(RATED, UNRATED) >= selection.value(RATED, UNRATED)
        selection = further
    np.testing.assert_allclose(selection.gradient(RATED, UNRATED), 0.0, atol=1e-6)


def test_planted_effects_are_recovered_and_beat_cptv() -> None:
    rng = np.random.default_rng(0)
    sigma, omega = np.array([-0.5, -1.0, 0.5]), rng.normal(-1.0, 1.2, size=40)
    theta = rng.dirichlet(np.full(3, 0.5), size=(40, 3))  # (P, K, R)
    clusters = rng.integers(3, size=800)
    cumulative = np.cumsum(theta[:, clusters], axis=2).transpose(1, 0, 2)
    levels = 1.0 + (rng.random((800, 40, 1)) > cumulative).sum(axis=2)
    rated = rng.random(levels.shape) < expit(omega[:, None] + sigma)[np.arange(40), levels.astype(int) - 1]
    log = log_of(np.where(rated, levels, np.nan), RatingScale(1, 3, 1))
    model = LogitVd(n_clusters=3, smoothing=0.1).fit(Split(mnar_train=log), seed=0)
    selection = model.fitted.mixture.selection
    assert isinstance(selection, LogisticSelection)
    np.testing.assert_allclose(selection.sigma - selection.sigma.mean(), sigma - sigma.mean(), atol=0.35)
    assert np.corrcoef(selection.omega, omega)[0, 1] > 0.9
    rows, columns = (index.ravel() for index in np.indices(levels.shape))
    users, items = log.users.take(rows), log.catalogue.take(columns)
    truth = np.bincount(levels.ravel().astype(int), minlength=4)[1:] / levels.size
    distance = [
        np.abs(fitted.level_probabilities(users, items).mean(axis=0) - truth).sum()
        for fitted in (model, CptV(n_clusters=3, smoothing=0.1).fit(Split(mnar_train=log), seed=0))
    ]
    # CPT-v must explain popular items by their levels.
    assert distance[0] < 0.05
    assert distance[1] > 0.2


def test_logit_variance_must_be_above_zero() -> None:
    with pytest.raises(ConfigError, match="logit_variance must be a number above 0; found 0"):
        LogitVd(logit_variance=0.0)
