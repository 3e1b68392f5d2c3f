"""Delimited text: what it may look like, and what is said, with the line, where it is wrong."""

import gzip

import numpy as np
import pytest

from mnar_recsys.data import RatingLog, RatingScale
from mnar_recsys.errors import ConfigError, DataError

HEADER = "user,item,rating\n"
GOOD = HEADER + "1,10,5\n2,20,1\n1,20,3\n"


@pytest.fixture
def write(tmp_path):
    def write_file(content, name="ratings.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write_file


def refusal(path, **options):
    with pytest.raises(DataError) as caught:
        RatingLog.read_csv(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message.removeprefix(str(path))


def rows_of(log):
    return log.to_pandas()[["user", "item", "rating"]].values.tolist()


@pytest.mark.parametrize(
    "content",
    [
        GOOD,
        GOOD.replace(",", "\t"),
        GOOD.replace(",", ";"),
        GOOD.replace(",", "|"),
        GOOD.replace("\n", "\r\n"),
        "\ufeff" + GOOD,
        GOOD.rstrip("\n"),
        GOOD + "\n\n  \n",
        HEADER + "1,10,5\n   \n2,20,1\n\t\n1,20,3\n",
        "\n" + GOOD,
        GOOD.replace(",", ", "),
        '"user","item","rating"\n"1","10","5"\n2,20,+1\n1,20,3e0\n',
        "item,x,rating,user\n10,a,5,1\n20,,1,2\n20,é,3,1\n",
        'rating,user,item,review\n5,1,10,"two\nlines, ""quoted"""\n1,2,20,\n3,1,20,-\n',
    ],
)
def test_the_same_ratings_however_they_are_written(write, content):
    log = RatingLog.read_csv(write(content))
    assert rows_of(log) == [[1, 10, 5], [1, 20, 3], [2, 20, 1]]
    assert log.users.ids.dtype == np.int64
    assert log.scale == RatingScale(1, 5, 1)


def test_a_compressed_file(write):
    log = RatingLog.read_csv(write(gzip.compress(GOOD.encode()), "ratings.csv.gz"))
    assert log.n_ratings == 3


def test_other_columns_are_noted_and_a_timestamp_is_used(write):
    log = RatingLog.read_csv(write("user,item,rating,genre,timestamp\n1,10,5,x,7\n2,20,1,y,3.5\n"))
    assert log.timestamps.tolist() == [7, 3.5]
    assert log.notes[0] == "ignored columns: genre"


@pytest.mark.parametrize(
    "dates",
    [
        ("1970-01-02", "1970-01-01 00:01:00"),
        ("1970-01-02T00:00:00Z", "1970-01-01T00:01:00Z"),
        ("1970-01-02T01:00+01:00", "1970-01-01 00:01"),
    ],
)
def test_dates_become_seconds(write, dates):
    log = RatingLog.read_csv(write(f"user,item,rating,timestamp\n1,10,5,{dates[0]}\n2,20,1,{dates[1]}\n"))
    assert log.timestamps.tolist() == [86400, 60]


def test_a_timestamp_with_empty_cells_is_ignored_and_noted(write):
    log = RatingLog.read_csv(write("user,item,rating,timestamp\n1,10,5,7\n2,20,1,\n"))
    assert log.timestamps is None
    assert "timestamp ignored: it is empty in 1 of 2 rows" in log.notes[0]


def test_columns_by_name(write):
    log = RatingLog.read_csv(write("u,i,r,when\n1,10,5,7\n2,20,1,3\n"), columns=("u", "i", "r", "when"))
    assert log.timestamps.tolist() == [7, 3]
    with pytest.raises(ConfigError, match="columns must name"):
        RatingLog.read_csv(write(GOOD), columns=("user", "item"))


def test_ids_of_digits_with_leading_zeros_are_text(write):
    log = RatingLog.read_csv(write(HEADER + "007,1,5\n12,2,4\n"))
    assert log.users.ids.tolist() == ["007", "12"]
    assert log.catalogue.ids.tolist() == [1, 2]
    assert any("'007' beside '12'" in note for note in log.notes)


def test_ids_as_text_where_asked(write):
    path = write(HEADER + "1,a,5\n2,7,4\n")
    assert RatingLog.read_csv(path, ids="text").catalogue.ids.tolist() == ["7", "a"]
    with pytest.raises(ConfigError, match="'number'"):
        RatingLog.read_csv(path, ids="number")


def test_a_test_file_is_read_like_its_training_log(write):
    train = RatingLog.read_csv(write(HEADER + "007,1,5\n12,2,1\n13,2,2\n"))
    path = write(HEADER + "12,1,3\n13,2,2\n", "test.csv")
    test = RatingLog.read_csv(path, like=train)
    assert test.users.ids.tolist() == ["12", "13"]
    assert test.scale == train.scale
    message = refusal(write(HEADER + "12,x,3\n13,y,2\n", "test.csv"), like=train)
    assert message.startswith(", line 2, column item: found the id 'x', expected a whole number")
    with pytest.raises(ConfigError, match="give one of them"):
        RatingLog.read_csv(path, like=train, ids="text")


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("", ["is empty"]),
        ("\n \n", ["only blank lines"]),
        (HEADER, ["no rows"]),
        (GOOD.encode("utf-16"), ["UTF-16", "UTF-8"]),
        (b"PAR1" + bytes(20), ["Parquet"]),
        (b"PK\x03\x04rest", ["Excel"]),
        (gzip.compress(GOOD.encode(), mtime=0), [".gz"]),
        (b"user,item\0rating\n", [", line 1", "zero byte"]),
        (GOOD.encode() + b"M\xfcller,3,4\n", [", line 5", "UTF-8"]),
        (b"user,item,rating,\xfc\n1,2,3,4\n", [", line 1", "byte 0xfc", "UTF-8"]),
        ("user,item,stars\n1,2,3\n", [", line 1", "column rating missing", "user, item, stars", "--columns"]),
        ("1,2,5\n2,2,4\n", [", line 1", "found the data 1, 2, 5", "header", "user,item,rating"]),
        ("user,item,rating,user\n1,2,3,4\n", [", line 1", "'user' occurs 2 times"]),
        (GOOD + "3,4\n5,6,1\n", [", line 5", "found 2 cells", "expected 3", "Complete or remove"]),
        (GOOD + "3,4", [", line 5", "found 2 cells", "last line", "truncated"]),
        (GOOD + "3,4,5,6\n1,1,1\n", [", line 5", "found 4 cells", "expected 3", "double quotes"]),
        (GOOD + '"3,4,5\n1,1,1\n', [", line 5", "found 1 cell,", "closed on line 6 or never"]),
        (GOOD + "\n\n3,4,good\n", [", line 7, column rating", "'good'", "number"]),
        (GOOD + "3,4,\n", [", line 5, column rating", "an empty cell"]),
        (GOOD + "3,4,1_0\n", [", line 5, column rating", "'1_0'"]),
        (GOOD + "3,4,nan\n", [", line 5, column rating", "'nan'", "finite"]),
        (GOOD + "3,4,-inf\n", [", line 5, column rating", "'-inf'", "finite"]),
        (GOOD + "3,,4\n", [", line 5, column item", "item id is empty"]),
        (GOOD + " ,3,4\n", [", line 5, column user", "user id is empty"]),
        (GOOD + "a,3,4\n", [", line 5, column user", "'a'", "--ids text"]),
        (
            GOOD + "1,10,4\n9,9,4\n9,9,4\n",
            [", line 5: user 1, item 10", "line 2", "2 such repeats", "--duplicates last", "mean"],
        ),
        (HEADER + "1,1,5\n1,2,4\n", ["all ratings are of one user, 1"]),
        (HEADER + "1,1,5\n2,1,4\n", ["all ratings are of one item, 1"]),
        (HEADER + "1,1,5\n2,2,5\n", ["only the rating 5", "--scale"]),
        (
            "user,item,rating,timestamp\n1,1,5,1\n2,2,4,noon\n",
            [", line 3, column timestamp", "'noon'", "ISO date"],
        ),
        ("user,item,rating,timestamp\n1,1,5,dawn\n2,2,4,noon\n", [", line 2, column timestamp", "'dawn'"]),
        (
            "user,item,rating,timestamp\n1,1,5,2020-01-01\n2,2,4,noon\n",
            [", line 3, column timestamp", "'noon'"],
        ),
        (HEADER + '1,"a\nb",5\n2,c,4\n', [", line 2, column item", "unclosed quote"]),
    ],
)
def test_what_is_wrong_is_said_with_its_line(write, content, parts):
    message = refusal(write(content))
    for part in parts:
        assert part in message


