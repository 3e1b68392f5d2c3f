"""Conformal intervals: exact by the ranks of tiny cases, covering on many draws, mending what is overconfident."""

import math

import numpy as np
import pytest
import torch
from factories import THREE_LEVELS, log_of, random_matrix, tiny_model
from numpy.typing import NDArray

from mnar_recsys.data import RatingLog, RatingScale, add_survey
from mnar_recsys.errors import ConfigError, DataError
from mnar_recsys.prediction import Predictor
from mnar_recsys.prediction.conformal import ConformalIntervals, conformal_quantile

N_USERS, N_ITEMS = 30, 12
REAL = RatingScale(0.0, 10.0)


def predictor_of(scale: RatingScale, *, boldness: float = 1.0) -> Predictor:
    """A model that knows nothing of the truth; the bolder, the surer of it."""
    matrix = random_matrix(N_USERS, N_ITEMS, seed=4, density=0.3)
    log = log_of(matrix if scale.levels is not None else 10 * (matrix - 1) / 2, scale)
    kind = {"decoder": "categorical"} if scale.levels is not None else {"decoder": "gaussian", "quadrature_nodes": 8}
    model = tiny_model(log, seed=1, missing="shared", **kind)
    with torch.no_grad():
        if scale.levels is not None:
            model.decoder.bias.mul_(boldness)
        else:
            model.decoder.log_sd.fill_(math.log(2.0 / boldness))
    return Predictor(model, log, draws=32)


def truth_of(scale: RatingScale) -> NDArray[np.float64]:
    """Every rating, (N, P): alike inside a user and inside an item, and not as the model has it."""
    rng = np.random.default_rng(7)
    place = rng.normal(size=(N_USERS, 1)) + rng.normal(size=N_ITEMS) + 0.7 * rng.normal(size=(N_USERS, N_ITEMS))
    if scale.levels is None:
        return np.clip(5 + 1.5 * place, 0, 10)
    return scale.nearest_level(2 + 0.6 * place)


def labels_of(predictor: Predictor, truth: NDArray[np.float64], cells: NDArray[np.int64]) -> RatingLog:
    """The labels of some cells, without those that nobody was asked about."""
    log = predictor.log
    rows, items = np.divmod(np.sort(cells), N_ITEMS)
    return RatingLog.from_arrays(
        log.users.take(rows),
        log.catalogue.take(items),
        truth[rows, items],
        scale=log.scale,
        user_ids=log.users,
        catalogue=log.catalogue,
    )


def unrated(predictor: Predictor) -> NDArray[np.int64]:
    return np.setdiff1d(np.arange(N_USERS * N_ITEMS), predictor.log.cells)


def holds(intervals: ConformalIntervals, truth: NDArray[np.float64], cells: NDArray[np.int64]) -> NDArray[np.bool_]:
    log = intervals.predictor.log
    rows, items = np.divmod(cells, N_ITEMS)
    lower, upper = intervals.predict(log.users.take(rows), log.catalogue.take(items))
    assert ((lower >= log.scale.low) & (lower <= upper) & (upper <= log.scale.high)).all()
    actual = truth[rows, items].astype(np.float32)
    return np.asarray((lower <= actual) & (actual <= upper))


@pytest.mark.parametrize("coverage", [0.5, 0.75, 0.8])
@pytest.mark.parametrize("scale", [THREE_LEVELS, REAL], ids=["levels", "real"])
def test_each_rank_in_turn_is_covered_as_often_as_the_ranks_say(scale: RatingScale, coverage: float) -> None:
    """Each of n + 1 exchangeable pairs is left out once: exactly ceil((n + 1) coverage) of them are covered."""
    predictor, truth = predictor_of(scale), truth_of(scale)
    cells = np.random.default_rng(0).choice(unrated(predictor), 10, replace=False)
    covered = [
        holds(
            ConformalIntervals.calibrate(predictor, labels_of(predictor, truth, np.delete(cells, out)), coverage),
            truth,
            cells[[out]],
        )[0]
        for out in range(len(cells))
    ]
    assert sum(covered) == math.ceil(len(cells) * coverage - 1e-9)


