"""Sorting ratings by user and item, and what to do where a pair occurs twice."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mnar_recsys.data.scale import RatingScale
from mnar_recsys.data.table import RatingTable
from mnar_recsys.errors import ConfigError, DataError

Duplicates = Literal["error", "last", "mean"]


def sort_cells(table: RatingTable, scale: RatingScale, duplicates: Duplicates) -> tuple[RatingTable, tuple[str, ...]]:
    """Return the table sorted by user, then item, with each pair once, and notes on what was merged.

    Parameters
    ----------
    table : RatingTable
        Ratings that are on ``scale``.
    scale : RatingScale
    duplicates : {"error", "last", "mean"}
        ``last`` keeps the rating with the latest timestamp, or without timestamps the last in the source;
        ``mean`` keeps the mean (its nearest level, where the scale has levels) and the latest timestamp.

    Raises
    ------
    DataError
        If a pair occurs twice and ``duplicates`` is ``error``.
    """
    if duplicates not in ("error", "last", "mean"):
        raise ConfigError(f"duplicates must be error, last or mean; found {duplicates!r}")
    cells = table.user_codes * len(table.items) + table.item_codes
    # Stable, so that within a pair the order of the source is kept.
    order = np.argsort(cells, kind="stable")
    is_repeat = np.diff(cells[order]) == 0
    if not is_repeat.any():
        return table.take(order), ()
    if duplicates == "error":
        raise _duplicates_error(table, order, is_repeat)
    if table.timestamps is not None:
        order = np.lexsort((table.timestamps, cells))
    is_last = np.append(~is_repeat, True)
    kept = table.take(order[is_last])
    merged = f"{int(is_repeat.sum())} repeated (user, item) ratings merged"
    if duplicates == "last":
        by = "the latest timestamp" if table.timestamps is not None else "the last in the source"
        return kept, (f"{merged}: {by} kept",)
    means = _group_means(table.ratings[order], is_last)
    if scale.step is None:
        return kept.with_ratings(means), (f"{merged}: their mean kept",)
    return kept.with_ratings(scale.nearest_level(means)), (
        f"{merged}: the level nearest to their mean kept, half-way up",
    )


def _group_means(values: NDArray[np.float64], is_last: NDArray[np.bool_]) -> NDArray[np.float64]:
    ends = np.flatnonzero(is_last) + 1
    starts = np.concatenate([[0], ends[:-1]])
    means: NDArray[np.float64] = np.add.reduceat(values, starts) / (ends - starts)
    return means


def _duplicates_error(table: RatingTable, order: NDArray[np.int64], is_repeat: NDArray[np.bool_]) -> DataError:
    repeats = np.flatnonzero(is_repeat)
    # The first in the source, not the first in the sorted order: that is where the user starts looking.
    first = repeats[np.argmin(order[repeats + 1])]
    one, two = int(order[first]), int(order[first + 1])
    user = table.users.ids[table.user_codes[one]]
    item = table.items.ids[table.item_codes[one]]
    return DataError(
        f"{table.place(two)}: user {user}, item {item} is rated again (first at {table.place(one)});"
        f" {len(repeats)} such repeats in all, expected one rating a pair."
        " Remove them, or choose duplicates='last' or 'mean' (--duplicates last, --duplicates mean)"
    )
