"""Errors over all cells from held-out self-selected ratings: by hand, unbiased by enumeration, and covering."""

from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from baselines.bias import BiasBaseline
from evaluation import contributions, off_policy
from evaluation.off_policy import Estimate, HeldOut, doubly_robust, ips, sample_cells, snips, weigh
from mnar_recsys.data import RatingLog, Split
from mnar_recsys.data.simulate import simulate_ratings
from mnar_recsys.errors import ConfigError, DataError


def log_of(users: list[int], items: list[int], ratings: list[float]) -> RatingLog:
    """Return held-out ratings among 3 users and 4 items: 12 cells."""
    return RatingLog.from_arrays(users, items, ratings, scale="1,5", user_ids=[1, 2, 3], catalogue=[1, 2, 3, 4])


@pytest.fixture
def held_out() -> HeldOut:
    # Of half the log: the ratings stand for 4, 20 and 4 of the 12 cells.
    return weigh(log_of([1, 1, 2], [1, 3, 2], [5, 1, 4]), [0.5, 0.1, 0.5], share=0.5)


C = np.array([1.0, 0.5, 2.0])


def test_ips_and_snips_by_hand(held_out: HeldOut) -> None:
    np.testing.assert_allclose(held_out.weights, [4, 20, 4])
    assert ips(held_out, C).interval.value == pytest.approx((4 * 1 + 20 * 0.5 + 4 * 2) / 12)
    assert snips(held_out, C).interval.value == pytest.approx(22 / 28)


def test_doubly_robust_by_hand(held_out: HeldOut) -> None:
    predicted, users, cells = [1.0, 1.0, 1.0], np.array([0, 0, 1, 2]), [0.4, 0.8, 1.0, 0.2]
    found = doubly_robust(held_out, C, predicted, cell_users=users, cell_predicted=cells)
    assert found.interval.value == pytest.approx(0.6 + (4 * 0 + 20 * -0.5 + 4 * 1) / 12)


def test_doubly_robust_is_ips_without_predictions_and_direct_without_weights(held_out: HeldOut) -> None:
    users, nothing = np.repeat(np.arange(3), 4), np.zeros(12)
    found = doubly_robust(held_out, C, np.zeros(3), cell_users=users, cell_predicted=nothing)
    assert found.interval.value == pytest.approx(ips(held_out, C).interval.value)
    direct = np.arange(12) / 10
    right = doubly_robust(held_out, C, C, cell_users=users, cell_predicted=direct)
    assert right.interval.value == pytest.approx(direct.mean())
    # Weights vanish where each rating stands for next to nothing.
    light = HeldOut(held_out.log, 1e-9 * held_out.weights, 0.0)
    found = doubly_robust(light, C, np.zeros(3), cell_users=users, cell_predicted=direct)
    assert found.interval.value == pytest.approx(direct.mean())


def test_diagnostics_by_hand(held_out: HeldOut) -> None:
    found = ips(held_out, C)
    assert found.interval.n == 3
    assert found.effective_size == pytest.approx(28**2 / (16 + 400 + 16))
    assert (found.largest_weight, found.share_clipped) == (20.0, 0.0)
    assert found.largest_share == pytest.approx(20 / 28)
    assert found.cells_represented == pytest.approx(28 / 12)


def test_clipping_raises_small_propensities_and_says_how_many(held_out: HeldOut) -> None:
    clipped = weigh(held_out.log, [0.5, 0.1, 0.5], share=0.5, clip=0.25)
    np.testing.assert_allclose(clipped.weights, [4, 8, 4])
    assert ips(clipped, C).share_clipped == pytest.approx(1 / 3)
    assert weigh(held_out.log, [0.5, 0.1, 0.5], share=0.5, clip=0.1).share_clipped == 0.0


