"""The paper's mask, what a file must be, and the rows of tables 1 and A1."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from evaluation.paper.printed import DATA_SETS, TABLE_1, TABLE_A1, column_of
from evaluation.paper.self_masked import SelfMasked, read_complete
from evaluation.paper.uci import JOINT, METHODS, compare
from mnar_recsys.errors import DataError


def frame(n: int = 60, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, 2)) @ rng.normal(size=(2, 5)) + 0.2 * rng.normal(size=(n, 5))
    return pd.DataFrame(10 + 3 * values, columns=list("abcde")).assign(label="x")


def write(path: Path, table: pd.DataFrame) -> Path:
    table.to_csv(path, index=False)
    return path


def test_the_mask_is_of_the_first_half_above_the_mean(tmp_path: Path) -> None:
    table = frame()
    data = SelfMasked.of(read_complete(write(tmp_path / "t.csv", table)))
    assert data.complete.shape == (60, 5)
    assert data.complete.mean(0) == pytest.approx(np.zeros(5))
    assert data.complete.std(0) == pytest.approx(np.ones(5))
    values = table[list("abcde")].to_numpy()
    np.testing.assert_array_equal(~data.observed[:, :2], (values > values.mean(0))[:, :2])
    assert data.observed[:, 2:].all()


def test_errors_are_of_hidden_values_alone() -> None:
    data = SelfMasked.of(frame()[list("abcde")].to_numpy())
    assert data.rmse(np.where(data.observed, 99.0, data.complete + 0.5)) == pytest.approx(0.5)


def test_the_target_is_the_last_column_unless_named(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", frame().drop(columns="label"))
    assert read_complete(path).shape == (60, 4)
    np.testing.assert_array_equal(read_complete(path, "a"), pd.read_csv(path)[list("bcde")])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"b": "word"}, "column 'b': not numeric"),
        ({"b": 1.0}, "column 'b': always 1"),
        ({"b": [np.nan, *range(59)]}, "row 2, column 'b': not a finite number"),
    ],
)
def test_tables_that_cannot_be_masked(tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_complete(write(tmp_path / "t.csv", frame().assign(**change)))


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.csv: does not exist. Check the path"):
        read_complete(tmp_path / "absent.csv")
    with pytest.raises(DataError, match="no column 'z'; found a, b"):
        read_complete(write(tmp_path / "t.csv", frame()), "z")
    with pytest.raises(DataError, match="needs 2 features"):
        read_complete(write(tmp_path / "t.csv", frame()[["a", "label"]]))


def test_every_row_of_the_paper_has_its_method() -> None:
    assert set(TABLE_1) == set(METHODS)
    assert set(TABLE_A1) == {name for name in JOINT if name not in ("ppca", "miwae")}
    assert all(len(row) == len(DATA_SETS) for row in (*TABLE_1.values(), *TABLE_A1.values()))
    assert DATA_SETS[column_of((1599, 11)) or 0] == "red wine"
    assert column_of((10, 2)) is None


def test_rows_of_the_table() -> None:
    data = SelfMasked.of(frame()[list("abcde")].to_numpy())
    methods = ("mean", "mice", "low_rank_joint", "ppca", "notmiwae_ppca_known_sign")
    rows = {row.method: row for row in compare(data, methods, runs=2, iterations=30, draws=5_000)}
    assert list(rows) == list(methods)
    assert all(len(row.rmse) == 2 and np.isfinite(row.rmse).all() for row in rows.values())
    naive = np.where(data.observed, data.complete, np.nan)
    assert rows["mean"].rmse[0] == pytest.approx(data.rmse(np.where(data.observed, naive, np.nanmean(naive, 0))))
    assert rows["ppca"].rmse == pytest.approx(rows["ppca"].rmse_paper, abs=0.02)  # no mechanism, no factor
    assert rows["ppca"].accuracy is None
    assert all(0 <= share <= 1 for share in rows["notmiwae_ppca_known_sign"].accuracy or ())
