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
from mnar_recsys.prediction.pair_blocks import PairRequest
from mnar_recsys.prediction.pair_table import QUANTILES, pair_table
from mnar_recsys.prediction.predictions import UNKNOWN
from mnar_recsys.prediction.predictor import Predictor
from mnar_recsys.ray_tasks import stream

if TYPE_CHECKING:
    from mnar_recsys.data import RatingLog

FEW_DRAWS = 10.0
"""Below this effective sample size, Monte Carlo error may pass a third of the posterior's standard deviation."""


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


class TableMaker:
    """Predicts the pairs of a request: the columns of ``export_predictions``."""

    def __init__(
        self, predictor: Predictor, *, levels: bool, propensity: bool, conformal: ConformalIntervals | None
    ) -> None:
        self.predictor = predictor
        self.levels = levels
        self.propensity = propensity
        self.conformal = conformal

    def __call__(self, request: PairRequest) -> "MadeTable":
        """Return the table of a request."""
        conformal, block = self.conformal, request.pairs(self.predictor)
        probabilities = QUANTILES if conformal is None else (*QUANTILES, *conformal.probabilities)
        with_levels = self.levels or (conformal is not None and conformal.needs_levels)
        predicted = self.predictor.predict(block.users, block.items, probabilities=probabilities, levels=with_levels)
        bounds = None if conformal is None else conformal.bounds(predicted)
        table = pair_table(
            block.user_ids, block.item_ids, predicted, self.predictor.log, bounds,
            levels=self.levels, propensity=self.propensity,
        )  # fmt: skip
        known = block.users != UNKNOWN
        is_low = known & (predicted.ess < FEW_DRAWS)
        return MadeTable(
            table, int(predicted.cold.sum()), np.unique(block.users[known]), np.unique(block.users[is_low])
        )


@dataclass(frozen=True)
class MadeTable:
    """The table of a request, and what is counted of it."""

    table: pa.Table
    cold: int
    seen: NDArray[np.int64]
    """users of the log in it"""
    low_ess: NDArray[np.int64]
    """of these, users whose effective sample size is below ``FEW_DRAWS``"""


def export_predictions(
    target: str | Path,
    predictor: Predictor,
    requests: Iterable[PairRequest],
    *,
    levels: bool = False,
    propensity: bool = False,
    conformal: ConformalIntervals | None = None,
    on_pairs: Callable[[int], None] | None = None,
    run: "Runner" = map,
) -> ExportSummary:
    """Write ``user,item,mean,sd,mean_se,q05,q50,q95,cold`` (and ``lower``, ``upper``, ``p1..pR``, ``propensity``).

    Parameters
    ----------
    target : path
        ``.parquet`` or ``.csv``; written whole or not at all.
    predictor : Predictor
        Of the fitted model.
    requests : iterable of PairRequest
        What to predict, one block in memory at a time.
    levels, propensity : bool
        Whether to add these columns.
    conformal : ConformalIntervals, optional
        Of this predictor: adds ``lower`` and ``upper``, the ends of its intervals, both inside.
    on_pairs : callable, optional
        Called with the number of pairs written after each block.
    run : callable, optional
        What hands the requests to the maker of tables, in order: ``map``, or ``on_ray``.

    Raises
    ------
    ConfigError
        If the file type is unknown, or level probabilities are asked for on a scale without levels.
    """
    if levels and predictor.log.scale.levels is None:
        raise ConfigError(f"--levels needs rating levels, but the scale is {predictor.log.scale.describe()}")

    n_users, cold = predictor.log.n_users, 0
    seen, is_low = np.zeros(n_users, dtype=bool), np.zeros(n_users, dtype=bool)

    def tables() -> Iterator[pa.Table]:
        nonlocal cold
        maker = TableMaker(predictor, levels=levels, propensity=propensity, conformal=conformal)
        for made in run(maker, requests):
            cold += made.cold
            seen[made.seen] = is_low[made.low_ess] = True
            yield made.table

    rows = write_tables(target, tables(), on_pairs)
    return ExportSummary(rows, cold, int(seen.sum()), int(is_low.sum()))


Runner = Callable[[TableMaker, Iterable[PairRequest]], Iterable[MadeTable]]


def on_ray(n_pairs: int) -> Runner:
    """Return what has the cluster that this process has joined make the tables; see ``ray_cluster``.

    ``n_pairs``: how many will be worked on in all, which says whether compiling pays.
    """
    return lambda maker, requests: stream(_ready, (maker, n_pairs), requests)


def _ready(maker: TableMaker, n_pairs: int) -> Callable[[PairRequest], MadeTable]:
    """Return the maker in a process that goes on compiling as long as it lives."""
    compiling = ExitStack()
    compiling.enter_context(maker.predictor.compiling(n_pairs))

    def make(request: PairRequest, _held: ExitStack = compiling) -> MadeTable:
        return maker(request)

    return make


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
            if not len(table):
                continue
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
