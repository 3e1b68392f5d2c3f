"""RecBole's ``.inter`` files: what is written comes back, from our reader and from the call that RecBole makes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mnar_recsys.data import RatingLog, Split, add_survey, read_inter_split, write_inter, write_inter_split
from mnar_recsys.errors import DataError

USERS = np.array(["ann", "ann", "böb", "c d", "böb"], dtype=object)
ITEMS = np.array([7, 3, 7, 12, 3])


def log_with(users: object = USERS, ratings: object = (1.0, 5.0, 4.0, 2.0, 3.0), **options: object) -> RatingLog:
    return RatingLog.from_arrays(users, ITEMS, ratings, **{"scale": "1,5", **options})


def same(one: RatingLog, other: RatingLog) -> bool:
    return (
        one.users == other.users
        and one.catalogue == other.catalogue
        and one.scale == other.scale
        and np.array_equal(one.cells, other.cells)
        and np.array_equal(one.ratings, other.ratings)
    )


def test_a_log_comes_back_with_ids_ratings_and_times(tmp_path: Path) -> None:
    times = np.array([881250949.0, 2.5, 3.0, 4.0, 5.0])
    log = log_with(timestamps=times)
    write_inter(log, tmp_path / "a.inter")
    header = (tmp_path / "a.inter").read_text(encoding="utf-8").splitlines()[0]
    assert header == "user_id:token\titem_id:token\trating:float\ttimestamp:float"
    back = RatingLog.read_inter(tmp_path / "a.inter")
    assert same(back, log)
    np.testing.assert_array_equal(back.timestamps, log.timestamps)


def test_ratings_of_a_real_scale_come_back_to_the_last_bit(tmp_path: Path) -> None:
    log = log_with(ratings=np.random.default_rng(0).random(5), scale="0,1,real")
    write_inter(log, tmp_path / "a.inter")
    back = RatingLog.read_inter(tmp_path / "a.inter", scale="0,1,real")
    np.testing.assert_array_equal(back.ratings, log.ratings)


def test_the_parts_of_a_split_come_back_in_their_roles(tmp_path: Path) -> None:
    whole = log_with()
    keep = np.array([True, True, False, True, True])
    split = Split(mnar_train=whole.select_ratings(keep), mnar_valid=whole.select_ratings(~keep), mcar_test=whole)
    paths = write_inter_split(split, tmp_path, "toy")
    assert {part: path.relative_to(tmp_path).as_posix() for part, path in paths.items()} == {
        part: f"toy/toy.{part}.inter" for part in ("train", "valid", "test")
    }
    back = read_inter_split(tmp_path, "toy", scale="1,5")
    for role in ("mnar_train", "mnar_valid", "mcar_test"):
        assert same(getattr(back, role), getattr(split, role))
    write_inter_split(Split(mnar_train=whole), tmp_path, "alone")
    alone = read_inter_split(tmp_path, "alone")
    assert same(alone.mnar_train, whole)
    assert alone.mnar_valid is alone.mcar_test is None


@pytest.mark.parametrize("odd", ["NA", "null", "nan", "None", "a\tb", '"a', "a\nb", " a", "a "])
def test_an_id_that_would_be_changed_is_refused_by_name(tmp_path: Path, odd: str) -> None:
    log = log_with(np.array(["ann", "ann", "bob", odd, "bob"], dtype=object))
    with pytest.raises(DataError, match="does not come back") as caught:
        write_inter(log, tmp_path / "a.inter")
    assert repr(odd) in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("usual", ["a b", "007", "1e5", "é", "#1", "a,b", "-", "'x'"])
def test_other_ids_survive_the_call_that_recbole_makes(tmp_path: Path, usual: str) -> None:
    log = log_with(np.array(["ann", "ann", "bob", usual, "bob"], dtype=object))
    write_inter(log, tmp_path / "a.inter")
    types = {"user_id:token": str, "item_id:token": str, "rating:float": np.float64}
    read = pd.read_csv(tmp_path / "a.inter", delimiter="\t", dtype=types, engine="python")
    assert sorted(read["user_id:token"]) == sorted(log.users.ids[log.rows])
    assert read["rating:float"].tolist() == log.values.tolist()


def test_what_the_files_cannot_say_is_refused(tmp_path: Path) -> None:
    log = log_with()
    labels = RatingLog.from_arrays(np.array(["ann"], dtype=object), [12], [2.0], scale="1,5", user_ids=log.users.ids,
                                   catalogue=log.catalogue.ids)  # fmt: skip
    with pytest.raises(DataError, match=r"log\.chosen"):
        write_inter(add_survey(log, labels), tmp_path / "a.inter")
    split = Split(mnar_train=log, mcar_labels=labels)
    with pytest.raises(DataError, match="1 labels"):
        write_inter_split(split, tmp_path, "toy")
    assert not list(tmp_path.iterdir())
    assert set(write_inter_split(replace(split, mcar_labels=None), tmp_path, "toy")) == {"train"}


def test_a_split_without_a_training_part_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"toy\.train\.inter"):
        read_inter_split(tmp_path, "toy")
