"""``benchmark`` from the command line: its files, its refusals, what is kept and what is tuned."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from commands import Cli

from baselines.recbole_models import MODELS, recbole_fault
from evaluation.tables import RESULT_COLUMNS
from mnar_recsys.data.simulate import simulate_ratings
from mnar_recsys.data.simulate_files import write_simulation


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_simulation(simulate_ratings("monotone", n_users=80, n_items=30, seed=0, ratings_per_user=8), folder)
    return folder


def files_of(world: Path) -> tuple[object, ...]:
    return ("--train", world / "train.csv", "--test", world / "test.csv")


def test_every_file_is_written_and_says_the_same(cli: Cli, world: Path, tmp_path: Path) -> None:
    labels = ("--mcar-labels", world / "mcar_labels.csv")
    models = "constant_train,constant_mcar,bias"
    done = cli("benchmark", *files_of(world), *labels, "--models", models, "--seeds", 2, "--out", tmp_path / "b")
    assert done.code == 0, done.err
    rows = pd.read_csv(tmp_path / "b" / "results.csv")
    assert tuple(rows.columns) == RESULT_COLUMNS
    assert set(rows["model"]) == set(models.split(","))
    assert set(rows["seed"]) == {0, 1}
    assert set(rows["cells"]) == {"unseen", "all"}
    assert {"mse", "mae", "rmse", "auc", "ndcg@5", "recall@5"} <= set(rows["metric"])
    n_labels = len(pd.read_csv(world / "mcar_labels.csv"))
    assert dict(zip(rows["model"], rows["mcar_labels"], strict=True)) == {
        "constant_train": 0, "constant_mcar": n_labels, "bias": 0
    }  # fmt: skip

    test, train = pd.read_csv(world / "test.csv"), pd.read_csv(world / "train.csv")
    expected = ((test["rating"] - train["rating"].mean()) ** 2).mean()
    chosen = rows[(rows["model"] == "constant_train") & (rows["metric"] == "mse") & (rows["cells"] == "all")]
    assert chosen["value"].tolist() == pytest.approx([expected] * 2)
    assert (chosen["lower"] < expected).all()
    assert (expected < chosen["upper"]).all()

    table = (tmp_path / "b" / "table.md").read_text(encoding="utf-8")
    assert re.search(rf"\| constant_train \| {expected:.3f} \[", table)
    assert table in done.out
    page = (tmp_path / "b" / "report.html").read_text(encoding="utf-8")
    assert f"{expected:.3f}" in page
    assert "http" not in re.sub(r"http://www\.w3\.org\S*|https?://(purl|creativecommons)\S*", "", page)


def test_finished_cells_are_kept(cli: Cli, world: Path, tmp_path: Path) -> None:
    call = ("benchmark", *files_of(world), "--models", "constant_train", "--out", tmp_path)
    assert cli(*call, "--seeds", 1).code == 0
    cell = tmp_path / "cells" / "constant_train-seed0.parquet"
    before = cell.stat().st_mtime_ns
    assert cli(*call, "--seeds", 2).code == 0
    assert cell.stat().st_mtime_ns == before
    assert cell.with_name("constant_train-seed1.parquet").exists()


def test_a_method_that_cannot_be_run_is_named_with_its_reason(cli: Cli, world: Path, tmp_path: Path) -> None:
    done = cli(
        "benchmark", *files_of(world), "--models", "constant_train,constant_mcar", "--seeds", 1, "--out", tmp_path
    )
    (warning,) = done.warnings()
    assert "constant_mcar, seed 0, was not run: constant_mcar needs randomly collected ratings" in warning
    assert "Not run: constant_mcar (" in (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "Not run: constant_mcar (" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_labels_that_are_in_the_test_are_refused(cli: Cli, world: Path, tmp_path: Path) -> None:
    leak = tmp_path / "labels.csv"
    pd.read_csv(world / "test.csv").head(5).to_csv(leak, index=False)
    done = cli("benchmark", *files_of(world), "--mcar-labels", leak, "--models", "bias", "--out", tmp_path / "b")
    assert "mcar_labels and mcar_test must share no (user, item) cell; found 5 shared" in done.error()
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (("--models", "bias,nonsense"), "--models must be all, recbole or names of .*; found nonsense"),
        (("--models", ","), "--models must be all, recbole or names of"),
        (("--settings", "absent.json"), "absent.json: cannot be read"),
        (("--seeds", "0"), "seeds"),
        (("--protocol", "P9"), "--protocol must be one of P1, P2, P3, P4; found 'P9'"),
        (("--off-policy", "nonsense"), "propensity must be one of .*; found 'nonsense'"),
    ],
)
def test_wrong_options_get_one_line(
    cli: Cli, world: Path, tmp_path: Path, extra: tuple[str, ...], message: str
) -> None:
    assert re.search(message, cli("benchmark", *files_of(world), *extra, "--out", tmp_path / "b").error())


@pytest.mark.parametrize("text", ["[]", "{", '{"nonsense": {}}', '{"bias": 3}'])
def test_a_settings_file_that_is_none_is_refused(cli: Cli, world: Path, tmp_path: Path, text: str) -> None:
    path = tmp_path / "settings.json"
    path.write_text(text, encoding="utf-8")
    assert cli("benchmark", *files_of(world), "--settings", path, "--out", tmp_path / "b").error()


def test_tuning_writes_settings_that_a_later_run_takes(cli: Cli, world: Path, tmp_path: Path) -> None:
    done = cli("benchmark", *files_of(world), "--models", "mf,bias", "--seeds", 1, "--tune", "--out", tmp_path / "b")
    assert done.code == 0, done.err
    settings = json.loads((tmp_path / "b" / "settings.json").read_text(encoding="utf-8"))
    trials = json.loads((tmp_path / "b" / "tuning" / "mf.json").read_text(encoding="utf-8"))["trials"]
    best = min(trials, key=lambda trial: trial["loss"])
    assert settings["mf"] == best["settings"]
    assert 2 <= len(trials) <= 12
    again = cli(
        "benchmark", *files_of(world), "--models", "mf", "--seeds", 1, "--out", tmp_path / "b",
        "--settings", tmp_path / "b" / "settings.json",
    )  # fmt: skip
    assert again.code == 0


LABEL_PROTOCOLS = {"P2": (3, {"auc", "ndcg@5"}), "P3": (4, {"ndcg_pos@5", "nll"}), "P4": (4, {"dcg@6", "hits@6"})}


@pytest.mark.parametrize("protocol", LABEL_PROTOCOLS)
def test_label_protocols_train_and_score_on_labels(cli: Cli, world: Path, tmp_path: Path, protocol: str) -> None:
    threshold, metrics = LABEL_PROTOCOLS[protocol]
    models = "constant_train,mf_snips" if protocol != "P3" else "constant_train,constant_mcar"
    done = cli(
        "benchmark", *files_of(world), "--protocol", protocol, "--models", models, "--seeds", 1, "--out", tmp_path
    )
    assert done.code == 0, done.err
    rows = pd.read_csv(tmp_path / "results.csv")
    assert metrics <= set(rows["metric"])
    test, train = pd.read_csv(world / "test.csv"), pd.read_csv(world / "train.csv")
    share = (train["rating"] >= threshold).mean()
    constant = rows[(rows["model"] == "constant_train") & (rows["cells"] == "all")].set_index("metric")["value"]
    if protocol == "P2":  # the whole survey is the test
        assert constant["mse"] == pytest.approx(((test["rating"] >= threshold) - share).pow(2).mean())
        assert constant["mse_label"] == pytest.approx(constant["mse"])
    if protocol == "P3":  # a twentieth of the survey may be trained on
        labels = dict(zip(rows["model"], rows["mcar_labels"], strict=True))
        assert labels == {"constant_train": 0, "constant_mcar": int(0.05 * len(test))}
    assert constant["mse"] < 1
    assert "labels of 1 are positive" in (tmp_path / "table.md").read_text(encoding="utf-8")


def test_p3_draws_its_own_labels(cli: Cli, world: Path, tmp_path: Path) -> None:
    labels = ("--mcar-labels", world / "mcar_labels.csv")
    done = cli("benchmark", *files_of(world), *labels, "--protocol", "P3", "--out", tmp_path)
    assert "P3 draws its labels from --test; found others as well" in done.error()


def test_labels_can_be_a_share_of_the_test(cli: Cli, world: Path, tmp_path: Path) -> None:
    call = ("benchmark", *files_of(world), "--models", "constant_mcar", "--seeds", 1, "--label-share", 0.25)
    assert cli(*call, "--out", tmp_path / "b").code == 0
    rows = pd.read_csv(tmp_path / "b" / "results.csv")
    n_test = len(pd.read_csv(world / "test.csv"))
    assert set(rows["mcar_labels"]) == {int(0.25 * n_test)}
    text = (tmp_path / "b" / "table.md").read_text(encoding="utf-8")
    assert f"mcar_test {n_test - int(0.25 * n_test)}" in text
    both = cli(*call, "--mcar-labels", world / "mcar_labels.csv", "--out", tmp_path / "c")
    assert "give --label-share or --mcar-labels; found both" in both.error()


def test_errors_are_estimated_without_the_test(cli: Cli, world: Path, tmp_path: Path) -> None:
    call = ("benchmark", *files_of(world), "--models", "constant_train,bias,mf", "--seeds", 1, "--off-policy", "auto")
    done = cli(*call, "--out", tmp_path / "b")
    assert done.code == 0, done.err
    table = (tmp_path / "b" / "table.md").read_text(encoding="utf-8")
    assert "| held out, as it is | IPS | SNIPS | DR |" in table
    assert "propensities (user_item_popularity)" in table
    assert "Rank correlation with the MSE on the test: held out, as it is" in table
    page = (tmp_path / "b" / "report.html").read_text(encoding="utf-8")
    assert "What could be known without random ratings" in page
    assert "Can the propensities be trusted?" in page
    # Another test changes nothing of what is estimated.
    other = tmp_path / "other.csv"
    pd.read_csv(world / "test.csv").iloc[::2].to_csv(other, index=False)
    again = cli(
        "benchmark", "--train", world / "train.csv", "--test", other, *call[5:], "--out", tmp_path / "c"
    )  # fmt: skip
    assert again.code == 0, again.err
    mine, theirs = (
        re.findall(r"^\| bias \| \d\.\d+ \| (\d.*)$", text, re.MULTILINE)
        for text in (table, (tmp_path / "c" / "table.md").read_text(encoding="utf-8"))
    )
    assert len(mine) == 1
    assert mine == theirs


@pytest.mark.skipif(recbole_fault() is None, reason="RecBole can run here")
def test_rows_of_recbole_say_what_they_need(cli: Cli, world: Path, tmp_path: Path) -> None:
    done = cli("benchmark", *files_of(world), "--models", "bias,recbole", "--seeds", 1, "--out", tmp_path)
    assert [name for name in MODELS if f"{name}, seed 0, was not run: {name}: " in done.err] == list(MODELS)
    assert "Install mnar-recsys[recbole] into an environment of its own" in (tmp_path / "table.md").read_text()


@pytest.mark.recbole
@pytest.mark.skipif(recbole_fault() is not None, reason=str(recbole_fault()))
def test_rows_of_recbole_stand_beside_ours(cli: Cli, world: Path, tmp_path: Path) -> None:
    names = ("recbole_neumf", "recbole_bpr")
    (tmp_path / "settings.json").write_text(json.dumps({name: {"epochs": 3} for name in names}), encoding="utf-8")
    given = ("--settings", tmp_path / "settings.json", "--off-policy", "auto", "--seeds", 1, "--out", tmp_path / "b")
    done = cli("benchmark", *files_of(world), "--models", ",".join(("bias", *names)), *given)
    assert done.code == 0, done.err
    rows = pd.read_csv(tmp_path / "b" / "results.csv")
    metrics = {name: set(part["metric"]) for name, part in rows.groupby("model")}
    assert {"rmse", "mae", "auc", "ndcg@5"} <= metrics["recbole_neumf"]
    assert {"auc", "ndcg@5"} <= metrics["recbole_bpr"]
    assert not {"mse", "rmse", "mae", "bias"} & metrics["recbole_bpr"]
    table = (tmp_path / "b" / "table.md").read_text(encoding="utf-8")
    assert "| recbole_bpr | - |" in table
    page = (tmp_path / "b" / "report.html").read_text(encoding="utf-8")
    assert "BPR of RecBole 1.2.1" in page
    alone = cli("benchmark", *files_of(world), "--models", "recbole_bpr", *given)
    assert alone.code == 0, alone.err