def test_ips_and_doubly_robust_are_unbiased_over_every_possible_log() -> None:
    """Sum over all 2^6 sets of rated cells of 3 users and 2 items, each held out whole."""
    rng = np.random.default_rng(0)
    propensity, truth, guess = rng.uniform(0.2, 0.9, 6), rng.gamma(1.0, size=6), rng.gamma(1.0, size=6)
    rows = np.repeat(np.arange(3), 2)
    total = np.zeros(3)
    for kept in product([False, True], repeat=6):
        chosen = np.array(kept)
        probability = np.where(chosen, propensity, 1 - propensity).prod()
        if len(np.unique(rows[chosen])) < 2:  # too few users for an interval; the estimates are plain sums
            weighted = np.where(chosen, 1 / propensity, 0.0)
            values = [(weighted * truth).sum() / 6, guess.mean() + (weighted * (truth - guess)).sum() / 6]
        else:
            log = RatingLog.from_arrays(
                rows[chosen],
                np.tile([0, 1], 3)[chosen],
                np.ones(chosen.sum()),
                scale="1,5",
                user_ids=[0, 1, 2],
                catalogue=[0, 1],
            )
            held = weigh(log, propensity[chosen], share=1.0)
            robust = doubly_robust(held, truth[chosen], guess[chosen], cell_users=rows, cell_predicted=guess)
            values = [ips(held, truth[chosen]).interval.value, robust.interval.value]
        total += probability * np.array([1.0, *values])
    np.testing.assert_allclose(total, [1.0, truth.mean(), truth.mean()])


def test_snips_ignores_a_factor_in_the_propensities_and_stays_in_range(held_out: HeldOut) -> None:
    half = weigh(held_out.log, [0.25, 0.05, 0.25], share=0.5)
    first, second = snips(held_out, C).interval, snips(half, C).interval
    assert (first.low, first.value, first.high) == pytest.approx((second.low, second.value, second.high))
    assert C.min() <= first.value <= C.max()
    assert ips(half, C).interval.value == pytest.approx(2 * ips(held_out, C).interval.value)


def many_users(n_users: int, values: NDArray[np.float64], signed: bool = False) -> Estimate:
    """IPS of one rating a user with propensity 1: the mean of the values."""
    log = RatingLog.from_arrays(
        np.arange(n_users), np.zeros(n_users, dtype=int), np.ones(n_users), scale="1,5", catalogue=[0]
    )
    held = weigh(log, np.ones(n_users), share=1.0)
    return ips(held, values - 5.0 if signed else values, level=0.9)


def test_interval_of_equal_weights_is_student_s() -> None:
    values = np.random.default_rng(1).normal(10.0, 1.0, 400)
    found = many_users(400, values, signed=True).interval
    half = 1.645 * values.std(ddof=1) / 20
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.02)
    assert found.value == pytest.approx(values.mean() - 5.0)
    logged = many_users(400, values).interval
    assert logged.low * logged.high == pytest.approx(logged.value**2)
    assert (logged.high - logged.low) / 2 == pytest.approx(half, rel=0.02)


def test_intervals_are_the_jackknife_s_with_each_user_taken_out_of_the_log() -> None:
    rng = np.random.default_rng(5)
    users, items = np.divmod(np.flatnonzero(rng.random(8 * 6) < 0.4), 6)
    log = RatingLog.from_arrays(
        users, items, np.ones(len(users)), scale="1,5", user_ids=np.arange(8), catalogue=np.arange(6)
    )
    propensity, c, predicted = rng.uniform(0.1, 0.9, (8, 6)), rng.gamma(1.0, size=(8, 6)), rng.gamma(1.0, size=(8, 6))

    def estimates(kept: NDArray[np.int64]) -> list[Estimate]:
        part = log.select_users(kept)
        cells = part.users.ids[part.rows], part.items
        held = weigh(part, propensity[cells], share=1.0)
        rows, columns = sample_cells(part, part.n_users * 6, seed=0)
        robust = doubly_robust(
            held,
            c[cells],
            predicted[cells],
            cell_users=rows,
            cell_predicted=predicted[part.users.ids[rows], columns],
            level=0.9,
        )
        return [ips(held, c[cells] - 0.5, level=0.9), snips(held, c[cells] - 0.5, level=0.9), robust]

    left_out = [estimates(np.delete(np.arange(8), user)) for user in range(8)]
    for found, without in zip(estimates(np.arange(8)), zip(*left_out, strict=True), strict=True):
        values = np.array([estimate.interval.value for estimate in without])
        error = np.sqrt(7 / 8 * np.square(values - values.mean()).sum())
        freedom = 2 * 8 / (stats.kurtosis(values, fisher=False) - 1)
        half = stats.t.ppf(0.95, freedom) * error
        assert (found.interval.high - found.interval.low) / 2 == pytest.approx(half)


