"""Kills, interrupts and full disks, in processes of their own: what is left loads, or nothing is left."""

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from commands import BRIEF, QUICK, Cli, finish, start, start_python

# Long enough to be interrupted, with a checkpoint every other step.
ENDLESS = ("--set", "max_steps=100000", "--set", "evaluate_every=2", "--set", "stop=never", "--set", "samples=3")
CHECKPOINT = "checkpoint.safetensors"


def wait_for(condition: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 90
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.02)


@pytest.mark.slow
def test_an_interrupt_says_how_to_go_on(cli: Cli, ratings: Path, tmp_path: Path) -> None:
    process = start("train", ratings, "--out", "m", *ENDLESS, cwd=tmp_path)
    wait_for((tmp_path / "m" / CHECKPOINT).exists, process)
    process.send_signal(signal.SIGINT)
    result = finish(process)
    assert result.code == 130
    assert "Traceback" not in result.err
    last = result.err.splitlines()[-1]
    assert last.startswith("interrupted: ")
    assert "--resume" in last
    assert not list((tmp_path / "m").glob(".*.partial"))
    target = tmp_path / "out.csv"
    loaded = cli("predict", tmp_path / "m", "--all", "--out", target)
    assert any("training had not finished" in line for line in loaded.warnings())


def test_an_interrupt_before_the_first_checkpoint_leaves_nothing(
    cli: Cli, ratings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mnar_recsys.training import Trainer

    def interrupt(_: Trainer) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "step", interrupt)
    result = cli("train", ratings, "--out", tmp_path / "m", *QUICK)
    assert result.code == 130
    assert result.err.splitlines()[-1].startswith("interrupted: there was no checkpoint yet")
    assert not (tmp_path / "m").exists()


def test_an_interrupt_while_writing_leaves_the_old_file(
    cli: Cli, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    (tmp_path / "out.csv").write_text("old")
    monkeypatch.setattr("mnar_recsys.files.os.fsync", interrupt)
    result = cli("predict", model, "--all", "--out", tmp_path / "out.csv")
    assert (result.code, result.out) == (130, "")
    assert result.err.splitlines()[-1] == "interrupted: stopped; no partial output is left"
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]
    assert (tmp_path / "out.csv").read_text() == "old"


KILLED_AT_A_CHECKPOINT = """
import os, signal, sys
from mnar_recsys import resuming
from mnar_recsys.cli.main import main

save, calls = resuming.save_checkpoint, []

def save_and_die(*arguments, **options):
    save(*arguments, **options)
    calls.append(1)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)

resuming.save_checkpoint = save_and_die
main(sys.argv[1:])
"""

KILLED_WHILE_WRITING = """
import os, signal, sys
import pyarrow.parquet as pq
from mnar_recsys.cli.main import main

write = pq.ParquetWriter.write_table

def write_and_die(*arguments, **options):
    write(*arguments, **options)
    os.kill(os.getpid(), getattr(signal, os.environ["HOW"]))

pq.ParquetWriter.write_table = write_and_die
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_run_killed_after_a_checkpoint_loads_and_resumes_byte_for_byte(
    cli: Cli, ratings: Path, tmp_path: Path
) -> None:
    whole, killed, settings = (
        tmp_path / "whole",
        tmp_path / "killed",
        [*BRIEF[2:], "--inference", "variational", "--set", "max_steps=50"],
    )
    assert cli("train", ratings, "--out", whole, *settings).code == 0
    result = finish(start_python(KILLED_AT_A_CHECKPOINT, "train", ratings, "--out", killed, *settings, cwd=tmp_path))
    assert result.code == -signal.SIGKILL
    loaded = cli("predict", killed, "--top-n", 1, "--out", tmp_path / "out.csv")
    assert any("training had not finished" in line for line in loaded.warnings())
    assert "not empty" in cli("train", ratings, "--out", killed, *settings).error()
    assert cli("train", ratings, "--out", killed, *settings, "--resume").code == 0
    for name in ("weights.safetensors", "history.csv", "card.md"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
    assert not (killed / CHECKPOINT).exists()


@pytest.mark.slow
@pytest.mark.parametrize(("how", "code"), [("SIGKILL", -signal.SIGKILL), ("SIGTERM", 143)])
def test_an_export_that_is_killed_leaves_no_output(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, code: int
) -> None:
    monkeypatch.setenv("HOW", how)
    arguments = ("predict", model, "--all", "--out", "out.parquet")
    result = finish(start_python(KILLED_WHILE_WRITING, *arguments, cwd=tmp_path))
    assert (result.code, result.out) == (code, "")
    assert "Traceback" not in result.err
    left = [path.name for path in tmp_path.iterdir()]
    assert "out.parquet" not in left
    assert how == "SIGKILL" or left == []


SMALL_DISK = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))
from mnar_recsys.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["train", "predict"])
def test_a_disk_that_is_really_full(ratings: Path, model: Path, tmp_path: Path, verb: str) -> None:
    """No file may grow beyond 2 kB: the system's own error, not one made up here."""
    arguments = {
        "train": ["train", ratings, "--out", "m", *QUICK],
        "predict": ["predict", model, "--all", "--out", "out.csv"],
    }[verb]
    target = tmp_path / "out.csv"
    target.write_text("old")
    process = start_python(SMALL_DISK, *arguments, cwd=tmp_path)
    line = finish(process).error()
    assert "writing failed" in line
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.slow
def test_a_reader_that_goes_away(model: Path, tmp_path: Path) -> None:
    """``summarize | head -1`` ends quietly."""
    with start("summarize", model, "--by", "user", "--draws", 2, cwd=tmp_path) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        errors = process.stderr.read()
        assert process.wait(timeout=90) == 1, errors
    assert "Traceback" not in errors
    assert "Exception ignored" not in errors


def test_a_log_of_progress_where_there_is_no_terminal(
    cli: Cli, ratings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mnar_recsys.cli.progress._SECONDS_BETWEEN_LINES", 0.0)
    result = cli(
        "train", ratings, "--out", tmp_path / "m", *QUICK, "--set", "stop=held-out", "--set", "check_selection=false"
    )
    line = next(line for line in result.err.splitlines() if line.startswith("training: 20 of 20"))
    assert "bound" in line
    assert "held out" in line
    assert "selection" in line
    history = pd.read_csv(tmp_path / "m" / "history.csv")
    assert f"{history['held_out'].iloc[0]:.2f}" in line


@pytest.mark.slow
def test_an_interrupted_benchmark_ends_at_once_and_keeps_its_cells(ratings: Path, survey: Path, tmp_path: Path) -> None:
    options = ("--models", "constant_train,mnar", "--seeds", "40", "--jobs", "2", "--out", "b")
    process = start("benchmark", "--train", ratings, "--test", survey, *options, cwd=tmp_path)
    cells = tmp_path / "b" / "cells"
    wait_for(lambda: cells.exists() and any(cells.glob("constant_train-*.parquet")), process)
    process.send_signal(signal.SIGINT)
    asked = time.monotonic()
    result = finish(process)
    assert time.monotonic() - asked < 20  # of 80 cells most were still to be fitted
    assert result.code == 130
    assert "Traceback" not in result.err
    assert not list(cells.glob(".*.partial"))
    assert not (tmp_path / "b" / "table.md").exists()
