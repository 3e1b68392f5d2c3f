"""The benchmark commands run, at sizes that take a second, and write what they say they write."""

import json
from pathlib import Path

import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from benchmarks import curves, estimators, fit, large, measure, predict, read, step, truth


def run(main: object, *arguments: object) -> str:
    app = typer.Typer()
    app.command()(main)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure here: processes of their own cost seconds, and their peaks are of no interest."""
    for module in (curves, fit, large, predict, read, step, truth):
        monkeypatch.setattr(module, "alone", lambda measure, *arguments, **options: measure(*arguments, **options))


@pytest.mark.usefixtures("in_process")
def test_step_writes_a_row_for_each_name_and_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "CATALOGUES", (300,))
    monkeypatch.setattr(step, "USERS", 150)
    monkeypatch.setattr(step, "SAMPLES", 2)
    table = run(step.main, "--json", tmp_path / "rows.json", "--repeats", 3)
    rows = json.loads((tmp_path / "rows.json").read_text())
    names = {"exact", "exact-ordinal", "subsampled", "dense-reference"}
    assert names <= {row["name"] for row in rows} <= names | {"notmiwae-pytorch"}
    for row in rows:
        assert set(row) == {"name", "items", "median_ms", "min_ms", "max_ms", "peak_mb"}
        assert row["items"] == 300
        assert 0 < row["min_ms"] <= row["median_ms"] <= row["max_ms"]
        assert row["name"] in table
    assert [path.name for path in tmp_path.iterdir()] == ["rows.json"]


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize(
    ("main", "arguments", "fact"),
    [
        (fit.main, ("--users", 100, "--steps", 2), "ratings"),
        (large.main, ("--users", 1000, "--items", 100), "steps"),
        (predict.main, ("--users", 100, "--items", 100), "monte_carlo_error"),
        (truth.main, ("--users", 100, "--seeds", 1), "share"),
        (read.main, ("--ratings", 2000, "--repeats", 1), "ratings"),
    ],
)
def test_the_others_write_their_facts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, main: object, arguments: tuple[object, ...], fact: str
) -> None:
    monkeypatch.setattr(predict, "_STEPS", 3)
    monkeypatch.setattr(truth, "ITEMS", 60)
    quick = {"inference": "variational", "max_steps": 2}
    monkeypatch.setattr(truth, "_KINDS", {name: changes | quick for name, changes in truth._KINDS.items()})
    run(main, *arguments, "--json", tmp_path / "rows.json")
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert rows
    assert all(fact in row and row["median_ms"] > 0 for row in rows)


def test_exponents_are_slopes_of_logs() -> None:
    rows = [measure.Row("x", 1, 3 * size**1.5, 1, 1, 1, {"size": size}) for size in (1, 2, 4, 9)]
    assert curves.exponent(rows) == pytest.approx(1.5)


def test_estimators_pairs_what_was_drawn_with_what_was_summed_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [(name, seed, "all", "mse", value) for name, values in {
        "mnar+sampled": (0.9, 1.1), "mnar+default": (0.7, 0.8), "mnar+categorical": (1.6,),  # its partner is not there
    }.items() for seed, value in enumerate(values)]  # fmt: skip
    rows.append(("mnar+default", 0, "unseen", "mse", 9.0))
    results, figure, numbers = (tmp_path / name for name in ("results.csv", "figure.svg", "rows.json"))
    pd.DataFrame(rows, columns=["model", "seed", "cells", "metric", "value"]).to_csv(results, index=False)
    estimators.main(results, plot_file=figure, json=numbers)
    assert json.loads(numbers.read_text()) == [
        {"settings": "default settings", "decoder": "ordinal", "drawn": [0.9, 1.1], "summed out": [0.7, 0.8]}
    ]
    assert "1.000 (0.900 to 1.100)" in capsys.readouterr().out
    assert "<svg" in figure.read_text()
    pd.DataFrame(rows[:1], columns=["model", "seed", "cells", "metric", "value"]).to_csv(results, index=False)
    with pytest.raises(typer.BadParameter, match="none of the variants is there"):
        estimators.main(results)
