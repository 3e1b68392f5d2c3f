"""What a user meets first: help, the version, and mistakes in the command line."""

import subprocess
import sys
import time
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from commands import Cli

from mnar_recsys.cli.main import app
from mnar_recsys.config import PRESETS
from mnar_recsys.data.layouts import Layout
from mnar_recsys.data.simulate_presets import PRESETS as WORLDS

VERBS = (
    "demo",
    "simulate",
    "inspect",
    "train",
    "tune",
    "predict",
    "impute",
    "summarize",
    "report",
    "evaluate",
    "benchmark",
)
VERB_FUNCTIONS = {
    command.callback.__name__: command.callback for command in app.registered_commands if command.callback
}


def test_help_names_every_verb(cli: Cli) -> None:
    shown = cli("--help")
    assert shown.code == 0
    assert all(f"  {verb} " in shown.out for verb in VERBS)
    assert cli().out == shown.out


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_has_help(cli: Cli, verb: str) -> None:
    assert cli(verb, "--help").code == 0
    hints = get_type_hints(VERB_FUNCTIONS[verb], include_extras=True)
    for name, hint in hints.items():
        if name != "return":
            (option,) = get_args(hint)[1:]
            assert option.help.endswith("."), (verb, name)


def test_help_lists_what_the_code_knows(cli: Cli) -> None:
    text = "".join(cli("train", "--help").out.split())  # names break at hyphens
    assert all(layout in text for layout in get_args(Layout))
    assert all(name in text for name in PRESETS)
    assert all(world in "".join(cli("simulate", "--help").out.split()) for world in WORLDS)


def test_later_options_are_absent(cli: Cli) -> None:
    for option in ("--tune",):
        assert option not in cli("train", "--help").out


def test_version(cli: Cli) -> None:
    assert cli("--version").out.startswith("mnar-recsys 0.")


def test_help_loads_neither_torch_nor_pandas(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom mnar_recsys.cli.main import main\nassert main(['train', '--help']) == 0\n"
        "assert not {'torch', 'pandas', 'numpy'} & set(sys.modules)"
    )
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, stdout=subprocess.DEVNULL)
    assert time.perf_counter() - start < 20  # far above what it takes: only a hang fails


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["bogus"], ["bogus", "mnar-recsys --help"]),
        (["train"], ["RATINGS", "mnar-recsys train --help"]),
        (["train", "r.csv"], ["--out"]),
        (["train", "r.csv", "--out", "m", "--bogus"], ["--bogus", "mnar-recsys train --help"]),
        (["train", "r.csv", "--out", "m", "--seed", "x"], ["--seed", "integer"]),
        (["train", "r.csv", "--out", "m", "--seed", "-1"], ["--seed", "greater than or equal to 0"]),
        (["train", "r.csv", "--out", "m", "--decoder", "spline"], ["--decoder", "spline", "'gaussian'"]),
        (["summarize", "m", "--by", "planet"], ["--by", "planet", "'item'"]),
        (["summarize", "m", "--draws", "1"], ["--draws", "greater than or equal to 2"]),
        (["impute", "m", "--out", "f.csv"], ["--draws"]),
        (["predict", "m", "--out", "f.csv", "--all", "--draws", "0"], ["--draws"]),
    ],
)
def test_usage_errors_are_one_line(cli: Cli, arguments: list[str], expected: list[str]) -> None:
    line = cli(*arguments).error()
    assert all(part in line for part in expected), line
    assert "see `mnar-recsys" in line
