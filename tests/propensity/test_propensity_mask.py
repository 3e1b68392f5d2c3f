"""Sampling of cells: distinct, uniform, of the right kind, and the regression that undoes its rates."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.special import expit
from worlds import log_of_mask, random_mask

from mnar_recsys.errors import DataError, DivergedError
from mnar_recsys.propensity.case_control import CaseControl, draw_case_control, fit_log_odds
from mnar_recsys.propensity.mask import in_blocks, sample_cells, sample_places, sample_unrated

MASK = random_mask(np.full((12, 9), 0.4), seed=0)
LOG = log_of_mask(MASK)


def test_all_unrated_cells_are_reached() -> None:
    found = sample_unrated(LOG, 10_000, np.random.default_rng(0))
    np.testing.assert_array_equal(found, np.flatnonzero(~MASK.ravel()))


def test_unrated_cells_are_drawn_uniformly_without_repeats() -> None:
    rng = np.random.default_rng(0)
    counts = np.zeros(MASK.size)
    for _ in range(3000):
        cells = sample_unrated(LOG, 7, rng)
        assert len(set(cells.tolist())) == 7
        counts[cells] += 1
    assert not counts[MASK.ravel()].any()
    expected = 3000 * 7 / (~MASK).sum()
    z = (counts[~MASK.ravel()] - expected) / np.sqrt(expected)
    assert np.abs(z).max() < 4.0


def test_cells_are_drawn_from_all() -> None:
    np.testing.assert_array_equal(np.sort(sample_cells(LOG, 108, np.random.default_rng(0))), np.arange(108))
    assert len(np.unique(sample_places(10**12, 1000, np.random.default_rng(0)))) == 1000


def test_blocks_cover_everything_once() -> None:
    blocks = list(in_blocks(600_001))
    assert blocks[0].start == 0
    assert blocks[-1].stop == 600_001
    assert all(a.stop == b.start for a, b in pairwise(blocks))
    assert not list(in_blocks(0))


def test_case_control_keeps_all_ratings_or_an_even_part() -> None:
    rng = np.random.default_rng(0)
    whole = draw_case_control(LOG, unrated_per_rating=0.5, max_cells=10_000, rng=rng)
    n = LOG.n_ratings
    assert whole.is_rated.sum() == n
    assert MASK[whole.rows, whole.columns].tolist() == whole.is_rated.tolist()
    assert whole.log_rate_ratio == pytest.approx(-np.log(round(n / 2) / (108 - n)))
    part = draw_case_control(LOG, unrated_per_rating=1.0, max_cells=20, rng=rng)
    assert part.is_rated.sum() == 10
    assert MASK[part.rows, part.columns].tolist() == part.is_rated.tolist()
    assert part.log_rate_ratio == pytest.approx(np.log(10 / n) - np.log(10 / (108 - n)))


def test_regression_on_a_constant_gives_the_share_rated_at_any_rates() -> None:
    for ratio in (0.3, 1.0, 100.0):
        sample = draw_case_control(LOG, unrated_per_rating=ratio, max_cells=10_000, rng=np.random.default_rng(1))
        found = fit_log_odds(sample, lambda rows, _columns: np.zeros((len(rows), 1)), ridge=1.0, solver="lbfgs")
        assert expit(found.intercept) == pytest.approx(LOG.n_ratings / 108, abs=1e-4)
        assert found.weights[0] == 0.0


def test_nothing_to_tell_apart_and_no_settling_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    full = log_of_mask(np.ones((3, 3), dtype=bool))
    with pytest.raises(DataError, match="needs unrated cells; all 9 are rated"):
        draw_case_control(full, unrated_per_rating=1.0, max_cells=100, rng=np.random.default_rng(0))
    monkeypatch.setattr("mnar_recsys.propensity.case_control._MAX_STEPS", 1)
    sample = CaseControl(np.arange(6), np.arange(6), np.arange(6) > 3, 0.0)
    with pytest.raises(DivergedError, match=r"did not settle in 1 steps at ridge 0\.001"):
        fit_log_odds(sample, lambda rows, _columns: np.eye(6)[rows] * 100, ridge=1e-3, solver="lbfgs")
