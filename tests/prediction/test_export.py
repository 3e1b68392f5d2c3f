"""Prediction tables: columns, ids, streaming, whole files only, and the best unrated items."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from factories import log_of, random_matrix, tiny_model

from mnar_recsys.data import RatingLog, RatingScale
from mnar_recsys.errors import ConfigError, DataError
from mnar_recsys.prediction import Predictor, pair_blocks
from mnar_recsys.prediction.export import export_predictions
from mnar_recsys.prediction.pair_blocks import AllItems, all_pairs, given_pairs, top_pairs

MATRIX = random_matrix(25, 7, seed=9)
MATRIX[2] = 2.0  # someone with nothing left to recommend
COLUMNS = ["user", "item", "mean", "sd", "mean_se", "q05", "q50", "q95", "cold"]


@pytest.fixture(scope="module")
def log() -> RatingLog:
    return log_of(MATRIX)


@pytest.fixture(scope="module")
def predictor(log: RatingLog) -> Predictor:
    return Predictor(tiny_model(log, missing="shared", user_activity=True), log, draws=64)


def test_columns_and_ids(tmp_path: Path, log: RatingLog, predictor: Predictor) -> None:
    users, items = np.array(["u0003", "nobody", "u0001"], dtype=object), np.array([4, 0, 99])
    blocks = given_pairs(log, users, items, strict=False)
    export_predictions(tmp_path / "p.parquet", predictor, blocks, levels=True, propensity=True)
    table = pd.read_parquet(tmp_path / "p.parquet")
    assert list(table.columns) == [*COLUMNS, "p1", "p2", "p3", "propensity"]
    assert table["user"].tolist() == users.tolist()
    assert table["item"].tolist() == items.tolist()
    assert table["cold"].tolist() == [False, True, True]
    expected = predictor.predict(np.array([3, -1, 1]), np.array([4, 0, -1]), probabilities=(0.05, 0.5, 0.95))
    for name in ("mean", "sd", "mean_se", "propensity"):
        np.testing.assert_allclose(table[name], getattr(expected, name), rtol=1e-6)
    np.testing.assert_allclose(table[["q05", "q50", "q95"]].to_numpy().T, expected.quantiles)
    np.testing.assert_allclose(table[["p1", "p2", "p3"]].sum(axis=1), 1, rtol=1e-5)

    export_predictions(tmp_path / "p.csv", predictor, given_pairs(log, users, items, strict=False))
    text = pd.read_csv(tmp_path / "p.csv")
    assert list(text.columns) == COLUMNS
    assert text["user"].tolist() == users.tolist()
    np.testing.assert_allclose(text["mean"], table["mean"], rtol=1e-5)


def test_streaming_equals_one_shot(
    tmp_path: Path, log: RatingLog, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_predictions(tmp_path / "one.parquet", predictor, all_pairs(log))
    written: list[int] = []
    monkeypatch.setattr(pair_blocks, "_PAIRS_AT_ONCE", 20)
    export_predictions(tmp_path / "many.parquet", predictor, all_pairs(log), on_pairs=written.append)
    assert len(written) == 13
    assert sum(written) == 25 * 7
    one, many = (pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("one", "many"))
    pd.testing.assert_frame_equal(one, many, rtol=1e-3, atol=1e-5)
    assert not one.duplicated(["user", "item"]).any()
    assert one["user"].nunique() == 25


def test_a_failure_leaves_the_old_file_and_no_other(tmp_path: Path, log: RatingLog, predictor: Predictor) -> None:
    def broken() -> Iterator[AllItems]:
        yield next(all_pairs(log))
        raise KeyboardInterrupt

    for suffix in ("parquet", "csv"):
        target = tmp_path / f"p.{suffix}"
        target.write_text("old")
        with pytest.raises(KeyboardInterrupt):
            export_predictions(target, predictor, broken())
        assert target.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.csv", "p.parquet"]


def test_nothing_to_write_and_unknown_types_are_refused(tmp_path: Path, log: RatingLog, predictor: Predictor) -> None:
    with pytest.raises(DataError, match="nothing to write"):
        export_predictions(tmp_path / "p.csv", predictor, iter(()))
    with pytest.raises(ConfigError, match=r"unknown file type '\.xlsx'; use \.parquet or \.csv"):
        export_predictions(tmp_path / "p.xlsx", predictor, all_pairs(log))
    real = log_of(MATRIX, RatingScale(1, 3))
    gaussian = Predictor(tiny_model(real, decoder="gaussian", missing="shared"), real, draws=8)
    with pytest.raises(ConfigError, match="needs rating levels"):
        export_predictions(tmp_path / "p.csv", gaussian, all_pairs(real), levels=True)
    assert not list(tmp_path.iterdir())


def test_strict_names_the_first_unknown_pair(log: RatingLog) -> None:
    users = np.array(["u0001", "nobody", "u0002"], dtype=object)
    with pytest.raises(DataError, match=r"pair 2.*'nobody'|'nobody'.*pair 2"):
        list(given_pairs(log, users, np.array([1, 2, 3]), strict=True))
    with pytest.raises(DataError, match="77"):
        list(given_pairs(log, users[[0, 2]], np.array([1, 77]), strict=True))
    assert len(list(given_pairs(log, users[[0, 2]], np.array([1, 2]), strict=True))) == 1


@pytest.mark.parametrize("n", [1, 3, 50])
def test_top_n_is_the_best_of_what_is_unrated(log: RatingLog, predictor: Predictor, n: int) -> None:
    found: dict[int, list[int]] = {}
    for request in top_pairs(log, n):
        block = request.pairs(predictor)
        for user, item in zip(block.users.tolist(), block.items.tolist(), strict=True):
            found.setdefault(user, []).append(item)
    users, items = np.indices(MATRIX.shape).reshape(2, -1)
    mean = predictor.predict(users, items).mean.reshape(MATRIX.shape)
    assert 2 not in found
    for user in set(range(25)) - {2}:
        unrated = np.flatnonzero(np.isnan(MATRIX[user]))
        best = sorted(unrated, key=lambda item, user=user: -mean[user, item])[:n]
        np.testing.assert_allclose(mean[user, found[user]], mean[user, best], rtol=1e-5)
        assert len(set(found[user])) == len(best)
        assert np.isnan(MATRIX[user, found[user]]).all()


def test_top_zero_is_refused(log: RatingLog) -> None:
    with pytest.raises(ConfigError, match="at least 1; found 0"):
        next(top_pairs(log, 0))
