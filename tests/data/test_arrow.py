"""Logs from frames that speak Arrow."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from mnar_recsys.data import RatingLog
from mnar_recsys.data.arrow import ArrowColumns, read_stream
from mnar_recsys.errors import DataError

GOOD = {"user": [1, 2, 1], "item": ["b", "a", "a"], "rating": [5, 1, 3], "timestamp": [30.0, 10.0, 20.0]}


class Stream:
    """Nothing but the interface."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.table.__arrow_c_stream__(requested_schema)


def polars_frame(columns):
    return pytest.importorskip("polars").DataFrame(columns)


@pytest.mark.parametrize("make", [pa.table, lambda columns: Stream(pa.table(columns)), pd.DataFrame, polars_frame])
def test_every_frame_makes_the_log_that_pandas_makes(make):
    log = RatingLog.from_arrow(make(GOOD | {"extra": [0, 0, 0]}))
    expected = RatingLog.from_pandas(pd.DataFrame(GOOD))
    pd.testing.assert_frame_equal(log.to_pandas(), expected.to_pandas())
    assert log.notes[0] == "ignored columns: extra"


def test_polars_categories_dates_and_other_names():
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame(
        {
            "who": polars.Series(["u", "v", "u"], dtype=polars.Enum(["u", "v", "never"])),
            "what": polars.Series(["b", "a", "a"], dtype=polars.Categorical),
            "stars": polars.Series([5, 1, 3], dtype=polars.UInt8),
            "when": polars.Series([1_000, 2_500, 3_000]).cast(polars.Datetime("ms", "UTC")),
        }
    )
    log = RatingLog.from_arrow(polars.concat([frame[:1], frame[1:]]), "who", "what", "stars", "when")
    assert log.users.ids.tolist() == ["u", "v"]  # a category without a rating is nobody
    assert log.catalogue.ids.tolist() == ["a", "b"]
    assert log.timestamps.tolist() == [3, 1, 2.5]


def test_numbers_are_read_where_they_lie():
    table = pa.table({"rating": np.array([1.0, 2.0, 3.0])})
    values = ArrowColumns("the frame", read_stream(Stream(table))).numbers("rating")
    assert values.__array_interface__["data"][0] == table["rating"].chunk(0).buffers()[1].address


@pytest.mark.parametrize(
    ("frame", "parts"),
    [
        ({"user": [1]}, ["Arrow stream interface", "found dict"]),
        (
            pa.table({"user": [1, 2], "item": [1, 2]}),
            ["column 'rating' expected once", "from_arrow(frame, "],
        ),
        (pa.table(GOOD | {"user": [1, None, 1]}), ["the frame, row 2, column user: is empty"]),
        (pa.table(GOOD | {"user": [1.5, 2.0, 1.0]}), ["the frame, column user: found double"]),
        (pa.table(GOOD | {"rating": ["5", "1", "3"]}), ["column rating: found string, expected numbers"]),
        (pa.table(GOOD | {"rating": [5.0, float("nan"), 3.0]}), ["row 2, column rating: found nan"]),
        (pa.table(GOOD | {"user": [1, 1, 1], "item": ["a", "b", "c"]}), ["the frame: all ratings are of one user"]),
        (pa.table(GOOD).slice(0, 0), ["the frame: has columns but no rows"]),
    ],
)
def test_frames_that_make_no_log(frame, parts):
    with pytest.raises(DataError) as caught:
        RatingLog.from_arrow(frame)
    assert all(part in str(caught.value) for part in parts), caught.value
