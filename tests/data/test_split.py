import numpy as np
import pytest

from mnar_recsys.data import RatingLog, Split, split_ratings
from mnar_recsys.errors import ConfigError, DataError


def make_log(pairs, **options):
    users, items = zip(*pairs, strict=True)
    return RatingLog.from_arrays(users, items, np.arange(len(pairs)) % 5 + 1, **{"scale": "1,5", **options})


TRAIN = make_log([(1, 1), (1, 2), (2, 1), (3, 3)])


def test_unseen_test_cells_are_counted():
    test = make_log([(1, 1), (2, 2), (3, 1), (3, 3)])
    split = Split(TRAIN, mcar_test=test)
    assert split.unseen.tolist() == [False, True, True, False]
    assert split.n_seen == 2
    assert split.n_labels == 0
    assert split.describe() == "mnar_train 4, mcar_test 4, test cells also in training 2"


def test_cells_held_out_for_validation_count_as_seen():
    test = make_log([(1, 3), (2, 2)])
    assert Split(TRAIN, mnar_valid=make_log([(1, 3), (2, 4)]), mcar_test=test).unseen.tolist() == [
        False,
        True,
    ]


def test_all_logs_get_the_same_indices():
    split = Split(TRAIN, mcar_test=make_log([(0, 9), (1, 2)]))
    assert split.mcar_test.users == split.mnar_train.users
    assert split.mnar_train.users.ids.tolist() == [0, 1, 2, 3]
    assert split.mcar_test.catalogue.ids.tolist() == [1, 2, 3, 9]
    assert split.unseen.tolist() == [True, False]


def test_labels_in_the_test_set_are_refused_with_cells_and_count():
    labels, test = make_log([(1, 1), (2, 2), (3, 1)]), make_log([(2, 2), (3, 1), (3, 2)])
    with pytest.raises(DataError, match=r"mcar_labels and mcar_test .* found 2 shared: \(2, 2\), \(3, 1\)\. Remove"):
        Split(TRAIN, mcar_labels=labels, mcar_test=test)


def test_validation_in_training_is_refused_however_the_vocabularies_differ():
    with pytest.raises(DataError, match=r"mnar_valid and mnar_train .* found 1 shared: \(3, 3\)"):
        Split(TRAIN, mnar_valid=make_log([(3, 3), (0, 7)]))
    with pytest.raises(DataError, match=r"found 4 shared: \(1, 1\), \(1, 2\), \(2, 1\), \.\.\."):
        Split(TRAIN, mnar_valid=TRAIN)


def test_labels_may_repeat_what_was_chosen():
    assert Split(TRAIN, mcar_labels=make_log([(1, 1), (2, 2)])).n_labels == 2


def test_logs_must_share_scale_and_kind_of_ids():
    with pytest.raises(
        DataError, match=r"mcar_test must have the rating scale of mnar_train, 5 levels .* found 10 levels"
    ):
        Split(TRAIN, mcar_test=make_log([(1, 1), (2, 2)], scale="1,10"))
    with pytest.raises(DataError, match="found text"):
        Split(TRAIN, mcar_test=make_log([("a", 1), ("b", 2)]))


def test_unseen_needs_a_test_log():
    with pytest.raises(DataError, match="need mcar_test"):
        _ = Split(TRAIN).unseen


def test_held_out_ratings_are_a_seeded_partition():
    cells = [(user, item) for user in range(20) for item in range(10)]
    log = make_log(cells)
    train, valid = split_ratings(log, 0.1, seed=3)
    assert (train.n_ratings, valid.n_ratings) == (180, 20)
    assert np.array_equal(np.sort(np.concatenate([train.cells, valid.cells])), log.cells)
    assert np.array_equal(split_ratings(log, 0.1, seed=3)[1].cells, valid.cells)
    assert not np.array_equal(split_ratings(log, 0.1, seed=4)[1].cells, valid.cells)
    held = Split(log).hold_out(0.1, seed=3)
    assert np.array_equal(held.mnar_valid.cells, valid.cells)
    with pytest.raises(DataError, match="already"):
        held.hold_out(0.1, seed=3)


@pytest.mark.parametrize("fraction", [0, 1, -0.5, 0.9999])
def test_a_part_without_ratings_is_refused(fraction):
    with pytest.raises(ConfigError, match="fraction"):
        split_ratings(TRAIN, fraction, seed=0)
