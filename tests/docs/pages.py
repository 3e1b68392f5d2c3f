"""What the tests of the documentation share: the pages, their code blocks, and how these are run."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def run(arguments: list[str], folder: Path) -> None:
    """Run a command in a folder whose packages come first, with few threads; fail with what it said."""
    path = os.pathsep.join([str(folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        arguments,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "PATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, f"{arguments}\n{done.stdout[-3000:]}\n{done.stderr[-5000:]}"


def blocks(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the language and the text of each code block of a page."""
    fenced = re.compile(r"^```(\w+)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
    yield from fenced.findall(path.read_text(encoding="utf-8"))
