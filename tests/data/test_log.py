import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from mnar_recsys.data import FeatureTable, RatingLog, RatingScale, Vocabulary
from mnar_recsys.errors import ConfigError, DataError


def assert_same(one, two):
    assert one.users == two.users
    assert one.catalogue == two.catalogue
    assert one.scale == two.scale
    for name in ("indptr", "items", "ratings", "timestamps"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


@pytest.fixture
def log():
    """Three users, four items; user 20 has rated nothing."""
    return RatingLog.from_arrays(
        [30, 10, 30, 10],
        ["c", "b", "a", "d"],
        [5, 1, 2, 4],
        timestamps=[1, 2, 3, 4],
        user_ids=[10, 20, 30],
        scale="1,5",
    )


@st.composite
def ratings(draw):
    """Draw parallel arrays with distinct pairs, at least two users, two items and two ratings."""
    ids = draw(st.sampled_from([st.integers(-5, 40), st.text("ab0 é", min_size=1, max_size=3)]))
    users = draw(st.lists(ids, min_size=2, max_size=6, unique=True))
    items = draw(st.lists(ids, min_size=2, max_size=6, unique=True))
    pairs = [(user, item) for user in users for item in items]
    chosen = [pairs[0], pairs[-1], *draw(st.lists(st.sampled_from(pairs[1:-1]), unique=True))]
    values = draw(st.lists(st.integers(1, 5), min_size=len(chosen), max_size=len(chosen)))
    return chosen, values


def test_rows_are_sorted_by_user_then_item(log):
    assert log.indptr.tolist() == [0, 2, 2, 4]
    assert log.items.tolist() == [1, 3, 0, 2]
    assert log.ratings.tolist() == [1, 4, 2, 5]
    assert log.timestamps.tolist() == [2, 4, 3, 1]
    assert log.rows.tolist() == [0, 0, 2, 2]
    assert (log.n_users, log.n_items, log.n_ratings) == (3, 4, 4)
    assert repr(log) == "RatingLog(4 ratings, 3 users, 4 items, 5 levels from 1 to 5)"


@pytest.mark.parametrize("name", ["indptr", "items", "ratings", "timestamps", "rows"])
def test_arrays_are_read_only(log, name):
    with pytest.raises(ValueError, match="read-only"):
        getattr(log, name)[0] = 0


@given(ratings(), st.randoms(use_true_random=False))
def test_the_order_of_the_rows_changes_nothing(drawn, random):
    pairs, values = drawn
    rows = list(zip(pairs, values, strict=True))
    log = RatingLog.from_arrays([user for user, _ in pairs], [item for _, item in pairs], values, scale="1,5")
    random.shuffle(rows)
    shuffled = RatingLog.from_arrays(
        [user for (user, _), _ in rows],
        [item for (_, item), _ in rows],
        [value for _, value in rows],
        scale="1,5",
    )
    assert_same(log, shuffled)


@given(ratings())
def test_pandas_and_scipy_round_trips(drawn):
    pairs, values = drawn
    log = RatingLog.from_arrays([user for user, _ in pairs], [item for _, item in pairs], values, scale="1,5")
    assert_same(log, RatingLog.from_pandas(log.to_pandas(), scale=log.scale))
    matrix = log.to_scipy()
    assert_same(log, RatingLog.from_scipy(matrix, user_ids=log.users, catalogue=log.catalogue, scale=log.scale))


def test_levels_come_back_exactly_from_single_precision():
    log = RatingLog.from_arrays([1, 2], [1, 2], [0.1, 0.7])
    assert log.to_pandas()["rating"].tolist() == [0.1, 0.7]


def test_duplicates_are_refused_with_the_first_pair_and_the_count():
    with pytest.raises(DataError, match=r"position 2: user 9, item 1 .*first at position 0\); 2 such repeats"):
        RatingLog.from_arrays([9, 1, 9, 1], [1, 2, 1, 2], [1, 2, 3, 4])


def test_the_last_duplicate_goes_by_time_or_else_by_place():
    arrays = ([1, 1, 2, 1], [1, 1, 2, 1], [5, 2, 3, 1])
    by_place = RatingLog.from_arrays(*arrays, duplicates="last")
    assert by_place.ratings.tolist() == [1, 3]
    by_time = RatingLog.from_arrays(*arrays, duplicates="last", timestamps=[7, 9, 0, 8])
    assert by_time.ratings.tolist() == [2, 3]
    assert by_time.timestamps.tolist() == [9, 0]
    assert any("2 repeated" in note and "latest timestamp" in note for note in by_time.notes)


def test_the_mean_of_duplicates_is_rounded_to_a_level_and_said_so():
    log = RatingLog.from_arrays([1, 1, 2, 2], [1, 1, 2, 1], [1, 2, 3, 5], duplicates="mean")
    assert log.ratings.tolist() == [2, 5, 3]
    assert any("nearest to their mean" in note for note in log.notes)
    real = RatingLog.from_arrays([1, 1, 2], [1, 1, 2], [1, 2, 3], duplicates="mean", scale="1,3,real")
    assert real.ratings.tolist() == [1.5, 3]


def test_an_unknown_way_with_duplicates_is_refused():
    with pytest.raises(ConfigError, match="'first'"):
        RatingLog.from_arrays([1, 2], [1, 2], [1, 2], duplicates="first")


@pytest.mark.parametrize(
    ("arrays", "options", "message"),
    [
        (([1, 1], [1, 2], [1, 2]), {}, "all ratings are of one user, 1"),
        (([1, 2], ["a", "a"], [1, 2]), {}, "all ratings are of one item, 'a'"),
        (([], [], []), {}, "found none"),
        (([1, 2], [1, 2], [1]), {}, "equally long"),
        (([1, 2], [1, 2], [1, np.nan]), {}, "ratings must be finite; found nan at position 1"),
        (([1, 2], [1, 2], [1, "x"]), {}, "ratings must be numbers"),
        (([1, 2], [1, 2], [1, 9]), {"scale": "1,5"}, "position 1: found rating 9"),
        (([1, 2], [1, 2], [3, 3]), {}, "scale cannot be inferred from only the rating 3"),
        (([1, 2], [1, 2], [1, 2]), {"catalogue": [1, 3]}, "position 1: the item is not among the 2 item ids"),
        (([1, 2], [1, 2], [1, 2]), {"timestamps": [1, np.inf]}, "timestamps must be finite"),
    ],
)
def test_arrays_that_make_no_log(arrays, options, message):
    with pytest.raises(DataError, match=message):
        RatingLog.from_arrays(*arrays, **options)


def test_a_single_new_user_may_be_given():
    log = RatingLog.from_arrays([7], [2], [4], user_ids=[7], catalogue=[1, 2, 3], scale="1,5")
    assert (log.n_users, log.n_items) == (1, 3)


def test_scale_is_inferred_and_noted():
    log = RatingLog.from_arrays([1, 2], [1, 2], [1, 5])
    assert log.scale == RatingScale(1, 5, 1)
    assert "5 levels from 1 to 5 (inferred" in log.notes[0]


def test_pandas_columns_by_name_and_dates():
    frame = pd.DataFrame(
        {
            "who": ["a", "b"],
            "what": [1, 2],
            "stars": [1, 2],
            "timestamp": pd.to_datetime(["1970-01-02", "1970-01-03"]),
            "x": 0,
        }
    )
    log = RatingLog.from_pandas(frame, "who", "what", "stars")
    assert log.timestamps.tolist() == [86400, 172800]
    assert log.notes[0] == "ignored columns: x"


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ({"user": [1, 2], "item": [1, 2]}, "no column 'rating'; found user, item"),
        ({"user": [1, 2], "item": [1, 2], "rating": ["1", "2"]}, "'rating' must hold numbers"),
        (
            {"user": [1.0, 2.0], "item": [1, 2], "rating": [1, 2]},
            "user ids must be whole numbers or text; found float64",
        ),
        (
            {"user": ["a", 2], "item": [1, 2], "rating": [1, 2]},
            "user ids must be all whole numbers or all text",
        ),
        (
            {"user": [1, 2], "item": [1, 2], "rating": [1, None]},
            "'rating' must be finite; found nan at position 1",
        ),
    ],
)
def test_frames_that_make_no_log(frame, message):
    with pytest.raises(DataError, match=message):
        RatingLog.from_pandas(pd.DataFrame(frame))


