"""Folds: every rating is held out once, alone or with its user."""

import numpy as np
import pytest
from factories import log_of, random_matrix

from mnar_recsys.data import RatingFolds, RatingLog, Split, add_survey
from mnar_recsys.errors import ConfigError, DataError

LOG = log_of(random_matrix(30, 8))


@pytest.mark.parametrize("by", ["user", "cell"])
def test_every_rating_is_held_out_once(by):
    folds = RatingFolds(4, by, seed=3)
    assert folds.get_n_splits(LOG) == 4
    pairs = list(folds.split(LOG))
    assert len(pairs) == 4
    for train, valid in pairs:
        assert np.array_equal(np.sort(np.concatenate([train, valid])), np.arange(LOG.n_ratings))
        assert (np.diff(train) > 0).all()
        shared = np.intersect1d(LOG.rows[train], LOG.rows[valid])
        assert len(shared) == 0 if by == "user" else len(shared) > 0
    held_out = np.concatenate([valid for _, valid in pairs])
    assert np.array_equal(np.sort(held_out), np.arange(LOG.n_ratings))
    units = [len(np.unique(LOG.rows[valid])) if by == "user" else len(valid) for _, valid in pairs]
    assert max(units) - min(units) <= 1
    again = list(RatingFolds(4, by, seed=3).split(LOG))
    assert all(np.array_equal(one[1], other[1]) for one, other in zip(pairs, again, strict=True))
    assert not np.array_equal(pairs[0][1], next(RatingFolds(4, by, seed=4).split(LOG))[1])


def test_roles_are_splits_and_leave_the_test_out():
    labels = RatingLog.from_arrays(["u0001", "u0002"], [0, 9], [1, 2], scale=LOG.scale)
    test = RatingLog.from_arrays(["u0001", "u0003"], [1, 2], [1, 2], scale=LOG.scale)
    whole = Split(LOG, mcar_labels=labels, mcar_test=test)
    folds = RatingFolds(3, "user")
    for split, (train, valid) in zip(folds.roles(whole), folds.split(whole.mnar_train), strict=True):
        assert split.mnar_train.n_ratings == len(train)
        assert np.array_equal(split.mnar_valid.ratings, whole.mnar_train.ratings[valid])
        assert split.mnar_valid.users == whole.mnar_train.users
        assert split.mcar_labels.n_ratings == 2
        assert split.mcar_test is None
    alone = next(folds.roles(LOG))
    assert alone.mcar_labels is None
    with pytest.raises(DataError, match="has an mnar_valid already"):
        next(folds.roles(alone))


def test_scikit_learn_takes_it_for_a_splitter():
    from sklearn.dummy import DummyRegressor
    from sklearn.model_selection import check_cv, cross_val_score

    class OfLog(RatingFolds):
        """Ratings in the place of rows of a table."""

        def split(self, cells, y=None, groups=None):
            assert len(cells) == LOG.n_ratings
            return RatingFolds.split(self, LOG, y, groups)

    folds = OfLog(3, "cell")
    assert check_cv(folds) is folds
    cells = np.stack([LOG.rows, LOG.items], axis=1)
    scores = cross_val_score(DummyRegressor(), cells, LOG.ratings, cv=folds, scoring="neg_mean_squared_error")
    by_hand = [
        -np.mean((LOG.ratings[valid] - LOG.ratings[train].mean()) ** 2)
        for train, valid in RatingFolds(3, "cell").split(LOG)
    ]
    assert scores == pytest.approx(by_hand, rel=1e-5)


def test_ratings_of_a_survey_are_not_held_out_one_by_one():
    log = add_survey(LOG, RatingLog.from_arrays(["u0000", "u0001"], [3, 9], [1, 2], scale=LOG.scale))
    surveyed = np.flatnonzero(log.surveyed)
    assert len(surveyed) > 0
    held_out = np.concatenate([valid for _, valid in RatingFolds(3, "cell").split(log)])
    assert np.array_equal(np.sort(np.concatenate([held_out, surveyed])), np.arange(log.n_ratings))
    held_out = np.concatenate([valid for _, valid in RatingFolds(3, "user").split(log)])
    assert len(held_out) == log.n_ratings


def test_folds_that_are_none():
    with pytest.raises(ConfigError, match="n_splits must be 2 or more; found 1"):
        RatingFolds(1)
    with pytest.raises(ConfigError, match="by must be cell or user; found 'item'"):
        RatingFolds(2, "item")
    with pytest.raises(DataError, match="40 folds need as many users with ratings; found 29"):
        next(RatingFolds(40).split(LOG))
