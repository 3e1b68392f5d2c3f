"""A survey beside a log: which ratings are kept, how they are marked, and what is refused."""

import numpy as np
import pytest

from mnar_recsys.data import RatingLog, RatingScale, add_survey
from mnar_recsys.errors import DataError

SCALE = RatingScale(1.0, 5.0, 1.0)


@pytest.fixture
def log() -> RatingLog:
    return RatingLog.from_arrays([1, 1, 2, 4], [10, 30, 20, 10], [5.0, 4.0, 3.0, 1.0], scale=SCALE)


@pytest.fixture
def labels() -> RatingLog:
    """One pair that was rated by choice, one of a known user and item, one of a new user, one of a new item."""
    return RatingLog.from_arrays([1, 1, 3, 4], [30, 20, 10, 40], [2.0, 1.0, 2.0, 3.0], scale=SCALE)


def test_ratings_stand_in_order_with_their_marks(log: RatingLog, labels: RatingLog) -> None:
    both = add_survey(log, labels)
    rows = both.to_pandas().assign(surveyed=both.surveyed).to_numpy().tolist()
    assert rows == [
        [1, 10, 5.0, False],
        [1, 20, 1.0, True],
        [1, 30, 4.0, False],
        [2, 20, 3.0, False],
        [3, 10, 2.0, True],
        [4, 10, 1.0, False],
        [4, 40, 3.0, True],
    ]
    assert "1 survey ratings left out: rated by choice as well" in both.notes


def test_without_its_survey_the_log_is_the_old_one(log: RatingLog, labels: RatingLog) -> None:
    chosen = add_survey(log, labels).chosen
    assert chosen.surveyed is None
    np.testing.assert_array_equal(chosen.to_pandas(), log.to_pandas())
    assert (chosen.n_users, chosen.n_items) == (4, 4)
    assert log.chosen is log


def test_marks_follow_their_ratings(log: RatingLog, labels: RatingLog) -> None:
    both = add_survey(log, labels)
    assert both.select_users([0, 3]).surveyed.tolist() == [False, True, False, False, True]
    wider = both.with_catalogue(np.array([5, 50]))
    np.testing.assert_array_equal(wider.surveyed, both.surveyed)


def test_another_scale_and_a_second_survey_are_refused(log: RatingLog, labels: RatingLog) -> None:
    other = RatingLog.from_arrays([1, 2], [10, 20], [1.0, 10.0], scale=RatingScale(1.0, 10.0, 1.0))
    with pytest.raises(DataError, match="must have the log's scale, 5 levels from 1 to 5"):
        add_survey(log, other)
    with pytest.raises(DataError, match="can hold one survey"):
        add_survey(add_survey(log, labels), labels)