def test_stored_zeros_are_ratings_only_where_the_scale_has_a_zero():
    matrix = sparse.coo_array(([0, 3, 5], ([0, 1, 1], [0, 0, 1])), shape=(3, 2))
    with pytest.raises(DataError, match="stores 1 zeros"):
        RatingLog.from_scipy(matrix)
    with pytest.raises(DataError, match="eliminate_zeros"):
        RatingLog.from_scipy(matrix, scale="1,5")
    log = RatingLog.from_scipy(matrix, scale="0,5")
    assert log.ratings.tolist() == [0, 3, 5]
    assert log.n_users == 3


def test_matrices_that_make_no_log():
    with pytest.raises(DataError, match="found ndarray"):
        RatingLog.from_scipy(np.eye(2))
    with pytest.raises(DataError, match="needs 2 distinct user ids"):
        RatingLog.from_scipy(sparse.csr_array(np.eye(2)), user_ids=[1], scale="1,5")


def test_matrix_ids_may_come_unsorted():
    log = RatingLog.from_scipy(sparse.csr_array([[1, 2], [0, 3]]), user_ids=["z", "a"], catalogue=[9, 4])
    assert log.to_pandas().values.tolist() == [["a", 4, 3], ["z", 4, 2], ["z", 9, 1]]


def test_select_users_keeps_the_catalogue_and_the_features(log):
    features = FeatureTable.from_array([[1], [2], [3]], ("age",))
    chosen = log.with_features(user_features=features).select_users([2, 1])
    assert chosen.users.ids.tolist() == [20, 30]
    assert chosen.catalogue == log.catalogue
    assert chosen.indptr.tolist() == [0, 0, 2]
    assert chosen.ratings.tolist() == [2, 5]
    assert chosen.timestamps.tolist() == [3, 1]
    assert chosen.user_features.values.ravel().tolist() == [2, 3]
    with pytest.raises(DataError, match="distinct and from 0 to 2"):
        log.select_users([3])


