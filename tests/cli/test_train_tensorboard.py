"""``train --tensorboard``: what is written is what the history holds."""

from pathlib import Path

import numpy as np
import pytest
from commands import QUICK, Cli

from mnar_recsys import extras
from mnar_recsys.model_folder import read_model


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    read = loader.EventAccumulator(str(folder), purge_orphaned_data=True)
    read.Reload()
    return {name: {one.step: one.value for one in read.Scalars(name)} for name in read.Tags()["scalars"]}


def test_terms_and_looks(cli: Cli, ratings: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    out, board = tmp_path / "m", tmp_path / "board"
    fit = ("train", ratings, *QUICK, "--set", "stop=held-out", "--missing", "per-level")
    assert cli(*fit, "--out", out, "--tensorboard", board).code == 0
    found, history = scalars(board), read_model(out).history
    terms = {"bound", "log_p_x", "log_p_s", "kl", "ess", "weight_cost"}
    assert set(found) == {f"step/{name}" for name in terms} | {"look/held_out", "look/selection", "look/learning_rate"}
    assert set(found["step/bound"]) == {1, 10, 20}
    assert [row["step"] for row in history] == [10, 20]
    for name in ("held_out", "selection", "learning_rate"):
        by_step = found[f"look/{name}"]
        assert [by_step[int(row["step"])] for row in history] == pytest.approx([row[name] for row in history], rel=1e-5)
    # The same fit as one that nobody watches.
    assert cli(*fit, "--out", tmp_path / "n").code == 0
    weights = [(folder / "weights.safetensors").read_bytes() for folder in (out, tmp_path / "n")]
    assert weights[0] == weights[1]


def test_the_fit_without_selection_has_a_run_of_its_own(cli: Cli, ratings: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    board = tmp_path / "board"
    assert (
        cli("train", ratings, *QUICK, "--set", "stop=held-out", "--out", tmp_path / "m", "--tensorboard", board).code
        == 0
    )
    first, second = scalars(board), scalars(board / "fit_2")
    assert np.abs(list(second["look/selection"].values())).max() < 1e-4
    assert list(first["look/selection"].values())[-1] != 0


def test_a_resumed_run_takes_the_place_of_what_came_after_its_checkpoint(
    cli: Cli, ratings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    from mnar_recsys.training import Trainer

    fit = ("train", ratings, *QUICK, "--missing", "per-level")
    assert cli(*fit, "--out", tmp_path / "whole", "--tensorboard", tmp_path / "a").code == 0
    step = Trainer.step

    def interrupted(self: Trainer) -> object:
        if self.progress.step == 15:
            raise KeyboardInterrupt
        return step(self)

    monkeypatch.setattr(Trainer, "step", interrupted)
    assert cli(*fit, "--out", tmp_path / "m", "--tensorboard", tmp_path / "b").code == 130
    monkeypatch.undo()
    assert cli(*fit, "--out", tmp_path / "m", "--tensorboard", tmp_path / "b", "--resume").code == 0
    whole, resumed = scalars(tmp_path / "a"), scalars(tmp_path / "b")
    assert resumed["step/bound"] == pytest.approx(whole["step/bound"])
    assert resumed["look/selection"] == pytest.approx(whole["look/selection"])


def test_without_tensorboard(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda _: None)
    line = cli("train", tmp_path / "never.csv", "--out", tmp_path / "m", "--tensorboard", tmp_path / "b").error()
    assert "--tensorboard needs the package tensorboard; install it: pip install 'mnar-recsys[tensorboard]'" in line
    assert not (tmp_path / "b").exists()
