"""Predictions to a table file, streamed: memory does not grow with the number of pairs."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mnar_recsys.errors import ConfigError, DataError
from mnar_recsys.files import atomic_path
from mnar_recsys.prediction.conformal import ConformalIntervals
from mnar_recsys.prediction.impute import impute_blocks, impute_pairs
from mnar_recsys.prediction.pair_table import QUANTILES, pair_table
from mnar_recsys.prediction.predictions import UNKNOWN, Predictions
from mnar_recsys.prediction.predictor import Predictor

if TYPE_CHECKING:
    from mnar_recsys.data import RatingLog

FEW_DRAWS = 10.0
"""Below this effective sample size, Monte Carlo error may pass a third of the posterior's standard deviation."""
_PAIRS_AT_ONCE = 250_000
_USERS_AT_ONCE = 256


@dataclass(frozen=True)
class PairBlock:
    """Pairs by index, ``UNKNOWN`` outside the log, with the ids they are written under: each (n,)."""

    users: NDArray[np.int64]
    items: NDArray[np.int64]
    user_ids: NDArray[np.generic]
    item_ids: NDArray[np.generic]

    def __len__(self) -> int:
        return len(self.users)


@dataclass(frozen=True)
class ExportSummary:
    """What an export wrote, and how far it can be trusted."""

    rows: int
    cold: int
    """rows that rest on the prior"""
    users: int
    """distinct users of the log among the rows"""
    low_ess_users: int
    """of these, users whose effective sample size is below ``FEW_DRAWS``"""


class _Tally:
    """Counts over the blocks of an export."""

    def __init__(self, n_users: int) -> None:
        self.cold = 0
        self.seen = np.zeros(n_users, dtype=bool)
        self.is_low = np.zeros(n_users, dtype=bool)

    def add(self, block: PairBlock, predicted: Predictions) -> None:
        self.cold += int(predicted.cold.sum())
        known = block.users != UNKNOWN
        self.seen[block.users[known]] = True
        self.is_low[block.users[known & (predicted.ess < FEW_DRAWS)]] = True


def given_pairs(
    log: "RatingLog",
    user_ids: NDArray[np.generic],
    item_ids: NDArray[np.generic],
    *,
    strict: bool,
    source: str = "",
) -> Iterator[PairBlock]:
    """Yield the given pairs; with ``strict`` raise DataError, beginning with ``source``, if one is outside the log."""
    users, items = log.users.index(user_ids), log.catalogue.index(item_ids)
    if strict:
        _refuse_unknown(f"{source}pair", "user", user_ids, users)
        _refuse_unknown(f"{source}pair", "item", item_ids, items)
    for start in range(0, len(users), _PAIRS_AT_ONCE):
        part = slice(start, start + _PAIRS_AT_ONCE)
        yield PairBlock(users[part], items[part], user_ids[part], item_ids[part])


