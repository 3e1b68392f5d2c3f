"""``train --eligible``: the pairs on offer, kept in the model folder, and the file that contradicts the log."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from commands import QUICK, Cli

from mnar_recsys.model_folder import read_model


@pytest.fixture
def pairs(ratings: Path) -> pd.DataFrame:
    """Every rated pair, every item but the last for all users, and two pairs of a new user and a new item."""
    rated = pd.read_csv(ratings)[["user", "item"]]
    users, items = (part.ravel() for part in np.meshgrid(np.arange(1, 41), np.arange(1, 12)))
    frame = pd.DataFrame({"user": users, "item": items})
    return pd.concat([rated, frame, pd.DataFrame({"user": [1, 900], "item": [70, 1]})]).drop_duplicates()


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet"])
def test_the_offer_is_in_the_model_folder(
    cli: Cli, ratings: Path, pairs: pd.DataFrame, tmp_path: Path, suffix: str
) -> None:
    path, out = tmp_path / f"offer.{suffix}", tmp_path / "m"
    if suffix == "parquet":
        pairs.to_parquet(path)
    else:
        pairs.assign(shown="yes").to_csv(path, index=False, sep="\t" if suffix == "tsv" else ",")
    result = cli("train", ratings, "--out", out, "--eligible", path, *QUICK)
    assert result.code == 0, result.err
    assert f"{len(pairs):,} of {41 * 13:,} cells were on offer; 1 users and 1 items without ratings added" in result.err
    fitted = read_model(out)
    rows, items = np.divmod(fitted.log.eligible.cells, fitted.log.n_items)
    found = set(zip(fitted.log.users.ids[rows], fitted.log.catalogue.ids[items], strict=True))
    assert found == set(pairs.itertuples(index=False, name=None))
    assert f"{len(pairs):,} cells were on offer" in (out / "card.md").read_text()
    (out / "eligible.parquet").unlink()
    assert "do not belong together" in cli("predict", out, "--all", "--out", tmp_path / "p.csv").error()


def test_another_offer_is_another_run(cli: Cli, ratings: Path, pairs: pd.DataFrame, tmp_path: Path) -> None:
    pairs.to_csv(tmp_path / "a.csv", index=False)
    pairs.iloc[:-1].to_csv(tmp_path / "b.csv", index=False)
    out = tmp_path / "m"
    assert cli("train", ratings, "--out", out, "--eligible", tmp_path / "a.csv", *QUICK).code == 0
    line = cli("train", ratings, "--out", out, "--eligible", tmp_path / "b.csv", "--resume", *QUICK).error()
    assert "no checkpoint of a run with these ratings" in line


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, ["does not exist"]),
        ("user,thing\n1,2\n", ["column item missing"]),
        ("user,item\n1,\n", ["line 2, column item", "empty"]),
        ("user,item\nbob,1\n", ["line 2, column user", "'bob'"]),
        ("user,item\n1,1\n", ["every rated cell must be among the eligible ones", "for example user 1", "Add these"]),
    ],
)
def test_bad_offers(cli: Cli, ratings: Path, tmp_path: Path, content: str | None, expected: list[str]) -> None:
    path = tmp_path / "offer.csv"
    if content is not None:
        path.write_text(content)
    line = cli("train", ratings, "--out", tmp_path / "m", "--eligible", path, *QUICK).error()
    assert str(path) in line
    assert all(part in line for part in expected), line
    assert not (tmp_path / "m").exists()