@pytest.mark.parametrize("coverage", [0.5, 0.7])
def test_each_person_in_turn_is_covered_by_what_the_others_answered(coverage: float) -> None:
    predictor, truth = predictor_of(THREE_LEVELS), truth_of(THREE_LEVELS)
    rng, cells = np.random.default_rng(1), unrated(predictor)
    people = [rng.permutation(cells[cells // N_ITEMS == user])[: 1 + user % 4] for user in range(8)]
    shares = []
    for out in range(len(people)):
        others = labels_of(predictor, truth, np.concatenate(people[:out] + people[out + 1 :]))
        shares.append(
            holds(ConformalIntervals.calibrate(predictor, others, coverage, by_user=True), truth, people[out]).mean()
        )
    assert np.mean(shares) >= coverage


@pytest.mark.parametrize("n", [4, 9, 10, 37])
def test_the_quantile_is_an_order_statistic_and_infinity_counts(n: int) -> None:
    scores = np.random.default_rng(n).permutation(np.arange(1.0, n + 1))
    for coverage in (0.1, 0.5, 0.75, 0.8):
        assert conformal_quantile(scores, np.arange(n), coverage) == math.ceil((n + 1) * coverage - 1e-9)
    # Three people of one, two and three scores: 1/4 each, shared among their own; the last 1/4 is at infinity.
    units = np.array([0, 1, 1, 2, 2, 2])
    reached = {0.25: 1.0, 0.3: 2.0, 0.375: 2.0, 0.5: 3.0, 0.58: 4.0, 0.75: 6.0}
    for coverage, score in reached.items():
        assert conformal_quantile(np.arange(1.0, 7.0), units, coverage) == score


@pytest.mark.parametrize("boldness", [0.3, 6.0])
@pytest.mark.parametrize("scale", [THREE_LEVELS, REAL], ids=["levels", "real"])
def test_coverage_over_many_draws_of_labels(scale: RatingScale, boldness: float) -> None:
    """Labels and pairs are drawn at random; the model is too sure of itself, or not sure enough."""
    predictor, truth = predictor_of(scale, boldness=boldness), truth_of(scale)
    rng, cells, n, coverage = np.random.default_rng(3), unrated(predictor), 39, 0.8
    shares = []
    for _ in range(60):
        drawn = rng.permutation(cells)
        intervals = ConformalIntervals.calibrate(predictor, labels_of(predictor, truth, drawn[:n]), coverage)
        shares.append(holds(intervals, truth, drawn[n:]).mean())
    error = np.std(shares, ddof=1) / math.sqrt(len(shares))
    assert np.mean(shares) > coverage - 3 * error
    if boldness > 1:  # (a timid model on three levels holds its median in any case)
        # Scores differ from pair to pair, so hardly any coverage is given away.
        assert np.mean(shares) < coverage + 1 / (n + 1) + 0.02 + 3 * error


@pytest.mark.parametrize("scale", [THREE_LEVELS, REAL], ids=["levels", "real"])
def test_an_overconfident_model_is_repaired(scale: RatingScale) -> None:
    predictor, truth = predictor_of(scale, boldness=6.0), truth_of(scale)
    cells = np.random.default_rng(5).permutation(unrated(predictor))
    rows, items = np.divmod(cells, N_ITEMS)
    low, high = predictor.predict(rows, items, probabilities=(0.05, 0.95)).quantiles
    actual = truth[rows, items].astype(np.float32)
    assert ((low <= actual) & (actual <= high)).mean() < 0.75
    intervals = ConformalIntervals.calibrate(predictor, labels_of(predictor, truth, cells[:120]), 0.9)
    error = math.sqrt(0.9 * 0.1 * (1 / 120 + 1 / len(cells[120:])))  # of 120 labels, and of the rest
    assert holds(intervals, truth, cells[120:]).mean() > 0.9 - 3 * error
    assert (intervals.n_labels, intervals.n_left_out) == (120, 0)


def test_an_interval_on_levels_is_the_levels_whose_smaller_tail_is_large_enough() -> None:
    predictor = predictor_of(THREE_LEVELS)
    cells = unrated(predictor)
    rows, items = np.divmod(cells, N_ITEMS)
    shares = predictor.predict(rows, items, levels=True)
    for threshold in (-0.9, -0.4, -0.2, -0.01):
        lower, upper = ConformalIntervals(predictor, 0.9, threshold, 9, 0).bounds(shares)
        for p, low, high in zip(shares.levels, lower, upper, strict=True):
            kept = [r for r in (1, 2, 3) if min(p[:r].sum(), p[r - 1 :].sum()) >= -threshold - 1e-6]
            median = 1 + int(np.argmax(np.cumsum(p) >= 0.5))
            assert (low, high) == (min([*kept, median]), max([*kept, median]))


def test_labels_of_rated_cells_are_left_out() -> None:
    """No pair to predict is like them: the model has seen this very rating."""
    predictor, truth = predictor_of(THREE_LEVELS), truth_of(THREE_LEVELS)
    cells, rated = unrated(predictor)[:20], predictor.log.cells[:5]
    with_rated = ConformalIntervals.calibrate(predictor, labels_of(predictor, truth, np.append(cells, rated)), 0.8)
    without = ConformalIntervals.calibrate(predictor, labels_of(predictor, truth, cells), 0.8)
    assert (with_rated.n_labels, with_rated.n_left_out) == (20, 5)
    assert with_rated.threshold == without.threshold


def test_refusals() -> None:
    predictor, truth = predictor_of(THREE_LEVELS), truth_of(THREE_LEVELS)
    cells = unrated(predictor)
    labels = labels_of(predictor, truth, cells[:9])
    assert ConformalIntervals.calibrate(predictor, labels, 0.9).n_labels == 9
    for coverage, needed in ((0.91, 11), (0.95, 19), (0.99, 99)):
        with pytest.raises(DataError, match=f"at least {needed} labels .* found 9"):
            ConformalIntervals.calibrate(predictor, labels, coverage)
    with pytest.raises(DataError, match="at least 9 people with labels"):
        ConformalIntervals.calibrate(predictor, labels, 0.9, by_user=True)
    for coverage in (0.0, 1.0, 90.0):
        with pytest.raises(ConfigError, match="between 0 and 1"):
            ConformalIntervals.calibrate(predictor, labels, coverage)
    other = RatingLog.from_arrays([1, 2], [1, 2], [1, 5], scale="1,5,1")
    with pytest.raises(DataError, match="scale must be the model's"):
        ConformalIntervals.calibrate(predictor, other)
    surveyed = add_survey(predictor.log, labels_of(predictor, truth, cells[:4]))
    model = tiny_model(surveyed, seed=1, missing="shared")
    with pytest.raises(DataError, match="trained on; found 4"):
        ConformalIntervals.calibrate(Predictor(model, surveyed, draws=8), labels)
