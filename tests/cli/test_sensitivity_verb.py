"""``sensitivity`` from the command line."""

from pathlib import Path

import pandas as pd
import pytest
from commands import QUICK, Cli


def test_profile_page_and_verdict(cli: Cli, model: Path, tmp_path: Path) -> None:
    result = cli("sensitivity", model, "--out", tmp_path / "s", "--values", "1,0,-1", "--steps", 2)
    assert result.code == 0, result.err
    rows = pd.read_csv(tmp_path / "s" / "profile.csv")
    assert rows["selection"].tolist() == [-1.0, 0.0, 1.0]
    assert rows["log_likelihood"].max() == 0.0
    assert (rows["law_gap"] >= 0).all()
    assert set(rows["start"]) <= {"fitted", "nearest law", "fresh"}
    shares = rows.filter(like="share_")
    assert shares.shape[1] == 5
    assert shares.sum(axis=1).tolist() == pytest.approx([1.0] * 3, abs=1e-3)
    assert rows["mean_unrated"].between(1, 5).all()
    assert "dentified" in result.out
    page = (tmp_path / "s" / "sensitivity.html").read_text(encoding="utf-8")
    assert "How much of this does the log tell?" in page
    assert page.count("<svg") == 5
    assert page.count("From 200 masks drawn from the fitted model, all 40 users with ratings; 95% intervals.") == 3
    mask = pd.read_csv(tmp_path / "s" / "mask.csv")
    assert mask["check"].value_counts().to_dict() == {"activity": 10, "popularity": 10, "level": 5}
    assert (mask["low"] <= mask["high"]).all()
    assert "Does the model reproduce who rates what? (all 40 users with ratings)" in result.out
    assert result.out.count("eproduced") == 3


@pytest.mark.parametrize("values", ["1", "a,b", "1,1", "0,1e9"])
def test_bad_values(cli: Cli, model: Path, tmp_path: Path, values: str) -> None:
    line = cli("sensitivity", model, "--out", tmp_path / "s", "--values", values).error()
    assert "--values needs two or more numbers" in line
    assert not (tmp_path / "s").exists()


def test_a_model_without_a_slope(cli: Cli, ratings: Path, tmp_path: Path) -> None:
    cli("train", ratings, "--out", tmp_path / "m", "--missing", "ignorable", *QUICK)
    line = cli("sensitivity", tmp_path / "m", "--out", tmp_path / "s").error()
    assert "needs a missing model with a slope; 'ignorable' has none" in line
