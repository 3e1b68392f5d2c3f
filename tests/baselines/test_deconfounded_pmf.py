"""The deconfounded recommender on a planted confounder, and where it has to coincide with PMF."""

import numpy as np
import pytest

from baselines.deconfounded_pmf import DeconfoundedPmf
from baselines.pmf import Pmf
from mnar_recsys.data import RatingLog, Split
from mnar_recsys.data.simulate import simulate_ratings
from mnar_recsys.errors import ConfigError

N, P = 400, 120
RANK = 4


@pytest.fixture(scope="module")
def confounded() -> tuple[Split, np.ndarray]:
    """What makes people meet an item also raises or lowers their rating, with a slope of their own.

    Returns the log and the expected ratings of all cells, (N, P). The confounder's term has rank 4 and the taste rank
    1: two factors of the outcome can hold one of them, while with ten even PMF holds both.
    """
    rng = np.random.default_rng(0)
    rate = rng.gamma(0.3, 1.0, (N, RANK)) @ rng.gamma(0.3, 1.0, (RANK, P))
    rate *= 0.25 / rate.mean()
    slope = rng.normal(0.0, 1.0, N)
    taste = 0.2 * rng.normal(size=(N, 1)) @ rng.normal(size=(1, P))
    expected = 3.0 + taste + slope[:, None] * rate / np.sqrt(np.square(rate).mean())
    rows, columns = np.nonzero(rng.random((N, P)) < -np.expm1(-rate))
    values = expected[rows, columns] + 0.3 * rng.normal(size=len(rows))
    log = RatingLog.from_arrays(
        rows, columns, values, scale="-40,40,real", user_ids=np.arange(N), catalogue=np.arange(P)
    )
    return Split(mnar_train=log), expected


def test_recovers_a_planted_confounder_better_than_pmf(confounded: tuple[Split, np.ndarray]) -> None:
    split, expected = confounded
    rows, columns = np.indices((N, P)).reshape(2, -1)
    errors = {}
    for name, model in (
        ("pmf", Pmf(size=2)),
        ("deconfounded", DeconfoundedPmf(size=2, exposure_size=RANK, slope_shrinkage=1.0)),
    ):
        found = model.fit(split, seed=0).predict(rows, columns)
        errors[name] = float(np.square(found - expected.ravel()).mean())
    assert errors["deconfounded"] < 0.5 * errors["pmf"]


def test_without_slopes_it_is_pmf(confounded: tuple[Split, np.ndarray]) -> None:
    split, _ = confounded
    rows, columns = np.indices((N, P)).reshape(2, -1)
    plain = Pmf(size=2, shrinkage=3.0).fit(split, seed=0).predict(rows, columns)
    other = DeconfoundedPmf(size=2, shrinkage=3.0, slope_shrinkage=1e12).fit(split, seed=0)
    np.testing.assert_allclose(other.predict(rows, columns), plain, atol=1e-6)


def test_exposure_counts_in_its_root_mean_square_and_is_none_for_the_unknown() -> None:
    simulation = simulate_ratings("popularity", n_users=80, n_items=40, ratings_per_user=8, seed=0)
    log = simulation.train
    model = DeconfoundedPmf(size=2, exposure_size=2, shrinkage=3.0).fit(Split(mnar_train=log), seed=0)
    exposure = model._covariate(log.rows, log.items)
    assert np.sqrt(np.square(exposure).mean()) == pytest.approx(1.0)
    rates = np.einsum("nk,nk->n", model.exposure.users.mean[log.rows], model.exposure.items.mean[log.items])
    np.testing.assert_allclose(exposure / rates, exposure[0] / rates[0])
    np.testing.assert_array_equal(model._covariate(np.array([80, 0, 80]), np.array([0, 40, 40])), 0.0)


@pytest.mark.parametrize("setting", ["size", "exposure_size", "slope_shrinkage"])
def test_settings_must_be_above_zero(setting: str) -> None:
    with pytest.raises(ConfigError, match=f"{setting} must be a number above 0; found 0"):
        DeconfoundedPmf(**{setting: 0})
