import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnar_recsys.data import Vocabulary
from mnar_recsys.data.ids import kind_of_text
from mnar_recsys.errors import DataError


def test_ids_are_sorted_unique_and_read_only():
    vocabulary = Vocabulary.from_ids([30, -1, 30, 7])
    assert vocabulary.ids.tolist() == [-1, 7, 30]
    with pytest.raises(ValueError, match="read-only"):
        vocabulary.ids[0] = 5


def test_unknown_ids_have_index_minus_one():
    vocabulary = Vocabulary.from_ids(["b", "a", "007"])
    assert vocabulary.index(["a", "z", "007"]).tolist() == [1, -1, 0]
    assert Vocabulary.from_ids([3, 5]).index([5, 4, 99, -2]).tolist() == [1, -1, -1, -1]


@pytest.mark.parametrize("known", [[1, 2], ["1", "2"]])
def test_ids_of_the_other_kind_are_refused_rather_than_unknown(known):
    other = ["1"] if isinstance(known[0], int) else [1]
    with pytest.raises(DataError, match="They would all be unknown"):
        Vocabulary.from_ids(known).index(other)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1, "a"], r"1 \(int\) at position 0 and 'a' \(str\) at position 1"),
        ([1, 2.5], r"2\.5 \(float\) at position 1"),
        (np.array([1.0, 2.0]), "found float64"),
        ([True, False], "bool"),
        (np.array([True, False]), "found bool"),
        (["a", None], "position 1: the user id is empty"),
        (["a", ""], "position 1: the user id is empty"),
        (pd.Series(["a", None, "b"]), "position 1: the user id is empty"),
        ([1, None], "position 1: the user id is empty"),
        ([2**70, 1], "must fit 64 bits"),
        (np.array([1, 2**63], dtype=np.uint64), "position 1: user id 9223372036854775808 does not fit"),
        ([], "found none"),
        (np.ones((2, 2), dtype=int), "one-dimensional"),
    ],
)
def test_ids_that_cannot_be_are_refused_with_their_place(values, message):
    with pytest.raises(DataError, match=message):
        Vocabulary.from_ids(values, "user")


@pytest.mark.parametrize(
    "values", [[2, 1], np.array([2, 1], dtype=np.uint8), pd.Series([2, 1], dtype="Int64"), pd.Series([2, 1])]
)
def test_whole_numbers_of_any_container_become_int64(values):
    assert Vocabulary.from_ids(values).ids.dtype == np.int64


@pytest.mark.parametrize("values", [["b", "a"], np.array(["b", "a"]), pd.Series(["b", "a"], dtype="category")])
def test_text_of_any_container_becomes_str(values):
    vocabulary = Vocabulary.from_ids(values)
    assert vocabulary.is_text
    assert vocabulary.ids.tolist() == ["a", "b"]


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1) | st.lists(st.text(min_size=1), min_size=1))
def test_encoding_and_taking_give_back_the_ids(values):
    vocabulary, codes = Vocabulary.encode(values)
    assert vocabulary.take(codes).tolist() == values
    assert np.array_equal(vocabulary.index(values), codes)


def test_take_refuses_an_index_that_would_wrap_around():
    with pytest.raises(DataError, match="from 0 to 1; found -1"):
        Vocabulary.from_ids([1, 2]).take([-1])


def test_union_and_equality():
    one, two = Vocabulary.from_ids([1, 2]), Vocabulary.from_ids([2, 3])
    assert one.union(two).ids.tolist() == [1, 2, 3]
    assert one == Vocabulary.from_ids([2, 1, 1])
    assert len({one, Vocabulary.from_ids([1, 2]), two}) == 2
    assert Vocabulary.from_ids(["1", "2"]) != one
    with pytest.raises(DataError, match="whole numbers"):
        one.union(Vocabulary.from_ids(["x"]))


def test_unsorted_ids_are_refused():
    with pytest.raises(DataError, match="from_ids"):
        Vocabulary(np.array([2, 1]))


@pytest.mark.parametrize(
    ("ids", "kind"),
    [
        (["1", "-20", "0"], "integer"),
        (["007", "12"], "text"),
        (["a", "007"], "text"),
        (["-0", "+1"], "text"),
        (["9223372036854775807", "-9223372036854775808"], "integer"),
        (["9223372036854775808", "1"], "text"),
        (["12", "a"], None),
        (["007", "12", "a"], None),
    ],
)
def test_what_a_text_column_of_ids_holds(ids, kind):
    assert kind_of_text(np.array(ids, dtype=object))[0] == kind
