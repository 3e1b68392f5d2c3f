"""The pages on how to add something are followed to the letter, in a copy of the code."""

import re
import shutil
import sys
from pathlib import Path

import pytest
from pages import DOCS, ROOT, blocks, run

COPIED = ("mnar_recsys", "baselines", "evaluation", "tests", "pyproject.toml")


def apply(diff: str, folder: Path) -> None:
    """Make the changes of a block to files of a folder: what is taken away must be there, once."""
    for part in re.split(r"^--- ", diff, flags=re.MULTILINE)[1:]:
        name, changes = part.split("\n", maxsplit=1)
        text = (folder / name).read_text(encoding="utf-8")
        for hunk in re.split(r"^@@\n", changes, flags=re.MULTILINE):
            lines = hunk.splitlines(keepends=True)
            old = "".join(line[1:] for line in lines if line[0] in " -")
            assert text.count(old) == 1, f"{name} has these lines {text.count(old)} times:\n{old}"
            text = text.replace(old, "".join(line[1:] for line in lines if line[0] in " +"))
        (folder / name).write_text(text, encoding="utf-8")


@pytest.mark.parametrize("page", sorted((DOCS / "extend").glob("*.md")), ids=lambda path: path.stem)
def test_a_page_does_what_it_says(page: Path, tmp_path: Path) -> None:
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tmp_path / name)
    script = tmp_path / "bin" / "mnar-recsys"  # of this copy, not of what is installed
    script.parent.mkdir()
    script.write_text('#!/bin/sh\nexec python -m mnar_recsys "$@"\n', encoding="utf-8")
    script.chmod(0o755)
    for language, text in blocks(page):
        new = re.match(r"# file: (\S+)\n", text)
        if new:
            (tmp_path / new[1]).write_text(text[new.end() :], encoding="utf-8")
        elif language == "diff":
            apply(text, tmp_path)
        elif language == "python":
            run([sys.executable, "-c", text], tmp_path)
        elif language == "sh":
            run(["sh", "-e", "-c", text], tmp_path)
