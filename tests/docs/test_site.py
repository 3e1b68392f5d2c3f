"""The documentation builds without a warning and needs no network; what it says of commands and baselines is so."""

import inspect
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from pages import DOCS, ROOT, blocks, run

from baselines.registry import BASELINES
from mnar_recsys.cli.main import app

PAGES = [ROOT / "README.md", *sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)]
CONSTANTS = {"constant_train", "constant_mcar"}
OF_OUR_OWN = {"mf_recalibrated", "mf_labels"}


def test_the_site_builds_without_warnings(tmp_path: Path) -> None:
    pytest.importorskip("furo")
    places = ["-d", str(tmp_path / "trees"), "docs", str(tmp_path / "site")]
    run([sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going", *places], ROOT)
    assert (tmp_path / "site" / "generated" / "baselines" / "mf_ips.html").exists()
    index = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert not re.search(r'<(script|link|img)[^>]*(src|href)="(https?:)?//', index), "the site needs the network"


def commands_of(path: Path) -> Iterator[list[str]]:
    """Yield the words of each mnar-recsys command in a page's shell blocks."""
    for language, text in blocks(path):
        if language == "sh":
            for line in text.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words[:1] == ["mnar-recsys"]:
                    yield words[1:]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_commands_on_a_page_exist(page: Path) -> None:
    verbs: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for verb, *rest in commands_of(page):
        assert verb in verbs, f"{page.name}: mnar-recsys {verb}"
        command = verbs[verb]
        if hasattr(command, "commands"):
            assert rest[0] in command.commands, f"{page.name}: mnar-recsys {verb} {rest[0]}"
            command = command.commands[rest[0]]
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        unknown = {word for word in rest if word.startswith("--")} - known
        assert not unknown, f"{page.name}: mnar-recsys {verb} has no {unknown}"


@pytest.mark.parametrize("name", sorted(set(BASELINES) - CONSTANTS))
def test_a_baseline_gives_its_formula_and_its_source(name: str) -> None:
    own = [kind for kind in BASELINES[name].__mro__ if kind.__module__.startswith("baselines.") and kind.__doc__]
    text = "\n".join(inspect.getdoc(kind) or "" for kind in own)
    assert ":math:" in text or ".. math::" in text
    assert name in OF_OUR_OWN or re.search(r"\b(19|20)\d\d\b", text), "no source"
