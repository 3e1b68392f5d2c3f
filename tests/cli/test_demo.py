"""``demo``: small and short here; what it shows must be what it found."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from commands import Cli

from mnar_recsys import MNARRecommender, RatingLog
from mnar_recsys.cli import demo_run
from mnar_recsys.config import PRESETS, Settings
from mnar_recsys.data.simulate import simulate_ratings
from mnar_recsys.model_card import selection_by_level


@pytest.fixture
def quick_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {
        "inference": "variational",
        "max_steps": 10,
        "evaluate_every": 5,
        "batch_size": 20,
        "validation_samples": 3,
    }
    monkeypatch.setattr("mnar_recsys.config.presets.PRESETS", PRESETS | {"default": Settings().replace(changes)})
    monkeypatch.setattr(demo_run, "N_ITEMS", 40)
    monkeypatch.setattr(demo_run, "RATINGS_PER_USER", 4.0)
    monkeypatch.setattr(demo_run, "SAMPLES", 3)


@pytest.mark.usefixtures("quick_demo")
def test_writes_and_prints_what_it_found(cli: Cli, tmp_path: Path) -> None:
    result = cli("demo", "--out", tmp_path / "d", "--users", 100, "--seed", 2)
    assert result.code == 0, result.err
    written = {path.name for path in (tmp_path / "d").iterdir()}
    data = {"train.csv", "test.csv", "mcar_labels.csv", "truth.npz"}
    assert written == data | {"model", "predictions.parquet", "report.html"}
    simulation = simulate_ratings(n_users=100, n_items=40, seed=2, ratings_per_user=demo_run.RATINGS_PER_USER)
    recommender = MNARRecommender.load(tmp_path / "d" / "model")
    fitted = list(selection_by_level(recommender.fitted).values())
    true = simulation.truth.selection - simulation.truth.selection.mean()
    for level, ours, theirs in zip(range(1, 6), fitted, true, strict=True):
        row = next(line for line in result.out.splitlines() if line.startswith(f"{level} "))
        assert row.split() == [str(level), f"{ours:+.2f}", f"{theirs:+.2f}"]
    test = RatingLog.read(tmp_path / "d" / "test.csv", like=recommender.fitted.log)
    predictions = pd.read_parquet(tmp_path / "d" / "predictions.parquet")
    assert len(predictions) == test.n_ratings
    error = np.square(predictions["mean"] - test.ratings).mean()
    assert re.search(rf"^not-MIWAE .*\]  {error:.3f} \[", result.out, re.M)
    constant = np.square(simulation.train.ratings.mean(dtype=float) - test.ratings).mean()
    assert re.search(rf"^constant .*\]  {constant:.3f} \[", result.out, re.M)
    page = (tmp_path / "d" / "report.html").read_text()
    assert page.count("<svg") == 3
    assert not re.search(r"(src|href)=\"(?!#)", page)  # nothing is loaded from elsewhere


@pytest.mark.usefixtures("quick_demo")
def test_runs_again_over_its_own_folder(cli: Cli, tmp_path: Path) -> None:
    for _ in range(2):
        assert cli("demo", "--out", tmp_path / "d", "--users", 60).code == 0


def test_refuses_before_any_work(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot be written to" in cli("demo", "--out", tmp_path / "file").error()
    assert "at least 50 users" in cli("demo", "--out", tmp_path / "d", "--users", 3).error()
    assert not (tmp_path / "d").exists()
