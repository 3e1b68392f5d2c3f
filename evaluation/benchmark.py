"""Methods x seeds -> predictions of the test, kept cell by cell, so that a run that was stopped goes on where it was.

Each cell is fitted in a process of its own: its peak memory is its own, and a method cannot disturb the next. Methods
come in from outside (this package knows no model), and none is handed the test's ratings.
"""

import hashlib
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from evaluation.worker_pool import worker_pool
from mnar_recsys.data import RatingLog, Split
from mnar_recsys.errors import DataError, MnarError
from mnar_recsys.files import atomic_path

Pairs = tuple[NDArray[Any], NDArray[Any]]
"""Ids of users and of items, (n,) each."""

_FACTS = b"mnar_recsys"


class Method(Protocol):
    """What the benchmark needs of a method; see ``baselines.base.Baseline``."""

    @property
    def has_level_probabilities(self) -> bool:
        """Whether ``level_probabilities`` is there."""
        ...

    @property
    def predicts_ratings(self) -> bool:
        """Whether predictions are ratings; else they are scores that order a user's items."""
        ...

    @property
    def n_labels(self) -> int:
        """How many MCAR labels the fit could read."""
        ...

    def fit(self, split: Split, *, seed: int) -> object:
        """Fit to a split without a test."""
        ...

    def predict(self, users: NDArray[np.generic], items: NDArray[np.generic]) -> NDArray[np.float64]:
        """Return ratings or scores of pairs of ids, (n,)."""
        ...

    def level_probabilities(self, users: NDArray[np.generic], items: NDArray[np.generic]) -> NDArray[np.float64]:
        """Return level probabilities of pairs of ids, (n, R)."""
        ...


@dataclass(frozen=True)
class Entry:
    """A method of the comparison."""

    name: str
    make: Callable[..., Method]
    """``make(**settings)``; must be importable from another process."""
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CellFit:
    """What one method with one seed predicts for n pairs, those of the test unless others were asked for."""

    model: str
    seed: int
    mean: NDArray[np.float64]
    """(n,), rating points; scores where ``predicts_ratings`` is false"""
    levels: NDArray[np.float64] | None
    """(n, R), where the method has level probabilities"""
    mcar_labels: int
    """labels the fit could read"""
    fit_seconds: float
    peak_mb: float
    """most memory its process, or one that it started, held; interpreter and libraries included"""
    predicts_ratings: bool = True


@dataclass(frozen=True)
class Failure:
    """A cell that could not be fitted, and why: it stays in the table, without numbers."""

    model: str
    seed: int
    reason: str


def run_benchmark(
    entries: Sequence[Entry],
    split: Split,
    seeds: Sequence[int],
    folder: Path,
    *,
    jobs: int | str = 1,
    pairs: Pairs | None = None,
    on_cell: Callable[[str, int, bool], None] | None = None,
) -> tuple[list[CellFit], list[Failure]]:
    """Fit every entry with every seed, or take the cell from ``folder`` if it was fitted to the same data and settings.

    Parameters
    ----------
    entries, seeds
        Rows and columns of the benchmark.
    split
        Methods see it without ``mcar_test``, of which they are given the user and item ids only.
    folder
        Where cells are kept, a Parquet file each, written whole or not at all.
    jobs
        Processes at a time, each with one thread if there are several; or the address of a Ray cluster that shares
        the file system of ``folder``.
    pairs
        Ids of users and of items to predict, (n,) each; those of the test if left out.
    on_cell
        Called with method, seed and whether the cell was kept from an earlier run.

    Returns
    -------
    fits, failures
        In the order of entries and seeds. Wrong data or settings (``MnarError``) make a failure; any other error stops
        the run, and what was fitted stays.

    Raises
    ------
    DataError
        If there are no pairs and the split has no test.
    """
    wanted = _pairs_of_test(split) if pairs is None else pairs
    print_of = fingerprint(split, wanted)
    cells = [(entry, seed) for entry in entries for seed in seeds]
    found: dict[tuple[str, int], CellFit | Failure] = {}
    for entry, seed in cells:
        kept = read_cell(_path(folder, entry, seed), _digest(print_of, entry))
        if kept is not None:
            found[entry.name, seed] = kept
            if on_cell:
                on_cell(entry.name, seed, True)
    training = split.for_training()
    to_fit = [(entry, seed) for entry, seed in cells if (entry.name, seed) not in found]
    with _without_leftovers(folder), worker_pool(jobs, {entry.make.__module__ for entry in entries}) as pool:
        futures: dict[Future[CellFit | Failure], tuple[Entry, int]] = {
            pool.submit(
                fit_cell,
                entry,
                training,
                seed,
                wanted,
                target=_path(folder, entry, seed),
                digest=_digest(print_of, entry),
            ): (entry, seed)
            for entry, seed in to_fit
        }
        for future in as_completed(futures):
            entry, seed = futures[future]
            found[entry.name, seed] = future.result()
            if on_cell:
                on_cell(entry.name, seed, False)
    results = [found[entry.name, seed] for entry, seed in cells]
    fits = [result for result in results if isinstance(result, CellFit)]
    return fits, [result for result in results if isinstance(result, Failure)]