def test_select_ratings_keeps_all_users(log):
    chosen = log.select_ratings(np.array([False, True, True, False]))
    assert chosen.indptr.tolist() == [0, 1, 1, 2]
    assert chosen.to_pandas()[["user", "item"]].values.tolist() == [[10, "d"], [30, "a"]]
    with pytest.raises(DataError, match="4 truth values"):
        log.select_ratings(np.array([1, 0, 1, 0]))


def test_a_larger_catalogue_moves_the_indices_and_not_the_ratings(log):
    features = FeatureTable.from_array([[1], [2], [3], [4]])
    larger = log.with_features(item_features=features).with_catalogue(["aa", "a"])
    assert larger.catalogue.ids.tolist() == ["a", "aa", "b", "c", "d"]
    pd.testing.assert_frame_equal(larger.to_pandas(), log.to_pandas())
    assert larger.item_features.values.ravel().tolist() == [1, 0, 2, 3, 4]
    assert larger.notes[-1] == "1 items without features: zeros"


def test_reindexing_never_drops_a_rating(log):
    fewer = log.reindex(Vocabulary.from_ids([10, 30]), log.catalogue)
    assert fewer.indptr.tolist() == [0, 2, 4]
    with pytest.raises(DataError, match="user 30 has ratings"):
        log.reindex(Vocabulary.from_ids([10, 20]), log.catalogue)


def test_arrays_that_are_not_sorted_rows_are_refused(log):
    parts = {"users": log.users, "catalogue": log.catalogue, "scale": log.scale, "ratings": log.ratings}
    with pytest.raises(DataError, match="rising"):
        RatingLog(indptr=log.indptr, items=np.array([3, 1, 0, 2]), **parts)
    with pytest.raises(DataError, match="from 0 to 3"):
        RatingLog(indptr=log.indptr, items=np.array([1, 4, 0, 2]), **parts)
    with pytest.raises(DataError, match="indptr"):
        RatingLog(indptr=log.indptr[:-1], items=log.items, **parts)


def test_features_must_fit(log):
    with pytest.raises(DataError, match="user features must have 3 rows, one a user; found 1"):
        log.with_features(user_features=FeatureTable.from_array([[1]]))
    with pytest.raises(DataError, match="unique"):
        FeatureTable(("a", "a"), np.ones((1, 2)))
    with pytest.raises(DataError, match="one column for each of 2 names"):
        FeatureTable(("a", "b"), np.ones((1, 3)))
    with pytest.raises(DataError, match="finite"):
        FeatureTable.from_array([[np.nan]])
