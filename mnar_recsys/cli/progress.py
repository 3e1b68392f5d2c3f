"""Progress on stderr: a bar on a terminal, a line now and then elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from mnar_recsys.cli.terminal import is_first, note

Advance = Callable[..., None]
"""``advance(n, text="")``: n more units are done."""

_SECONDS_BETWEEN_LINES = 5.0


@contextmanager
def progress(label: str, total: int, unit: str = "") -> Iterator[Advance]:
    """Show how much of ``total`` is done while the block runs; nothing of it stays on a terminal.

    Where stderr is no terminal, a line is printed every five seconds, so that a log shows that work goes on.
    """
    console = Console(stderr=True)
    if not (console.is_terminal and is_first()):
        yield _lines(label, total, unit)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[text]}"),
    )
    with Progress(*columns, console=console, transient=True) as shown:
        task = shown.add_task(label, total=total, text="")

        def advance(n: int, text: str = "") -> None:
            shown.update(task, advance=n, text=text)

        yield advance


def _lines(label: str, total: int, unit: str) -> Advance:
    done, last = 0, time.monotonic()

    def advance(n: int, text: str = "") -> None:
        nonlocal done, last
        done += n
        if time.monotonic() - last >= _SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            note(f"{label}: {done:,} of {total:,} {unit} {text}")

    return advance
