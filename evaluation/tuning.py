"""Settings chosen on held-out self-selected ratings, with the same number of trials for every method.

What a trial minimises is the method's own ``validation_loss``: what a practitioner without randomly collected ratings
could compute. No test rating is in reach: the split a trial gets has none.
"""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, as_completed
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any, Protocol

from evaluation.benchmark import Entry, fingerprint
from evaluation.worker_pool import worker_pool
from mnar_recsys.data import Split
from mnar_recsys.errors import MnarError
from mnar_recsys.files import write_text
from mnar_recsys.rng import numpy_generator

HELD_OUT = 0.1
"""Share of the self-selected ratings that trials are judged on."""


class Tunable(Protocol):
    """What tuning needs of a method."""

    def fit(self, split: Split, *, seed: int) -> object:
        """Fit to a split without a test."""
        ...

    def validation_loss(self, split: Split) -> float:
        """Return the loss on ``split.mnar_valid``, lower is better."""
        ...


@dataclass(frozen=True)
class Trial:
    """One setting tried."""

    settings: Mapping[str, Any]
    """what differs from the defaults"""
    loss: float
    """validation loss; infinite where the setting could not be fitted"""
    seconds: float


def candidates(space: Mapping[str, Sequence[Any]], budget: int, *, seed: int = 0) -> list[dict[str, Any]]:
    """Return at most ``budget`` settings: the defaults, then the grid of ``space``, drawn at random if it is larger."""
    grid = [dict(zip(space, values, strict=True)) for values in product(*space.values())] if space else []
    if len(grid) > budget - 1:
        chosen = numpy_generator(seed, "tuning").permutation(len(grid))[: max(budget - 1, 0)]
        grid = [grid[place] for place in sorted(chosen)]
    return [{}, *grid]


def tune(
    entries: Mapping[str, tuple[Entry, Mapping[str, Sequence[Any]]]],
    split: Split,
    folder: Path,
    *,
    budget: int = 12,
    jobs: int | str = 1,
    on_trial: Callable[[str, Trial], None] | None = None,
) -> dict[str, list[Trial]]:
    """Try each method's settings; trials already in ``folder`` for the same ratings are kept.

    Parameters
    ----------
    entries
        Name to the method and its search space; the entry's own settings are part of each trial.
    split
        Its ``mcar_test`` is set aside before anything else.
    folder
        Where trials are kept, a JSON file each method.
    budget
        Trials a method at most, the defaults among them.

    Returns
    -------
    dict
        Name to its trials, best first.
    """
    held_out = split.for_training()
    if held_out.mnar_valid is None:
        held_out = held_out.hold_out(HELD_OUT, seed=0)
    print_of = fingerprint(held_out)
    trials = {name: _read(folder / f"{name}.json", print_of) for name in entries}
    with worker_pool(jobs, {entry.make.__module__ for entry, _ in entries.values()}) as pool:
        futures: dict[Future[Trial], str] = {}
        for name, (entry, space) in entries.items():
            done = [dict(trial.settings) for trial in trials[name]]
            for settings in candidates(space, budget):
                if settings not in done:
                    futures[pool.submit(run_trial, entry, settings, held_out)] = name
        for future in as_completed(futures):
            name, trial = futures[future], future.result()
            trials[name].append(trial)
            _write(folder / f"{name}.json", print_of, trials[name])
            if on_trial:
                on_trial(name, trial)
    return {name: sorted(done, key=lambda trial: trial.loss) for name, done in trials.items()}


def run_trial(entry: Entry, settings: Mapping[str, Any], split: Split) -> Trial:
    """Fit one setting and return its loss."""
    start = time.perf_counter()
    try:
        method: Any = entry.make(**{**entry.settings, **settings})
        method.fit(split, seed=0)
        loss = float(method.validation_loss(split))
    except MnarError:
        loss = math.inf
    return Trial(dict(settings), loss if math.isfinite(loss) else math.inf, time.perf_counter() - start)


def _write(path: Path, print_of: str, trials: Sequence[Trial]) -> None:
    rows = [asdict(trial) for trial in trials]
    write_text(path, json.dumps({"fingerprint": print_of, "trials": rows}, indent=1) + "\n")


def _read(path: Path, print_of: str) -> list[Trial]:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return [Trial(**row) for row in stored["trials"]] if stored["fingerprint"] == print_of else []
    except (OSError, ValueError, KeyError, TypeError):
        return []
