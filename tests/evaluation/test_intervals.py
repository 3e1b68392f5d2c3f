"""Bootstrap intervals against analytic standard errors, and their coverage."""

import numpy as np
import pytest
from scipy import stats

from evaluation import intervals
from evaluation.intervals import Interval, bootstrap, paired_difference, seed_spread
from mnar_recsys.errors import ConfigError, DataError


def test_interval_agrees_with_the_analytic_standard_error_on_independent_values() -> None:
    values = np.random.default_rng(0).gamma(2.0, size=3000)
    found = bootstrap(values, np.arange(3000), resamples=4000)[0]
    half = 1.96 * values.std() / np.sqrt(3000)
    assert found.value == pytest.approx(values.mean())
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.05)
    assert (found.level, found.n) == (0.95, 3000)


def test_users_whose_values_are_alike_widen_the_interval() -> None:
    rng = np.random.default_rng(1)
    users = np.repeat(np.arange(300), 10)
    shared = np.repeat(rng.normal(size=300), 10)
    found = bootstrap(shared, users, resamples=4000)[0]
    # Ten copies of one value are one value: the error is that of 300, not of 3,000.
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * shared.std() / np.sqrt(300), rel=0.07)


def test_unequal_users_give_the_error_of_a_ratio() -> None:
    rng = np.random.default_rng(2)
    sizes = rng.integers(1, 20, size=400)
    users = np.repeat(np.arange(400), sizes)
    values = np.repeat(rng.normal(size=400), sizes) + rng.normal(size=len(users))
    found = bootstrap(values, users, resamples=4000)[0]
    # Linearised variance of sum(S_u) / sum(n_u).
    residual = np.bincount(users, weights=values - values.mean())
    half = 1.96 * np.sqrt(np.square(residual).sum()) / len(values)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.06)


def test_coverage_is_nominal_for_clustered_squared_errors() -> None:
    rng = np.random.default_rng(3)
    users, hits = np.repeat(np.arange(80), 5), 0
    for trial in range(300):
        errors = np.repeat(rng.normal(size=80), 5) + rng.normal(size=400)
        found = bootstrap(np.square(errors), users, level=0.9, resamples=300, seed=trial)[0]
        hits += found.low <= 2.0 <= found.high
    # 300 trials at .9 have a standard error of .017; percentile intervals of a skewed mean are a bit short.
    assert 0.83 <= hits / 300 <= 0.95


def test_order_and_names_of_users_do_not_matter() -> None:
    rng = np.random.default_rng(4)
    values, users = rng.normal(size=60), np.repeat(np.arange(20), 3)
    order = rng.permutation(60)
    names = np.array([f"u{user:02d}" for user in users])
    found = bootstrap(values, users)[0]
    again = bootstrap(values[order], names[order])[0]
    assert (found.low, found.high) == pytest.approx((again.low, again.high))


def test_chunks_do_not_change_what_is_resampled(monkeypatch: pytest.MonkeyPatch) -> None:
    values, users = np.random.default_rng(5).normal(size=90), np.repeat(np.arange(30), 3)
    whole = bootstrap(values, users, resamples=50)[0]
    monkeypatch.setattr(intervals, "_WEIGHTS_AT_ONCE", 30 * 7)
    chunked = bootstrap(values, users, resamples=50)[0]
    assert (chunked.low, chunked.high) == pytest.approx((whole.low, whole.high), rel=1e-12)


def test_seed_decides_the_resamples() -> None:
    values, users = np.arange(50.0), np.arange(50)
    assert bootstrap(values, users, seed=1) == bootstrap(values, users, seed=1)
    assert bootstrap(values, users, seed=1) != bootstrap(values, users, seed=2)


def test_a_function_of_means_is_transformed_end_by_end() -> None:
    values, users = np.random.default_rng(6).gamma(1.0, size=200), np.arange(200)
    mse, rmse = bootstrap(values, users)[0], bootstrap(values, users, statistic=np.sqrt)[0]
    # The root is monotone, so percentiles map onto percentiles, up to interpolation between two resamples.
    assert (rmse.value, rmse.low, rmse.high) == pytest.approx(tuple(np.sqrt([mse.value, mse.low, mse.high])), rel=1e-3)


def test_paired_difference_has_the_error_of_the_difference() -> None:
    rng = np.random.default_rng(7)
    shared = rng.gamma(1.0, size=2000)
    first, second = shared + 0.1, shared + 0.05 * rng.normal(size=2000)
    found = paired_difference(first, second, np.arange(2000), resamples=3000)
    assert found.value == pytest.approx((first - second).mean())
    half = 1.96 * (first - second).std() / np.sqrt(2000)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.06)
    assert found.low > 0


def test_paired_difference_of_roots() -> None:
    users = np.arange(4)
    found = paired_difference(np.full(4, 4.0), np.full(4, 1.0), users, transform=np.sqrt)
    assert (found.value, found.low, found.high) == pytest.approx((1.0, 1.0, 1.0))


def test_spread_over_seeds_is_the_t_interval() -> None:
    values = [1.0, 1.2, 0.9, 1.1, 1.3]
    low, high = stats.t.interval(0.95, 4, loc=np.mean(values), scale=stats.sem(values))
    found = seed_spread(values)
    assert (found.value, found.low, found.high) == pytest.approx((1.1, low, high))
    assert found.n == 5


def test_one_seed_tells_nothing_of_the_spread() -> None:
    found = seed_spread([0.9])
    assert found.value == 0.9
    assert np.isnan([found.low, found.high]).all()


def test_interval_reads_as_value_and_ends() -> None:
    assert str(Interval(0.8571, 0.8409, 0.8733, 0.95, 10)) == "0.857 [0.841, 0.873]"


def test_bad_arguments_are_refused() -> None:
    values, users = np.ones(3), np.arange(3)
    with pytest.raises(ConfigError, match="between 0 and 1; found 95"):
        bootstrap(values, users, level=95)
    with pytest.raises(ConfigError, match="resamples must be at least 1"):
        bootstrap(values, users, resamples=0)
    with pytest.raises(DataError, match="found 3 and 2 users"):
        bootstrap(values, users[:2])
    with pytest.raises(DataError, match="must be finite"):
        bootstrap([1.0, np.nan, 1.0], users)
    with pytest.raises(DataError, match="two equally long vectors"):
        paired_difference(values, values[:2], users)
    with pytest.raises(DataError, match="at least one"):
        seed_spread([])
