"""Predictions to a table file, streamed: memory does not grow with the number of pairs."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mnar_recsys.errors import ConfigError, DataError
from mnar_recsys.files import atomic_path
from mnar_recsys.prediction.predictor import UNKNOWN, Predictions, Predictor

if TYPE_CHECKING:
    from mnar_recsys.data import RatingLog

QUANTILES = (0.05, 0.5, 0.95)
_PAIRS_AT_ONCE = 250_000
_USERS_AT_ONCE = 256


@dataclass(frozen=True)
class PairBlock:
    """Pairs by index, ``UNKNOWN`` outside the log, with the ids they are written under: each (n,)."""

    users: NDArray[np.int64]
    items: NDArray[np.int64]
    user_ids: NDArray[np.generic]
    item_ids: NDArray[np.generic]


def given_pairs(
    log: "RatingLog", user_ids: NDArray[np.generic], item_ids: NDArray[np.generic], *, strict: bool
) -> Iterator[PairBlock]:
    """Yield the given pairs; with ``strict`` raise DataError if one lies outside the log."""
    users, items = log.users.index(user_ids), log.catalogue.index(item_ids)
    if strict:
        _refuse_unknown("user", user_ids, users)
        _refuse_unknown("item", item_ids, items)
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
        yield _block(log, pairs_users[is_candidate], pairs_items[is_candidate])


def export_predictions(
    target: str | Path,
    predictor: Predictor,
    blocks: Iterable[PairBlock],
    *,
    levels: bool = False,
    propensity: bool = False,
    on_pairs: Callable[[int], None] | None = None,
) -> int:
    """Write ``user,item,mean,sd,mean_se,q05,q50,q95,cold`` (and ``p1..pR``, ``propensity``); return the number of rows.

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
    on_pairs : callable, optional
        Called with the number of pairs written after each block.

    Raises
    ------
    ConfigError
        If the file type is unknown, or level probabilities are asked for on a scale without levels.
    """
    if levels and predictor.log.scale.levels is None:
        raise ConfigError(f"--levels needs rating levels, but the scale is {predictor.log.scale.describe()}")

    def tables() -> Iterator[pa.Table]:
        for block in blocks:
            predicted = predictor.predict(block.users, block.items, probabilities=QUANTILES, levels=levels)
            yield _table(block, predicted, predictor.log, propensity=propensity)

    return write_tables(target, tables(), on_pairs)


def write_tables(target: str | Path, tables: Iterable[pa.Table], on_rows: Callable[[int], None] | None = None) -> int:
    """Stream tables of one schema to Parquet or CSV, whole or not at all; return the number of rows."""
    target = Path(target)
    if target.suffix not in (".parquet", ".csv"):
        raise ConfigError(f"{target}: unknown file type '{target.suffix}'; use .parquet or .csv")
    rows = 0
    with atomic_path(target) as temporary:
        writer = None
        try:
            for table in tables:
                if writer is None:
                    open_writer = pq.ParquetWriter if target.suffix == ".parquet" else pa.csv.CSVWriter
                    writer = open_writer(temporary, table.schema)
                writer.write_table(table)
                rows += len(table)
                if on_rows:
                    on_rows(len(table))
        finally:
            if writer is not None:
                writer.close()
        if writer is None:
            raise DataError(f"{target}: nothing to write, no pairs were asked for; nothing was written")
    return rows


def _block(log: "RatingLog", users: NDArray[np.int64], items: NDArray[np.int64]) -> PairBlock:
    return PairBlock(users, items, log.users.take(users), log.catalogue.take(items))


def _table(block: PairBlock, predicted: Predictions, log: "RatingLog", *, propensity: bool) -> pa.Table:
    columns = {
        "user": block.user_ids,
        "item": block.item_ids,
        "mean": predicted.mean,
        "sd": predicted.sd,
        "mean_se": predicted.mean_se,
        "q05": predicted.quantiles[0],
        "q50": predicted.quantiles[1],
        "q95": predicted.quantiles[2],
        "cold": predicted.cold,
    }
    if predicted.levels is not None and log.scale.levels is not None:
        columns |= {f"p{level:g}": predicted.levels[:, place] for place, level in enumerate(log.scale.levels)}
    if propensity:
        columns["propensity"] = predicted.propensity
    return pa.table(columns)


def _refuse_unknown(label: str, ids: NDArray[np.generic], index: NDArray[np.int64]) -> None:
    unknown = np.flatnonzero(index == UNKNOWN)
    if len(unknown):
        raise DataError(
            f"{label} {ids[unknown[0]]!r} (pair {unknown[0] + 1}) and {len(unknown) - 1} more pairs are not in the "
            "training log; leave out --strict to predict them from the prior"
        )
