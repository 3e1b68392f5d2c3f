"""The mixture's E- and M-step against enumeration of every cluster and every complete rating, and EM's path."""

from itertools import product

import numpy as np
import pytest
from factories import THREE_LEVELS, log_of
from numpy.typing import NDArray
from scipy.special import logsumexp

from baselines.cptv import CptV, LevelSelection
from baselines.logit_vd import LogisticSelection
from baselines.multinomial_mixture import LevelCells, Mixture, Selection, e_step, em_path, random_start
from mnar_recsys.data import RatingLog, RatingScale, Split
from mnar_recsys.errors import ConfigError

TWO_LEVELS = RatingScale(1, 2, 1)
NO = np.nan
ROWS = np.array([[1, NO, 2], [NO, 2, NO], [NO, NO, NO]])  # 3 users x 3 items x 2 levels
P, R, K = 3, 2, 2


def selections() -> dict[str, Selection]:
    return {
        "level": LevelSelection(np.array([0.3, 0.7]), P, smoothing=1.0),
        "logistic": LogisticSelection(np.array([-0.8, 0.5]), np.array([0.3, -0.4, 1.1]), variance=4.0),
    }


def tiny(name: str) -> tuple[LevelCells, Mixture]:
    rng = np.random.default_rng(0)
    theta = rng.dirichlet(np.ones(R), size=(P, K)).transpose(0, 2, 1)
    mixture = Mixture(np.array([0.35, 0.65]), theta, selections()[name])
    return LevelCells.of_log(log_of(ROWS, TWO_LEVELS), "the test"), mixture


def enumerated(mixture: Mixture, row: NDArray[np.float64]) -> dict[tuple[int, tuple[int, ...]], float]:
    """p(k, complete ratings, s) of every cluster and every completion of a row (nan: unrated)."""
    rated = mixture.selection.probabilities()
    table = {}
    for k, complete in product(range(K), product(range(R), repeat=P)):
        probability = mixture.weight[k]
        for j, level in enumerate(complete):
            if np.isnan(row[j]):
                probability *= mixture.theta[j, level, k] * (1.0 - rated[j, level])
            else:
                probability *= mixture.theta[j, level, k] * rated[j, level] * (level == row[j] - 1)
        table[k, complete] = float(probability)
    return table


@pytest.mark.parametrize("name", ["level", "logistic"])
def test_likelihood_and_clusters_agree_with_enumeration(name: str) -> None:
    cells, mixture = tiny(name)
    found = mixture.log_joint(cells)
    for user, row in enumerate(ROWS):
        table = enumerated(mixture, row)
        for k in range(K):
            expected = sum(value for (cluster, _), value in table.items() if cluster == k)
            np.testing.assert_allclose(np.exp(found[user, k]), expected, rtol=1e-12)
    fit = e_step(cells, mixture, smoothing=0.5)
    log_prior = 0.5 * (np.log(mixture.theta).sum() + np.log(mixture.weight).sum()) + mixture.selection.log_prior()
    evidence = sum(np.log(sum(enumerated(mixture, row).values())) for row in ROWS)
    np.testing.assert_allclose(fit.objective, evidence + log_prior, rtol=1e-12)


@pytest.mark.parametrize("name", ["level", "logistic"])
def test_m_step_is_that_of_the_enumerated_expected_counts(name: str) -> None:
    cells, mixture = tiny(name)
    counts, size = np.zeros((P, R, K)), np.zeros(K)
    rated, unrated = np.zeros((P, R)), np.zeros((P, R))
    for row in ROWS:
        table = enumerated(mixture, row)
        total = sum(table.values())
        for (k, complete), value in table.items():
            size[k] += value / total
            for j, level in enumerate(complete):
                counts[j, level, k] += value / total
                (unrated if np.isnan(row[j]) else rated)[j, level] += value / total
    smoothing = 0.5
    found = mixture.step(cells, e_step(cells, mixture, smoothing).responsibilities, smoothing)
    np.testing.assert_allclose(found.weight, (size + smoothing) / (len(ROWS) + K * smoothing))
    smoothed = counts + smoothing
    np.testing.assert_allclose(found.theta, smoothed / smoothed.sum(axis=1, keepdims=True))
    updated = mixture.selection.update(rated, unrated)
    np.testing.assert_allclose(found.selection.probabilities(), updated.probabilities())


