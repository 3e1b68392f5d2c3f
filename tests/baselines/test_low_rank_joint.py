"""The low-rank joint model: soft-thresholded singular values against what they minimise, and against known matrices."""

import numpy as np
import pytest

from baselines.low_rank_joint import LowRankJointImputer


def low_rank(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    complete = rng.normal(size=(80, 2)) @ rng.normal(size=(2, 10))
    return complete, np.where(rng.random(complete.shape) < 0.2, np.nan, complete)


def test_a_matrix_of_low_rank_is_completed() -> None:
    complete, table = low_rank()
    imputed = LowRankJointImputer(penalty=0.05, max_iter=2_000, tol=1e-8).fit_transform(table)
    hidden = np.isnan(table)
    assert np.abs(imputed - complete)[hidden].mean() < 0.1 * np.abs(complete)[hidden].mean()
    np.testing.assert_array_equal(imputed[~hidden], table[~hidden])


def test_complete_data_are_shrunk_as_the_proximal_operator_says() -> None:
    """Without missing entries one step is exact: singular values less the penalty."""
    complete, _ = low_rank()
    imputer = LowRankJointImputer(penalty=3.0, centre=False)
    joint = np.hstack([complete, np.ones_like(complete)])
    found = imputer._complete(joint, np.ones_like(joint, dtype=bool), 3.0, np.zeros_like(joint))
    values = np.linalg.svd(joint, compute_uv=False)
    assert np.linalg.svd(found, compute_uv=False) == pytest.approx(np.maximum(values - 3.0, 0), abs=1e-8)


def test_the_penalty_is_chosen_by_withheld_entries() -> None:
    complete, table = low_rank()
    imputer = LowRankJointImputer(random_state=0)
    hidden = np.isnan(table)
    error = np.square(imputer.fit_transform(table) - complete)[hidden].mean()
    assert error < 0.3 * np.square(complete - np.nanmean(table, 0))[hidden].mean()
    assert 0 < imputer.penalty_ < np.linalg.norm(np.nan_to_num(table), 2)


def test_other_rows_have_no_place_in_it() -> None:
    _, table = low_rank()
    with pytest.raises(ValueError, match="completes the table it was fitted to"):
        LowRankJointImputer(penalty=1.0).fit(table).transform(table[:5])


def test_a_mask_that_is_always_one_says_nothing() -> None:
    """Features without missing values have no column in the mask, and the rest minimises what the docstring says."""
    rng = np.random.default_rng(0)
    complete = rng.normal(size=(200, 1)) @ rng.normal(size=(1, 4)) + 0.1 * rng.normal(size=(200, 4))
    table = np.where((complete > 0.3) & (np.arange(4) < 2), np.nan, complete)
    imputer = LowRankJointImputer(centre=False, penalty=1.0, tol=1e-8).fit(table)
    joint = np.hstack([np.nan_to_num(table), ~np.isnan(table[:, :2])])
    known = np.hstack([~np.isnan(table), np.ones((200, 2), dtype=bool)])

    def cost(rows: np.ndarray) -> float:
        return float(0.5 * np.square((joint - rows)[known]).sum() + np.linalg.norm(rows, "nuc"))

    found = imputer._complete(joint, known, 1.0, np.zeros_like(joint))
    np.testing.assert_allclose(found[:, :4], imputer._rows, atol=1e-12)
    for _ in range(20):
        assert cost(found) <= cost(found + rng.normal(scale=0.01, size=found.shape))
