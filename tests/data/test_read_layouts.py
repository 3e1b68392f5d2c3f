"""Parquet and the published layouts, on small files of the same form."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mnar_recsys.data import RatingLog, RatingScale
from mnar_recsys.errors import ConfigError, DataError


def rows_of(log):
    return log.to_pandas()[["user", "item", "rating"]].values.tolist()


def put(folder, name, content):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def parquet(folder, **columns):
    path = folder / "ratings.parquet"
    pq.write_table(pa.table(columns), path)
    return path


GOOD = {"user": [1, 2, 1], "item": ["b", "a", "a"], "rating": [5, 1, 3]}


def test_parquet(tmp_path):
    log = RatingLog.read(parquet(tmp_path, **GOOD, extra=[0, 0, 0]))
    assert rows_of(log) == [[1, "a", 3], [1, "b", 5], [2, "a", 1]]
    assert log.notes[:2] == ("layout: parquet", "ignored columns: extra")


def test_parquet_dates_dictionaries_and_small_types(tmp_path):
    path = parquet(
        tmp_path,
        user=pa.array([7, 8], pa.uint8()),
        item=pa.array(["b", "a"]).dictionary_encode(),
        rating=pa.array([1, 2], pa.decimal128(3, 1)),
        timestamp=pa.array([1_000, 2_500], pa.timestamp("ms", tz="UTC")),
    )
    log = RatingLog.read_parquet(path)
    assert log.timestamps.tolist() == [1, 2.5]
    assert log.catalogue.ids.tolist() == ["a", "b"]


def test_parquet_columns_and_ids_as_text(tmp_path):
    path = parquet(tmp_path, u=[10, 9], i=[1, 2], r=[1, 5])
    log = RatingLog.read_parquet(path, columns=("u", "i", "r"), ids="text")
    assert log.users.ids.tolist() == ["10", "9"]


@pytest.mark.parametrize(
    ("columns", "parts"),
    [
        ({"rating": None}, ["column 'rating' expected once", "user, item", "--columns"]),
        ({"user": [1.0, 2.0, 1.0]}, ["column user: found double", "whole numbers or text"]),
        ({"user": [1, None, 2]}, ["row 2, column user: is empty"]),
        ({"item": ["b", "", "a"]}, ["row 2, column item: the item id is empty"]),
        ({"rating": ["5", "1", "3"]}, ["column rating: found string, expected numbers"]),
        ({"rating": [5, 1, float("nan")]}, ["row 3, column rating: found nan"]),
        ({"rating": [5.0, float("inf"), 1]}, ["row 2, column rating: found inf"]),
        ({"user": [1, 1, 1]}, ["all ratings are of one user"]),
        ({"user": [1, 2, 2], "item": ["a"] * 3}, ["all ratings are of one item"]),
        ({"user": [1, 2, 1], "item": ["a", "b", "a"]}, ["row 3: user 1, item a", "row 1"]),
        (dict.fromkeys(GOOD, pa.array([], pa.int64())), ["no rows"]),
    ],
)
def test_parquet_that_makes_no_log(tmp_path, columns, parts):
    kept = {name: values for name, values in {**GOOD, **columns}.items() if values is not None}
    path = parquet(tmp_path, **kept)
    with pytest.raises(DataError) as caught:
        RatingLog.read(path)
    assert str(caught.value).startswith(str(path))
    for part in parts:
        assert part in str(caught.value)


def test_parquet_off_the_scale_names_its_row(tmp_path):
    with pytest.raises(DataError, match="row 1: found rating 5, expected one of 4 levels"):
        RatingLog.read(parquet(tmp_path, **GOOD), scale="1,4")


def test_truncated_parquet(tmp_path):
    path = parquet(tmp_path, **GOOD)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="not a whole Parquet file"):
        RatingLog.read(path)


def test_recbole(tmp_path):
    header = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    log = RatingLog.read(put(tmp_path, "x.inter", header + '1\t"a\t4\t9\n2\tb\t1\t8\n'))
    assert rows_of(log) == [[1, '"a', 4], [2, "b", 1]]
    assert log.timestamps.tolist() == [9, 8]
    assert log.notes[0] == "layout: recbole"
    path = put(tmp_path, "y.inter", "user_id:token\titem_id:token\tlabel:float\n1\t1\t1\n2\t2\t0\n")
    assert RatingLog.read_inter(path, columns=("user_id", "item_id", "label")).n_ratings == 2
    with pytest.raises(DataError, match="column rating missing; found the columns user_id:token"):
        RatingLog.read(path)


def test_yahoo(tmp_path):
    path = put(tmp_path, "ydata-ymusic-rating-study-v1_0-train.txt", "1\t14\t4\n2\t7\t2\n")
    log = RatingLog.read(path)
    assert rows_of(log) == [[1, 14, 4], [2, 7, 2]]
    assert log.scale == RatingScale(1, 5, 1)
    assert log.notes[0] == "layout: yahoo-r3"
    with pytest.raises(DataError, match="line 3, column rating: found 'x'"):
        RatingLog.read(put(tmp_path, path.name, "1\t14\t4\n2\t7\t2\n3\t3\tx\n"))
    with pytest.raises(DataError, match="line 1: found rating 6"):
        RatingLog.read(put(tmp_path, path.name, "1\t14\t6\n2\t7\t2\n"))


@pytest.fixture
def coat(tmp_path):
    put(tmp_path, "user_item_features/user_features.ascii", "0 1\n1 0\n1 1\n")
    put(tmp_path, "user_item_features/user_features_map.txt", "gender:men\ngender:women")
    put(tmp_path, "user_item_features/item_features.ascii", "0 1\n1 0\n")
    return put(tmp_path, "train.ascii", "0 2 0 \n5 0 0 \n0 0 0 \n")


def test_coat(coat):
    log = RatingLog.read(coat)
    assert rows_of(log) == [[0, 1, 2], [1, 0, 5]]
    assert (log.n_users, log.n_items) == (3, 3)
    assert log.scale == RatingScale(1, 5, 1)
    assert log.user_features.names == ("gender:men", "gender:women")
    assert log.user_features.values.tolist() == [[0, 1], [1, 0], [1, 1]]
    assert log.item_features is None
    assert any("item_features.ascii not attached: it has 2 lines" in note for note in log.notes)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("0 2\n1 0\n0", r"line 3: found 1 entries, expected 2\. The file seems truncated"),
        ("0 2\n1\n0 1", "line 2: found 1 entries, expected 2. Repair"),
        ("0 2\n1 x\n", "line 2, entry 2: found 'x'"),
        ("0 2\n1 nan\n", "line 2, entry 2: found 'nan'"),
        ("0 2\n7 1\n", "line 2, entry 1: found rating 7"),
        ("0 0\n0 0\n", "there is no rating"),
    ],
)
def test_coat_that_makes_no_log(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        RatingLog.read(put(tmp_path, "test.ascii", content))


def test_kuairec(tmp_path):
    content = "user_id,video_id,play_duration,watch_ratio,timestamp\n0,3649,13838,1.273397,1.5e9\n1,5262,7,0.12,\n"
    log = RatingLog.read(put(tmp_path, "small_matrix.csv", content))
    assert log.scale == RatingScale(0.12, 1.273397)
    assert log.catalogue.ids.tolist() == [3649, 5262]
    assert log.notes[0] == "layout: kuairec"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("u.data", "196\t242\t3\t881250949\n186\t302\t1\t891717742\n"),
        ("ratings.dat", "196::242::3::881250949\n186::302::1::891717742\n"),
        ("ratings.csv", "userId,movieId,rating,timestamp\n196,242,3.0,881250949\n186,302,1.0,891717742\n"),
    ],
)
def test_movielens(tmp_path, name, content):
    log = RatingLog.read(put(tmp_path, name, content))
    assert rows_of(log) == [[186, 302, 1], [196, 242, 3]]
    assert log.timestamps.tolist() == [891717742, 881250949]
    assert log.notes[0] == "layout: movielens"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "1::2::3::4\n1::2::3\n2::2::2::2\n",
            r"line 2: found 3 cells, expected 4 \('user::item::rating::timestamp'\)",
        ),
        ("1::2::3::4\n2::2::x::2\n", "line 2, column rating: found 'x'"),
    ],
)
def test_double_colons_keep_their_lines(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        RatingLog.read(put(tmp_path, "ratings.dat", content))


def test_what_has_no_names_takes_no_columns_and_line_numbers_are_no_text(tmp_path, coat):
    for path in (coat, put(tmp_path, "u.data", "1\t2\t3\t4\n")):
        with pytest.raises(ConfigError, match="has no column names"):
            RatingLog.read(path, columns=("a", "b", "c"))
    with pytest.raises(DataError, match="cannot be read as text"):
        RatingLog.read(coat, ids="text")


def test_an_unknown_layout_is_refused_and_a_csv_is_recognised(tmp_path):
    path = put(tmp_path, "anything.txt", "user|item|rating\n1|1|5\n2|2|1\n")
    assert RatingLog.read(path).notes[0] == "layout: csv"
    with pytest.raises(ConfigError, match="yahoo-r3"):
        RatingLog.read(path, layout="netflix")


def test_every_reader_gives_the_same_log(tmp_path):
    frame = pd.DataFrame({"user": [3, 1, 1], "item": [2, 2, 9], "rating": [1.0, 5.0, 4.0]})
    log = RatingLog.from_pandas(frame)
    frame.to_parquet(tmp_path / "a.parquet")
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_csv(tmp_path / "a.tsv.gz", index=False, sep="\t")
    for name in ("a.parquet", "a.csv", "a.tsv.gz"):
        read = RatingLog.read(tmp_path / name)
        assert rows_of(read) == rows_of(log)
        assert np.array_equal(read.indptr, log.indptr)
