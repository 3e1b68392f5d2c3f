"""``train --select``: the choice, its table, the fit that follows, and what is refused."""

from pathlib import Path

import pandas as pd
import pytest
from commands import QUICK, Cli

from mnar_recsys.candidates import CANDIDATES
from mnar_recsys.cli import model_selection
from mnar_recsys.model_folder import read_model

ROOT = Path(__file__).parents[2]
PAIR = ("--candidate", "decoder=gaussian,missing=shared", "--candidate", "decoder=ordinal,latent_size=3")


def test_choice_table_and_model(cli: Cli, ratings: Path, tmp_path: Path) -> None:
    result = cli("train", ratings, "--out", tmp_path / "m", *PAIR, *QUICK)
    assert result.code == 0, result.err
    table = pd.read_csv(tmp_path / "m" / "selection.csv")
    assert table["candidate"].tolist() == [PAIR[1], PAIR[3]]
    assert table["chosen"].sum() == 1
    assert "Joint bound of 8 held-out users" in result.out
    for name, bound in zip(table["candidate"], table["held_out"], strict=True):
        line = next(line for line in result.out.splitlines() if line.startswith(name))
        assert f"{bound:.3f}" in line
    assert any("only 8 users are held out" in line for line in result.warnings())
    fitted = read_model(tmp_path / "m")
    assert fitted.finished
    assert fitted.log.n_users == 40  # all of them, again
    chosen = table.loc[table["chosen"], "candidate"].item()
    assert fitted.settings.model.decoder == chosen.partition(",")[0].partition("=")[2]
    again = cli("train", ratings, "--out", tmp_path / "n", *PAIR, *QUICK)
    assert again.code == 0
    columns = [name for name in table.columns if name != "seconds"]
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "n" / "selection.csv")[columns], table[columns])


def test_the_default_list(cli: Cli, ratings: Path, tmp_path: Path) -> None:
    assert cli("train", ratings, "--out", tmp_path / "m", "--select", *QUICK).code == 0
    table = pd.read_csv(tmp_path / "m" / "selection.csv")
    assert table["candidate"].tolist() == list(CANDIDATES)


def test_the_list_is_stated_in_help_and_docs(cli: Cli) -> None:
    shown = "".join(cli("train", "--help").out.split())
    docs = (ROOT / "docs" / "model_choice.md").read_text(encoding="utf-8")
    for candidate in CANDIDATES:
        assert candidate in shown
        assert f"`{candidate}`" in docs


def test_an_interrupted_fit_goes_on_with_the_choice(
    cli: Cli, ratings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mnar_recsys.training import Trainer

    whole = cli("train", ratings, "--out", tmp_path / "whole", *PAIR, *QUICK)
    assert whole.code == 0
    step = Trainer.step

    def interrupted(self: Trainer) -> object:
        if len(self.train_users) == 40 and self.progress.step == 15:  # of the last fit, to all users
            raise KeyboardInterrupt
        return step(self)

    monkeypatch.setattr(Trainer, "step", interrupted)
    stopped = cli("train", ratings, "--out", tmp_path / "m", *PAIR, *QUICK)
    assert stopped.code == 130
    assert "go on with the same command and --resume" in stopped.err
    assert (tmp_path / "m" / "selection.csv").exists()
    monkeypatch.undo()

    def never(*_: object, **__: object) -> None:
        raise AssertionError("chosen again")

    monkeypatch.setattr(model_selection, "select_settings", never)
    other = ("--candidate", "latent_size=2", "--candidate", "latent_size=5")
    line = cli("train", ratings, "--out", tmp_path / "m", *other, *QUICK, "--resume").error()
    assert "none of the candidates'" in line
    resumed = cli("train", ratings, "--out", tmp_path / "m", *PAIR, *QUICK, "--resume")
    assert resumed.code == 0
    weights = [(tmp_path / name / "weights.safetensors").read_bytes() for name in ("whole", "m")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--candidate", "decoder=ordinal"], ["two or more candidates", "found 1"]),
        (["--candidate", "decoder=ordinal", "--candidate", "decoder=ordinal"], ["given twice"]),
        (["--candidate", "decoder=ordinal", "--candidate", "decoder"], ["--candidate needs key=value", "'decoder'"]),
        (["--candidate", "decoder=spline", "--candidate", "decoder=ordinal"], ["candidate 'decoder=spline'"]),
        (["--candidate", "depth=3", "--candidate", "depth=4"], ["candidate 'depth=3'", "unknown setting 'depth'"]),
        (["--select", "--decoder", "gaussian"], ["'decoder' is given for all candidates as well"]),
        (["--select", "--set", "latent_size=3"], ["latent_size=5", "'latent_size' is given for all candidates"]),
        (["--select", "--known-propensities", "1=.1,5=.2"], ["'missing' is given for all candidates as well"]),
    ],
)
def test_wrong_candidates_get_one_line(cli: Cli, tmp_path: Path, options: list[str], expected: list[str]) -> None:
    line = cli("train", tmp_path / "never_read.csv", "--out", tmp_path / "m", *options).error()
    assert all(part in line for part in expected), line
    assert not (tmp_path / "m").exists()


def test_candidates_in_a_log_that_is_too_small(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("user,item,rating\n1,1,5\n1,2,3\n2,1,1\n2,3,4\n3,2,2\n")
    line = cli("train", path, "--out", tmp_path / "m", "--select").error()
    assert "needs 10 users with ratings; found 3" in line
    assert not (tmp_path / "m").exists()
