"""Cells that were on offer: how they are kept, carried along, and refused where a rating contradicts them."""

from dataclasses import replace

import numpy as np
import pytest

from mnar_recsys.data import RatingLog, RatingScale, Split, Vocabulary, add_survey, split_ratings
from mnar_recsys.data.eligible import EligibleCells
from mnar_recsys.errors import DataError

SCALE = RatingScale(1.0, 5.0, 1.0)
PAIRS = [(1, 10), (1, 30), (2, 20), (2, 30), (4, 10), (2, 30)]  # one of them twice


@pytest.fixture
def bare() -> RatingLog:
    return RatingLog.from_arrays([1, 1, 2, 4], [10, 30, 20, 10], [5.0, 4.0, 3.0, 1.0], scale=SCALE)


@pytest.fixture
def log(bare: RatingLog) -> RatingLog:
    return bare.with_eligible(*np.array(PAIRS).T)


def pairs_of(log: RatingLog) -> set[tuple[int, int]]:
    rows, items = np.divmod(log.eligible.cells, log.n_items)
    return set(zip(log.users.ids[rows].tolist(), log.catalogue.ids[items].tolist(), strict=True))


def test_pairs_are_kept_once_and_cannot_be_changed(bare: RatingLog, log: RatingLog) -> None:
    assert pairs_of(log) == set(PAIRS)
    assert len(log.eligible) == 5
    assert log.eligible.users_by_item().tolist() == [2, 1, 2]
    assert bare.eligible is None
    for array in (log.eligible.items, log.eligible.indptr, log.eligible.cells):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_membership_is_that_of_the_dense_matrix() -> None:
    dense = np.random.default_rng(0).random((7, 5)) < 0.4
    dense[3] = False
    cells = EligibleCells.from_cells(np.random.default_rng(1).permutation(np.flatnonzero(dense)), 7, 5)
    np.testing.assert_array_equal(cells.contains(np.arange(35)), dense.ravel())
    np.testing.assert_array_equal(cells.users_by_item(), dense.sum(0))
    users = np.array([6, 3, 0])
    np.testing.assert_array_equal(cells.take_users(users).contains(np.arange(15)), dense[users].ravel())
    nothing = EligibleCells.from_cells(np.zeros(0, dtype=np.int64), 7, 5)
    assert not nothing.contains(np.arange(35)).any()
    with pytest.raises(DataError, match=r"from 0 to 34; found 3\.\.35"):
        EligibleCells.from_cells(np.array([35, 3]), 7, 5)


def test_new_users_and_items_on_offer_join_the_log(bare: RatingLog) -> None:
    wider = bare.with_eligible(np.array([1, 1, 2, 4, 3, 1]), np.array([10, 30, 20, 10, 25, 40]))
    assert wider.users.ids.tolist() == [1, 2, 3, 4]
    assert wider.catalogue.ids.tolist() == [10, 20, 25, 30, 40]
    assert pairs_of(wider) == {(1, 10), (1, 30), (2, 20), (4, 10), (3, 25), (1, 40)}
    np.testing.assert_array_equal(wider.to_pandas(), bare.to_pandas())


def test_what_joins_later_is_not_on_offer(log: RatingLog) -> None:
    wider = log.with_catalogue(np.array([5, 50])).reindex(
        Vocabulary.from_ids([0, 1, 2, 4]), Vocabulary.from_ids([5, 10, 20, 30, 50])
    )
    assert pairs_of(wider) == set(PAIRS)
    surveyed = add_survey(log, RatingLog.from_arrays([1, 2, 3], [20, 30, 10], [2.0, 1.0, 3.0], scale=SCALE))
    assert pairs_of(surveyed) == set(PAIRS)
    assert pairs_of(surveyed.chosen) == set(PAIRS)


def test_users_take_their_offer_along(log: RatingLog) -> None:
    assert pairs_of(log.select_users([2, 1])) == {(2, 20), (2, 30), (4, 10)}
    for part in split_ratings(log, 0.5, seed=0):
        assert pairs_of(part) == set(PAIRS)
    other = RatingLog.from_arrays([7, 1], [10, 15], [1.0, 2.0], scale=SCALE)
    assert pairs_of(Split(log, mcar_test=other).mnar_train) == set(PAIRS)


def test_a_rating_of_what_was_not_on_offer_is_refused(bare: RatingLog, log: RatingLog) -> None:
    message = "2 of 4 ratings are not, for example user 1, item 30. Add these pairs, or remove the ratings"
    with pytest.raises(DataError, match=message):
        bare.with_eligible(np.array([1, 2]), np.array([10, 20]))
    with pytest.raises(DataError, match="of 3 users and 3 items; found 4 and 3"):
        replace(bare, eligible=EligibleCells.from_cells(np.arange(12), 4, 3))
    # A survey may ask about anything; what it marks as chosen may not be anything.
    surveyed = add_survey(log, RatingLog.from_arrays([1], [20], [2.0], scale=SCALE, user_ids=[1], catalogue=[20]))
    with pytest.raises(DataError, match="1 of 5 ratings are not, for example user 1, item 20"):
        replace(surveyed, surveyed=None)
