"""``tune`` and ``train --settings``: the table, the files, the fit that follows, and what is refused."""

import json
from pathlib import Path

import pandas as pd
import pytest
from commands import QUICK, Cli

from mnar_recsys import extras
from mnar_recsys.config import Settings
from mnar_recsys.model_folder import read_model
from mnar_recsys.search_space import SPACE

FAST = (*QUICK, "--set", "proposal=encoder", "--set", "learning_rate=1e-2")


def test_search_and_the_fit_that_follows(cli: Cli, ratings: Path, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    result = cli("tune", ratings, "--out", tmp_path / "t", "--trials", 2, "--decoder", "gaussian", *FAST)
    assert result.code == 0, result.err
    assert any("only 8 users are held out" in line for line in result.warnings())
    table = pd.read_csv(tmp_path / "t" / "trials.csv")
    assert table["trial"].tolist() == [0, 1]
    # What is stated is not searched, nor what this small log learns.
    assert [name for name in SPACE if name in table] == ["latent_size", "exposure_size", "embedding_size", "code_size"]
    for bound in table["held_out"]:
        assert f"{bound:.3f}" in result.out
    best = tmp_path / "t" / "best.json"
    stored = json.loads(best.read_text())
    assert stored["decoder"] == "gaussian"
    assert Settings().replace(stored).model.latent_size == table.loc[table["best"], "latent_size"].item()
    assert cli("train", ratings, "--out", tmp_path / "m", "--settings", best).code == 0
    assert read_model(tmp_path / "m").settings == Settings().replace(stored).resolve_for(read_model(tmp_path / "m").log)
    resumed = cli("tune", ratings, "--out", tmp_path / "t", "--trials", 2, "--decoder", "gaussian", *FAST, "--resume")
    assert resumed.code == 0
    assert resumed.out == result.out


def test_an_interrupted_search(cli: Cli, ratings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("optuna")
    from mnar_recsys.training import Trainer

    def interrupted(_: Trainer) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "step", interrupted)
    stopped = cli("tune", ratings, "--out", tmp_path / "t", "--trials", 2, *FAST)
    assert stopped.code == 130
    assert "no trial had ended yet" in stopped.err
    monkeypatch.undo()
    assert cli("tune", ratings, "--out", tmp_path / "t", "--trials", 1, *FAST, "--resume").code == 0
    monkeypatch.setattr(Trainer, "step", interrupted)
    stopped = cli("tune", ratings, "--out", tmp_path / "t", "--trials", 2, *FAST, "--resume")
    assert "holds 1 of 2 trials; go on with the same command and --resume" in stopped.err


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--trials", "0"], ["--trials", "greater than or equal to 1"]),
        (["--resume"], ["there is no search to go on with"]),
        (["--test", "t.csv"], ["--test"]),  # no randomly collected test comes near a search
        (["--missing", "agnostic"], ["no exact bound"]),
        (["--set", "latent_size"], ["--set needs key=value"]),
        ([part for name in SPACE for part in ("--set", f"{name}=1")], ["nothing is left to search"]),
    ],
)
def test_wrong_searches_get_one_line(
    cli: Cli, ratings: Path, tmp_path: Path, options: list[str], expected: list[str]
) -> None:
    pytest.importorskip("optuna")
    line = cli("tune", ratings, "--out", tmp_path / "t", *options).error()
    assert all(part in line for part in expected), line
    assert not (tmp_path / "t").exists()


def test_without_optuna(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda _: None)
    line = cli("tune", tmp_path / "never_read.csv", "--out", tmp_path / "t").error()
    assert "tune needs the package optuna; install it: pip install 'mnar-recsys[tune]'" in line


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        (None, [], ["no such file"]),
        ("{", [], ["cannot be read as JSON"]),
        ("[1]", [], ["must hold settings by name", "found list"]),
        ('{"depth": 3}', [], ["s.json: unknown setting 'depth'"]),
        ('{"latent_size": "many"}', [], ["s.json: setting latent_size", "'many'"]),
        ('{"decoder": "gaussian"}', ["--decoder", "ordinal"], ["'decoder' is given twice", "s.json"]),
        ('{"latent_size": 3}', ["--set", "latent_size=4"], ["'latent_size' is given twice"]),
    ],
)
def test_wrong_settings_files_get_one_line(
    cli: Cli, tmp_path: Path, text: str | None, options: list[str], expected: list[str]
) -> None:
    if text is not None:
        (tmp_path / "s.json").write_text(text)
    arguments = ("--out", tmp_path / "m", "--settings", tmp_path / "s.json", *options)
    line = cli("train", tmp_path / "never_read.csv", *arguments).error()
    assert all(part in line for part in expected), line
    assert not (tmp_path / "m").exists()


def test_a_settings_file_says_none_and_what_a_preset_has(cli: Cli, ratings: Path, tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text('{"weight_prior_sd": null, "samples": 2}')
    short = ("--set", "max_steps=3", "--preset", "yahoo-r3")
    assert cli("train", ratings, "--out", tmp_path / "m", "--settings", tmp_path / "s.json", *short).code == 0
    settings = read_model(tmp_path / "m").settings
    assert settings.model.weight_prior_sd is None
    assert settings.training.samples == 2
    assert settings.model.latent_size == 30


def test_the_space_is_stated_in_help_and_docs(cli: Cli) -> None:
    shown = "".join(cli("tune", "--help").out.split())
    docs = (Path(__file__).parents[2] / "docs" / "tuning.md").read_text(encoding="utf-8")
    for name, one in SPACE.items():
        assert f"{name}{one.low:g}to{one.high:g}" in shown
        assert f"| `{name}` | {one.low:g} to {one.high:g} |" in docs
