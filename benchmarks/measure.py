"""What the benchmarks share: timing after a warm-up, a process of its own for each row, a table, and JSON."""

import json
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Row:
    """A measurement; times in milliseconds, memory in megabytes."""

    name: str
    items: int
    median_ms: float
    min_ms: float
    max_ms: float
    peak_mb: float
    """most memory that the row's process held, the libraries included"""
    facts: dict[str, Any] = field(default_factory=dict)
    """what else there is to say, such as sizes"""


def measured(name: str, items: int, call: Callable[[], object], *, repeats: int, warmup: int = 2, **facts: Any) -> Row:
    """Time ``call`` ``repeats`` times after ``warmup`` calls; the peak is that of the process so far."""
    for _ in range(warmup):
        call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - start))
    return Row(name, items, statistics.median(times), min(times), max(times), peak_megabytes(), facts)


def peak_megabytes() -> float:
    """Return the most memory this process has held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def alone(measure: Callable[..., Row], *arguments: Any, **options: Any) -> Row:
    """Run a measurement in a fresh process, so that its peak is its own and nothing is left of the last one."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(measure, *arguments, **options).result()


def machine() -> str:
    """Describe what this ran on, in one line."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        name = models[0] if models else name
    return (
        f"{name}, {os.cpu_count()} cores, {torch.get_num_threads()} torch threads, "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )


def report(rows: Iterable[Row], title: str, json_file: Path | None) -> None:
    """Print the rows as a table, and write them as a list of objects to ``json_file`` if there is one."""
    rows = list(rows)
    extra = sorted({key for row in rows for key in row.facts})
    table = Table(title=title, caption=machine())
    for column in ("name", "items", "median ms", "min", "max", "peak MB", *extra):
        table.add_column(column, justify="left" if column == "name" else "right")
    for row in rows:
        numbers = (f"{value:,.1f}" for value in (row.median_ms, row.min_ms, row.max_ms))
        facts = (_shown(row.facts.get(key, "")) for key in extra)
        table.add_row(row.name, f"{row.items:,}", *numbers, f"{row.peak_mb:,.0f}", *facts)
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    if json_file is not None:
        plain = [{**{k: v for k, v in asdict(row).items() if k != "facts"}, **row.facts} for row in rows]
        temporary = json_file.with_name(json_file.name + ".part")
        temporary.write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")
        temporary.replace(json_file)


def _shown(value: Any) -> str:
    return f"{value:,.3g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
