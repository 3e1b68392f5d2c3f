"""``train --missing agnostic``: from ratings to predictions, and what it refuses."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from commands import QUICK, Cli

from mnar_recsys.model_folder import read_model


@pytest.mark.parametrize("options", [[], ["--set", "agnostic_hidden=3", "--decoder", "student-t"]])
def test_from_ratings_to_predictions(cli: Cli, ratings: Path, tmp_path: Path, options: list[str]) -> None:
    model, table, draws = tmp_path / "m", tmp_path / "p.parquet", tmp_path / "i.parquet"
    held_out = ["--set", "stop=held-out"]
    assert cli("train", ratings, "--out", model, "--missing", "agnostic", *options, *held_out, *QUICK).code == 0
    fitted = read_model(model)
    assert fitted.settings.model.estimator == "sampled"
    assert all(np.isfinite(row["held_out"]) for row in fitted.history)
    result = cli("predict", model, "--all", "--levels", "--propensity", "--out", table)
    assert result.code == 0
    assert "has the paper's estimand only" in result.err
    frame = pd.read_parquet(table)
    assert len(frame) == 40 * 12
    assert np.isfinite(frame.drop(columns=["user", "item"]).to_numpy(dtype=float)).all()
    assert frame["propensity"].between(0, 1).all()
    assert cli("impute", model, "--draws", 2, "--out", draws).code == 0
    assert "'agnostic' has none" in cli("sensitivity", model, "--out", tmp_path / "s").error()


def test_a_marginal_estimator_is_refused(cli: Cli, ratings: Path, tmp_path: Path) -> None:
    options = ["--missing", "agnostic", "--set", "estimator=marginal"]
    line = cli("train", ratings, "--out", tmp_path / "m", *options, *QUICK).error()
    assert "has no marginal form" in line
    assert "estimator=sampled" in line
    assert not (tmp_path / "m").exists()