def planted(seed: int = 0) -> RatingLog:
    """Ratings of 200 users of 2 clusters, high levels rated more often."""
    rng = np.random.default_rng(seed)
    theta = rng.dirichlet(np.ones(3), size=(20, 2))
    clusters = rng.integers(2, size=200)
    levels = (rng.random((200, 20, 1)) > np.cumsum(theta[:, clusters].transpose(1, 0, 2), axis=2)).sum(axis=2)
    rated = rng.random((200, 20)) < np.array([0.1, 0.2, 0.4])[levels]
    return log_of(np.where(rated, levels + 1.0, np.nan), THREE_LEVELS)


def starts(name: str) -> tuple[LevelCells, Mixture]:
    cells = LevelCells.of_log(planted(), "the test")
    selection: Selection = LevelSelection(np.full(3, 0.2), 20, smoothing=1.0)
    if name == "logistic":
        selection = LogisticSelection(np.zeros(3), np.full(20, -1.4), variance=10.0)
    return cells, random_start(cells, selection, 3, np.random.default_rng(1))


@pytest.mark.parametrize("name", ["level", "logistic"])
def test_the_objective_never_falls(name: str) -> None:
    cells, start = starts(name)
    plain = [e_step(cells, start, 1.0)]
    for _ in range(300):
        plain.append(e_step(cells, plain[-1].mixture.step(cells, plain[-1].responsibilities, 1.0), 1.0))
    assert np.diff([fit.objective for fit in plain]).min() > -1e-9
    path = list(em_path(cells, start, 1.0))
    assert np.diff([fit.objective for fit in path]).min() > -1e-9
    assert path[-1].objective > path[0].objective + 10.0


@pytest.mark.parametrize("name", ["level", "logistic"])
def test_em_ends_where_a_further_step_changes_nothing(name: str) -> None:
    cells, start = starts(name)
    *_, last = em_path(cells, start, 1.0)
    further = last
    for _ in range(200):
        further = e_step(cells, further.mixture.step(cells, further.responsibilities, 1.0), 1.0)
    assert further.objective - last.objective < 1e-4 * cells.given.nnz
    np.testing.assert_allclose(
        further.mixture.selection.probabilities(), last.mixture.selection.probabilities(), rtol=0.05
    )


def test_coordinates_give_the_mixture_back() -> None:
    for name in ("level", "logistic"):
        _, mixture = tiny(name)
        again = mixture.at(mixture.coordinates())
        np.testing.assert_allclose(again.theta, mixture.theta)
        np.testing.assert_allclose(again.weight, mixture.weight)
        np.testing.assert_allclose(again.selection.probabilities(), mixture.selection.probabilities())


def test_prediction_is_the_clusters_mean_and_knows_strangers() -> None:
    log = planted()
    model = CptV(n_clusters=2).fit(Split(mnar_train=log), seed=0)
    mixture, levels = model.fitted.mixture, np.array([1.0, 2.0, 3.0])
    joint = mixture.log_joint(LevelCells.of_log(log, "the test"))
    posterior = np.exp(joint[7] - logsumexp(joint[7]))
    users, items = np.array(["u0007", "u0007", "new", "new"], dtype=object), np.array([4, 99, 4, 99])
    everything = mixture.theta.mean(axis=0)
    expected = np.stack(
        [
            mixture.theta[4] @ posterior,
            everything @ posterior,
            mixture.theta[4] @ mixture.weight,
            everything @ mixture.weight,
        ]
    )
    np.testing.assert_allclose(model.level_probabilities(users, items), expected)
    np.testing.assert_allclose(model.predict(users, items), expected @ levels)


def test_validation_scores_what_is_expected_of_a_rated_cell() -> None:
    split = Split(mnar_train=planted()).hold_out(0.2, seed=0)
    model = CptV(n_clusters=2).fit(split, seed=0)
    valid = split.mnar_valid
    assert valid is not None
    users, items = valid.users.take(valid.rows), valid.catalogue.take(valid.items)
    selection = model.fitted.mixture.selection
    assert isinstance(selection, LevelSelection)
    joint = model.level_probabilities(users, items) * selection.mu
    expected = joint @ np.array([1.0, 2.0, 3.0]) / joint.sum(axis=1)
    np.testing.assert_allclose(model.validation_loss(split), np.square(expected - valid.ratings).mean())


def test_settings_and_scale_are_checked() -> None:
    with pytest.raises(ConfigError, match="n_clusters must be a number above 0; found 0"):
        CptV(n_clusters=0)
    with pytest.raises(ConfigError, match="smoothing must be a number above 0; found 0"):
        CptV(smoothing=0.0)
    real = RatingLog.from_arrays([1, 1, 2], [1, 2, 1], [1.5, 2.25, 4.0], scale=RatingScale(1, 5))
    with pytest.raises(ConfigError, match="scale for CptV must have rating levels"):
        CptV().fit(Split(mnar_train=real), seed=0)