def test_heavy_tails_widen_the_interval_beyond_its_standard_error() -> None:
    values = np.full(400, 10.0)
    values[::2] = 9.0
    light = many_users(400, values, signed=True).interval
    values = np.full(400, 10.0)
    values[0] = 30.0
    heavy = many_users(400, values, signed=True).interval
    assert (light.high - light.low) / 2 == pytest.approx(1.645 * 0.5 / 20, rel=0.01)
    # One user of 400 carries all the spread: two degrees of freedom, whose quantile is 2.92.
    assert (heavy.high - heavy.low) / 2 == pytest.approx(2.92 * 20 / 400, rel=0.02)


def test_ratings_of_one_user_count_as_one() -> None:
    users = np.repeat(np.arange(100), 4)
    log = RatingLog.from_arrays(users, np.tile(np.arange(4), 100), np.ones(400), scale="1,5")
    shared = np.random.default_rng(2).normal(size=100)
    found = ips(weigh(log, np.ones(400), share=1.0), np.repeat(shared, 4), level=0.9).interval
    assert (found.high - found.low) / 2 == pytest.approx(1.66 * shared.std(ddof=1) / 10, rel=0.03)


def test_a_perfect_prediction_has_no_error_and_no_width(held_out: HeldOut) -> None:
    found = ips(held_out, np.zeros(3)).interval
    assert (found.low, found.value, found.high) == (0.0, 0.0, 0.0)


def test_fewer_cells_in_the_direct_part_widen_the_interval() -> None:
    rng = np.random.default_rng(3)
    log = RatingLog.from_arrays(
        np.arange(300), rng.integers(0, 50, 300), np.ones(300), scale="1,5", catalogue=np.arange(50)
    )
    held, guess = weigh(log, np.full(300, 0.02), share=1.0), rng.gamma(1.0, size=(300, 50))
    exact = guess[log.rows, log.items]
    widths = []
    for n in (200, 3000):
        rows, columns = sample_cells(log, n, seed=0)
        found = doubly_robust(held, exact, exact, cell_users=rows, cell_predicted=guess[rows, columns], level=0.9)
        # Nothing is left to correct: what remains is the choice of cells.
        assert found.interval.value == pytest.approx(guess[rows, columns].mean())
        widths.append((found.interval.high - found.interval.low) / 2)
        assert widths[-1] == pytest.approx(1.645 * guess.std() / np.sqrt(n), rel=0.15)
    assert widths[0] > 3 * widths[1]


def test_sampled_cells_are_distinct_uniform_and_all_if_enough() -> None:
    log = log_of([1, 2], [1, 2], [1, 2])
    rows, columns = sample_cells(log, 12, seed=0)
    assert np.array_equal(rows * 4 + columns, np.arange(12))
    drawn = np.concatenate([np.ravel_multi_index(sample_cells(log, 3, seed=seed), (3, 4)) for seed in range(800)])
    assert len(np.unique(drawn[:3])) == 3
    counts = np.bincount(drawn, minlength=12)
    assert np.square(counts - 200).sum() / 200 < 30  # chi-squared on 11 degrees of freedom


def test_expected_errors_by_hand() -> None:
    levels, table = np.array([1.0, 2.0, 4.0]), [[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]]
    squared = off_policy.expected_squared_error(levels, table, [2.0, 3.5])
    absolute = off_policy.expected_absolute_error(levels, table, [2.0, 3.5])
    np.testing.assert_allclose(squared, [0.5 * 1 + 0.25 * 4, 2.25])
    np.testing.assert_allclose(absolute, [0.5 * 1 + 0.25 * 2, 1.5])


