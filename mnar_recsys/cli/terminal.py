"""What goes to the terminal: results to stdout, everything else to stderr, one line each, never wrapped."""

import os
import sys
from collections.abc import Sequence
from typing import TextIO


def is_first() -> bool:
    """Whether this is the one of several processes started by ``torchrun`` that speaks and writes, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def one_line(text: object) -> str:
    """Return the text with every run of white space, line breaks included, as one space."""
    return " ".join(str(text).split())


def error_line(message: object) -> None:
    """Print why the command stops."""
    _print(f"error: {one_line(message)}", file=sys.stderr)


def warn(message: object) -> None:
    """Print something the user should know before trusting the result."""
    _print(f"warning: {one_line(message)}", file=sys.stderr)


def note(message: object) -> None:
    """Print where the command stands, or what it noticed; no part of the result."""
    _print(one_line(message), file=sys.stderr)


def say(text: str = "") -> None:
    """Print a result."""
    _print(text, file=sys.stdout)


def _print(text: str, file: TextIO) -> None:
    if is_first():
        print(text, file=file, flush=True)


def table(headers: Sequence[str], rows: Sequence[Sequence[object]], *, left: int = 1) -> str:
    """Return aligned columns as plain text, so that they survive a pipe; the first ``left`` are left-aligned."""
    cells = [list(headers), *[[str(cell) for cell in row] for row in rows]]
    widths = [max(len(row[place]) for row in cells) for place in range(len(headers))]
    lines = [
        "  ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    return "\n".join([lines[0], "-" * max(len(line) for line in lines), *lines[1:]])


def facts(pairs: Sequence[tuple[str, object]]) -> str:
    """Return names and values in two aligned columns."""
    width = max(len(name) for name, _ in pairs)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in pairs)


def interval(value: float, ends: tuple[float, float], digits: int = 3) -> str:
    """Return ``0.857 [0.841, 0.873]``; without ends where they are not known."""
    (low, high), text = ends, f"{value:.{digits}f}"
    return f"{text} [{low:.{digits}f}, {high:.{digits}f}]" if low == low else text  # noqa: PLR0124 - NaN