def fit_cell(entry: Entry, split: Split, seed: int, pairs: Pairs, *, target: Path, digest: str) -> CellFit | Failure:
    """Fit one method with one seed to a split without a test, write what it predicts for the pairs, and return it."""
    start = time.perf_counter()
    try:
        method = entry.make(**entry.settings)
        method.fit(split, seed=seed)
        seconds = time.perf_counter() - start
        mean = method.predict(*pairs)
        has_levels = method.has_level_probabilities and split.mnar_train.scale.levels is not None
        levels = method.level_probabilities(*pairs) if has_levels else None
    except MnarError as error:
        return Failure(entry.name, seed, str(error))
    held = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    fit = CellFit(
        model=entry.name,
        seed=seed,
        mean=np.asarray(mean, dtype=np.float64),
        levels=levels,
        mcar_labels=method.n_labels,
        fit_seconds=seconds,
        peak_mb=held / (1 << 20 if sys.platform == "darwin" else 1 << 10),
        predicts_ratings=method.predicts_ratings,
    )
    write_cell(target, fit, digest)
    return fit


def write_cell(target: Path, fit: CellFit, digest: str) -> None:
    """Write a cell, whole or not at all."""
    columns = {"mean": fit.mean}
    if fit.levels is not None:
        columns |= {f"p{level + 1}": column for level, column in enumerate(fit.levels.T)}
    facts = {
        "digest": digest,
        "model": fit.model,
        "seed": fit.seed,
        "mcar_labels": fit.mcar_labels,
        "fit_seconds": fit.fit_seconds,
        "peak_mb": fit.peak_mb,
        "predicts_ratings": fit.predicts_ratings,
    }
    table = pa.table(columns).replace_schema_metadata({_FACTS: json.dumps(facts).encode()})
    with atomic_path(target) as path:
        pq.write_table(table, path)


def read_cell(path: Path, digest: str) -> CellFit | None:
    """Return a cell fitted to the data and settings of ``digest``, or None: absent, damaged, or of another run."""
    try:
        table = pq.read_table(path)
        facts = json.loads((table.schema.metadata or {})[_FACTS])
        if facts.pop("digest") != digest:
            return None
        levels = [table.column(name).to_numpy() for name in table.column_names if name != "mean"]
        return CellFit(mean=table.column("mean").to_numpy(), levels=np.stack(levels, 1) if levels else None, **facts)
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
        return None


def _pairs_of_test(split: Split) -> Pairs:
    test = split.mcar_test
    if test is None:
        raise DataError("a benchmark needs a test or pairs to predict; the split has no mcar_test")
    return test.users.take(test.rows), test.catalogue.take(test.items)


def fingerprint(split: Split, pairs: Pairs | None = None) -> str:
    """Return a digest of all ratings, ids and features of a split, by role, and of pairs to predict."""
    digest = hashlib.sha256()
    for name in ("mnar_train", "mnar_valid", "mcar_labels", "mcar_test"):
        log: RatingLog | None = getattr(split, name)
        digest.update(name.encode())
        if log is None:
            continue
        digest.update(json.dumps(log.scale.to_dict()).encode())
        for vocabulary in (log.users, log.catalogue):
            digest.update("\n".join(map(str, vocabulary.ids.tolist())).encode())
        features = [table.values for table in (log.user_features, log.item_features) if table is not None]
        for array in (log.indptr, log.items, log.ratings, *features):
            digest.update(np.ascontiguousarray(array).tobytes())
    for ids in pairs or ():
        digest.update("\n".join(map(str, ids.tolist())).encode())
    return digest.hexdigest()


def _digest(print_of: str, entry: Entry) -> str:
    described = json.dumps([print_of, entry.name, dict(entry.settings)], sort_keys=True, default=str)
    return hashlib.sha256(described.encode()).hexdigest()


def _path(folder: Path, entry: Entry, seed: int) -> Path:
    return folder / f"{entry.name}-seed{seed}.parquet"


@contextmanager
def _without_leftovers(folder: Path) -> Iterator[None]:
    """Remove what a worker that was killed in the middle of writing leaves behind."""
    try:
        yield
    except BaseException:
        for partial in folder.glob(".*.partial"):
            partial.unlink(missing_ok=True)
        raise