def test_what_does_not_fit_is_refused(held_out: HeldOut) -> None:
    log = held_out.log
    with pytest.raises(DataError, match=r"above 0 and at most 1; found 0 at position 1"):
        weigh(log, [0.5, 0.0, 0.5], share=0.5)
    with pytest.raises(DataError, match="equally long; found ratings 3, propensities 2"):
        weigh(log, [0.5, 0.5], share=0.5)
    with pytest.raises(ConfigError, match="share held out must be above 0"):
        weigh(log, [0.5] * 3, share=0.0)
    with pytest.raises(ConfigError, match="low must be above 0 and at most 1"):
        weigh(log, [0.5] * 3, share=0.5, clip=0.0)
    with pytest.raises(DataError, match="two users or more; found 2 ratings of 1"):
        weigh(log.select_ratings(np.array([True, True, False])), [0.5] * 2, share=0.5)
    with pytest.raises(DataError, match="contributions must be finite"):
        ips(held_out, [1.0, np.nan, 1.0])
    with pytest.raises(ConfigError, match="level of an interval"):
        snips(held_out, C, level=1.0)
    with pytest.raises(DataError, match="two users or more with index"):
        doubly_robust(held_out, C, C, cell_users=np.array([0, 0]), cell_predicted=[1.0, 1.0])
    with pytest.raises(ConfigError, match="cells to draw must be a whole number of at least 1; found 0"):
        sample_cells(log, 0, seed=0)
    with pytest.raises(DataError, match="equally long"):
        off_policy.expected_squared_error(np.arange(3.0), [[0.5, 0.5]], [1.0])


N_USERS, N_ITEMS, SHARE, LOGS = 1000, 200, 0.2, 100


def estimates_of(seed: int, predictor: str) -> tuple[float, list[Estimate]]:
    """Return the true MSE over all cells of a simulated log, and IPS, SNIPS and DR estimates of it."""
    simulation = simulate_ratings("r3-like", n_users=N_USERS, n_items=N_ITEMS, ratings_per_user=12, seed=seed)
    ratings, propensity = simulation.truth.block(0, N_USERS)
    split = Split(mnar_train=simulation.train).hold_out(SHARE, seed=seed)
    users, items = np.divmod(np.arange(N_USERS * N_ITEMS), N_ITEMS)
    if predictor == "truth + .5":
        predicted = simulation.train.scale.clip(simulation.truth.expected_rating(users + 1, items + 1) + 0.5)
    else:
        bias = BiasBaseline(user_shrinkage=3.0, item_shrinkage=10.0)
        predicted = bias.fit(Split(mnar_train=split.mnar_train), seed=0).predict(users + 1, items + 1)
    predicted = predicted.reshape(N_USERS, N_ITEMS)
    valid = split.mnar_valid
    held = weigh(valid, propensity[valid.rows, valid.items], share=SHARE)
    errors = contributions.squared_error(valid.ratings, predicted[valid.rows, valid.items])
    # A poor guess: everybody answers like the self-selected ratings.
    shares = np.bincount(valid.scale.level_index(valid.ratings), minlength=5) / valid.n_ratings

    def guess(of: NDArray[np.float64]) -> NDArray[np.float64]:
        return off_policy.expected_squared_error(np.arange(1.0, 6.0), np.tile(shares, (len(of), 1)), of)

    rows, columns = sample_cells(valid, 20_000, seed=seed)
    robust = doubly_robust(
        held,
        errors,
        guess(predicted[valid.rows, valid.items]),
        cell_users=rows,
        cell_predicted=guess(predicted[rows, columns]),
        level=0.9,
    )
    return float(np.square(ratings - predicted).mean()), [
        ips(held, errors, level=0.9),
        snips(held, errors, level=0.9),
        robust,
    ]


@pytest.mark.slow
@pytest.mark.parametrize("predictor", ["truth + .5", "bias"])
def test_90_percent_intervals_cover_the_true_error(predictor: str) -> None:
    covered, standardised = np.zeros(3), []
    for seed in range(LOGS):
        truth, found = estimates_of(seed, predictor)
        covered += [estimate.interval.low <= truth <= estimate.interval.high for estimate in found]
        standardised.append([estimate.interval.value / truth - 1.0 for estimate in found])
        assert found[0].cells_represented == pytest.approx(1.0, abs=0.5)
    assert ((covered >= 84) & (covered <= 96)).all(), covered
    # Unbiased up to four standard errors; the bias model is judged off its training cells, which is a little harder.
    mean, spread = np.mean(standardised, axis=0), np.std(standardised, axis=0)
    slack = 0.0 if predictor == "truth + .5" else 0.02
    assert (np.abs(mean) <= 4 * spread / np.sqrt(LOGS) + slack).all(), mean