def test_a_rating_off_the_given_scale_names_its_line(write):
    message = refusal(write('user,item,rating,x\n1,1,5,"\n"\n2,2,9,\n'), scale="1,5")
    assert message.startswith(", line 4: found rating 9, expected one of 5 levels from 1 to 5")


def test_an_absent_file_a_folder_and_a_cut_archive(write, tmp_path):
    assert "does not exist" in refusal(tmp_path / "none.csv")
    write(GOOD, "a.csv")
    write("x", "notes.md")
    message = refusal(tmp_path)
    assert "is a folder" in message
    assert message.endswith("Name one of a.csv")
    text = HEADER + "".join(f"{user},{item},{(user * item) % 5}\n" for user in range(99) for item in range(50))
    whole = gzip.compress(text.encode())
    assert "truncated" in refusal(write(whole[: len(whole) // 2], "cut.csv.gz"))
    assert "truncated" in refusal(write(b"no archive", "fake.csv.gz"))


def test_a_long_file_is_cut_at_the_same_rows_as_its_error_is_sought(write):
    lines = [f"{row % 997},{row // 997},{row % 5 + 1}" for row in range(60000)]
    lines[40000] += "x"
    lines[20000] = "\n" + lines[20000]
    message = refusal(write(HEADER + "\n".join(lines)))
    assert message.startswith(", line 40003, column rating: found '1x'")


def test_policies_reach_the_reader(write):
    content = HEADER + "1,1,5\n2,2,1\n1,1,2\n"
    assert rows_of(RatingLog.read_csv(write(content), duplicates="last"))[0] == [1, 1, 2]
    assert rows_of(RatingLog.read_csv(write(content), duplicates="mean"))[0] == [1, 1, 4]