def all_pairs(log: "RatingLog") -> Iterator[PairBlock]:
    """Yield every user with every item of the catalogue."""
    step = max(1, _PAIRS_AT_ONCE // log.n_items)
    for start in range(0, log.n_users, step):
        users = np.arange(start, min(start + step, log.n_users))
        yield _block(log, np.repeat(users, log.n_items), np.tile(np.arange(log.n_items), len(users)))


def top_pairs(log: "RatingLog", predictor: Predictor, n: int) -> Iterator[PairBlock]:
    """Yield each user's ``n`` unrated items with the highest predicted mean, best first."""
    if n < 1:
        raise ConfigError(f"top-n must be at least 1; found {n}")
    rated = log.to_scipy()
    step = max(1, min(_USERS_AT_ONCE, _PAIRS_AT_ONCE // log.n_items))
    for start in range(0, log.n_users, step):
        users = np.arange(start, min(start + step, log.n_users))
        items = np.tile(np.arange(log.n_items), len(users))
        mean = predictor.predict(np.repeat(users, log.n_items), items).mean.reshape(len(users), -1)
        block = rated[users].tocoo()
        mean[block.row, block.col] = -np.inf
        kept = np.argsort(-mean, axis=1, kind="stable")[:, :n]
        pairs_users, pairs_items = np.repeat(users, kept.shape[1]), kept.ravel()
        is_candidate = np.take_along_axis(mean, kept, axis=1).ravel() > -np.inf
        if not is_candidate.any():
            continue  # these users have rated everything
        yield _block(log, pairs_users[is_candidate], pairs_items[is_candidate])


def export_predictions(
    target: str | Path,
    predictor: Predictor,
    blocks: Iterable[PairBlock],
    *,
    levels: bool = False,
    propensity: bool = False,
    conformal: ConformalIntervals | None = None,
    on_pairs: Callable[[int], None] | None = None,
) -> ExportSummary:
    """Write ``user,item,mean,sd,mean_se,q05,q50,q95,cold`` (and ``lower``, ``upper``, ``p1..pR``, ``propensity``).

    Parameters
    ----------
    target : path
        ``.parquet`` or ``.csv``; written whole or not at all.
    predictor : Predictor
        Of the fitted model.
    blocks : iterable of PairBlock
        What to predict, one block in memory at a time.
    levels, propensity : bool
        Whether to add these columns.
    conformal : ConformalIntervals, optional
        Of this predictor: adds ``lower`` and ``upper``, the ends of its intervals, both inside.
    on_pairs : callable, optional
        Called with the number of pairs written after each block.

    Raises
    ------
    ConfigError
        If the file type is unknown, or level probabilities are asked for on a scale without levels.
    """
    if levels and predictor.log.scale.levels is None:
        raise ConfigError(f"--levels needs rating levels, but the scale is {predictor.log.scale.describe()}")

    tally = _Tally(predictor.log.n_users)
    probabilities = QUANTILES if conformal is None else (*QUANTILES, *conformal.probabilities)
    with_levels = levels or (conformal is not None and conformal.needs_levels)

    def tables() -> Iterator[pa.Table]:
        for block in blocks:
            predicted = predictor.predict(block.users, block.items, probabilities=probabilities, levels=with_levels)
            tally.add(block, predicted)
            bounds = None if conformal is None else conformal.bounds(predicted)
            yield pair_table(
                block.user_ids, block.item_ids, predicted, predictor.log, bounds, levels=levels, propensity=propensity
            )

    rows = write_tables(target, tables(), on_pairs)
    return ExportSummary(rows, tally.cold, int(tally.seen.sum()), int(tally.is_low.sum()))


def check_target(target: Path) -> None:
    """Refuse, before any work, a file of unknown type or in a folder that is a file."""
    if target.suffix not in (".parquet", ".csv"):
        raise ConfigError(f"{target}: unknown file type '{target.suffix}'; use .parquet or .csv")
    if target.is_dir() or (target.parent.exists() and not target.parent.is_dir()):
        raise ConfigError(f"{target}: cannot be written, the path is taken; choose another output path")


def imputation_tables(predictor: Predictor, draws: int, *, seed: int = 0) -> Iterator[pa.Table]:
    """Yield ``draw,user,item,rating`` of every unrated cell, ``draws`` times imputed."""
    log = predictor.log
    for block in impute_blocks(predictor, draws, seed=seed):
        rows, items = np.nonzero(~block.rated)
        if len(rows):
            yield _imputed(log, block.users[rows], items, block.complete[:, rows, items])


def pair_imputation_tables(
    predictor: Predictor, users: NDArray[np.int64], items: NDArray[np.int64], draws: int, *, seed: int = 0
) -> Iterator[pa.Table]:
    """Yield ``draw,user,item,rating`` of given unrated cells, sorted by user; see ``impute_pairs``."""
    for block_users, block_items, ratings in impute_pairs(predictor, users, items, draws, seed=seed):
        yield _imputed(predictor.log, block_users, block_items, ratings)


def write_tables(target: str | Path, tables: Iterable[pa.Table], on_rows: Callable[[int], None] | None = None) -> int:
    """Stream tables of one schema to Parquet or CSV, whole or not at all; return the number of rows."""
    target = Path(target)
    check_target(target)
    rows = 0
    with atomic_path(target) as temporary, ExitStack() as opened:
        writer = None
        for table in tables:
            if writer is None:
                writer = _open_writer(temporary, target.suffix, table.schema, opened)
            writer.write_table(table)
            rows += len(table)
            if on_rows:
                on_rows(len(table))
        if writer is None:
            raise DataError(f"{target}: nothing to write, no pairs were asked for; nothing was written")
    return rows


def _open_writer(path: Path, suffix: str, schema: pa.Schema, opened: ExitStack) -> Any:
    if suffix == ".parquet":
        return opened.enter_context(pq.ParquetWriter(path, schema))
    # pyarrow quotes a header that it writes itself; readers that split at commas should not have to care.
    sink = opened.enter_context(pa.OSFile(str(path), "wb"))
    sink.write(",".join(schema.names).encode() + b"\n")
    options = pa.csv.WriteOptions(include_header=False)
    return opened.enter_context(pa.csv.CSVWriter(sink, schema, write_options=options))


def _block(log: "RatingLog", users: NDArray[np.int64], items: NDArray[np.int64]) -> PairBlock:
    return PairBlock(users, items, log.users.take(users), log.catalogue.take(items))


def _imputed(
    log: "RatingLog", users: NDArray[np.int64], items: NDArray[np.int64], ratings: NDArray[np.float32]
) -> pa.Table:
    """Put ratings (M, n) of cells (n,) one below the other."""
    draws = len(ratings)
    return pa.table(
        {
            "draw": np.repeat(np.arange(1, draws + 1, dtype=np.int32), len(users)),
            "user": np.tile(log.users.take(users), draws),
            "item": np.tile(log.catalogue.take(items), draws),
            "rating": ratings.ravel(),
        }
    )


def _refuse_unknown(place: str, label: str, ids: NDArray[np.generic], index: NDArray[np.int64]) -> None:
    unknown = np.flatnonzero(index == UNKNOWN)
    if len(unknown):
        more = f" (and {len(unknown) - 1} more such pairs)" if len(unknown) > 1 else ""
        raise DataError(
            f"{place} {unknown[0] + 1}: {label} {ids[unknown[:1]].tolist()[0]!r} is not in the training log{more}; "
            "leave out --strict to predict them from the prior"
        )
