"""``impute``: multiple imputation of the ratings that were not given."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mnar_recsys.cli.options import ModelFolder, PairColumns, Seed
from mnar_recsys.cli.progress import progress
from mnar_recsys.cli.terminal import say, warn

if TYPE_CHECKING:
    import pyarrow as pa

    from mnar_recsys.prediction.predictor import Predictor


def impute(
    model: ModelFolder,
    draws: Annotated[int, typer.Option(min=1, help="Number of imputations of each cell.", metavar="M")],
    out: Annotated[Path, typer.Option(help="File to write: .parquet or .csv, with draw, user, item, rating.")],
    pairs: Annotated[Path | None, typer.Option(help="Impute only the pairs in this file (columns user, item).")] = None,
    columns: PairColumns = None,
    seed: Seed = 0,
) -> None:
    """Draw the missing ratings several times.

    Multiple imputation from their joint posterior by sampling importance resampling.
    """
    from mnar_recsys.cli.reading import load_model
    from mnar_recsys.prediction.export import check_target, write_tables

    check_target(out)
    predictor = load_model(model).predictor
    total, tables = (
        _all_cells(predictor, draws, seed) if pairs is None else _some(predictor, pairs, columns, draws, seed)
    )
    with progress("imputing", total, "ratings") as advance:
        rows = write_tables(out, tables, advance)
    say(f"{out}: {rows:,} rows, {draws} imputations of {rows // draws:,} unrated cells")


def _all_cells(predictor: "Predictor", draws: int, seed: int) -> "tuple[int, Iterator[pa.Table]]":
    from mnar_recsys.prediction.export import imputation_tables

    log = predictor.log
    return draws * (log.n_users * log.n_items - log.n_ratings), imputation_tables(predictor, draws, seed=seed)


def _some(
    predictor: "Predictor", pairs: Path, columns: str | None, draws: int, seed: int
) -> "tuple[int, Iterator[pa.Table]]":
    """Return the tables of the distinct unrated cells in a file."""
    import numpy as np

    from mnar_recsys.cli.reading import read_pairs
    from mnar_recsys.prediction.export import pair_imputation_tables
    from mnar_recsys.prediction.pair_blocks import given_pairs

    log = predictor.log
    blocks = list(given_pairs(log, *read_pairs(pairs, log, columns), strict=True, source=f"{pairs}, "))
    keys = np.unique(np.concatenate([block.users * log.n_items + block.items for block in blocks]))
    is_rated = np.isin(keys, log.cells)
    if is_rated.any():
        warn(f"{pairs}: {int(is_rated.sum()):,} pairs are left out: they have a rating, and need no imputation")
    users, items = np.divmod(keys[~is_rated], log.n_items)
    return draws * len(users), pair_imputation_tables(predictor, users, items, draws, seed=seed)
