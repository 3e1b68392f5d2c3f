"""Rating tables from pandas frames and scipy matrices."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from mnar_recsys.checks import as_finite
from mnar_recsys.data.ids import array_position
from mnar_recsys.data.scale import RatingScale
from mnar_recsys.data.table import RatingTable
from mnar_recsys.data.vocab import Vocabulary
from mnar_recsys.errors import DataError


@dataclass(frozen=True)
class FrameColumns:
    """The columns of a frame that a log is made of, and what is to be noted about the others."""

    users: Any
    items: Any
    ratings: Any
    timestamps: NDArray[np.float64] | None
    notes: tuple[str, ...]


def columns_of(frame: pd.DataFrame, user: str, item: str, rating: str, timestamp: str | None) -> FrameColumns:
    """Return the named columns; ``timestamp`` defaults to the column of that name where there is one."""
    found = list(frame.columns)
    if timestamp is None and "timestamp" in found:
        timestamp = "timestamp"
    wanted = [user, item, rating, *([] if timestamp is None else [timestamp])]
    for name in wanted:
        if found.count(name) != 1:
            times = "no" if name not in found else "more than one"
            raise DataError(
                f"the frame has {times} column {name!r}; found {', '.join(map(str, found))}."
                " Name the columns: from_pandas(frame, user=..., item=..., rating=...)"
            )
    ignored = [str(name) for name in found if name not in wanted]
    return FrameColumns(
        users=frame[user],
        items=frame[item],
        ratings=_numbers(frame[rating], rating),
        timestamps=None if timestamp is None else seconds(frame[timestamp], timestamp),
        notes=(f"ignored columns: {', '.join(ignored)}",) if ignored else (),
    )


def _numbers(column: "pd.Series[Any]", name: str) -> NDArray[np.float64]:
    if not pd.api.types.is_numeric_dtype(column.dtype):
        raise DataError(f"column {name!r} must hold numbers; found {column.dtype}. Convert it with pandas.to_numeric")
    return as_finite(f"column {name!r}", column.to_numpy(dtype=np.float64, na_value=np.nan))


def seconds(column: "pd.Series[Any]", name: str) -> NDArray[np.float64]:
    """Return a column of dates as seconds since 1970, (n,); numbers stay as they are."""
    if not isinstance(column.dtype, pd.DatetimeTZDtype) and column.dtype.kind != "M":
        return _numbers(column, name)
    if bool(column.isna().any()):
        place = array_position(int(np.argmax(column.isna().to_numpy())))
        raise DataError(f"column {name!r} must hold dates; found an empty one at {place}. Remove or repair that row")
    dates = column.dt.tz_convert(None) if isinstance(column.dtype, pd.DatetimeTZDtype) else column
    return dates.to_numpy().astype("datetime64[us]").astype(np.int64) / 1e6


def table_of_matrix(matrix: Any, user_ids: Any, catalogue: Any, scale: RatingScale | str | None) -> RatingTable:
    """Return the stored entries of a sparse matrix, (N, P); ids are row and column numbers unless given.

    Raises
    ------
    DataError
        If it is not a sparse matrix, the ids do not fit its shape, or a stored zero may not be a rating.
    """
    is_sparse: bool = sparse.issparse(matrix)
    if not is_sparse or matrix.ndim != 2:
        raise DataError(f"a scipy sparse matrix, users by items, is needed; found {type(matrix).__name__}")
    entries = matrix.tocoo()
    users, user_codes = _axis(user_ids, matrix.shape[0], "user", entries.row)
    items, item_codes = _axis(catalogue, matrix.shape[1], "item", entries.col)
    ratings = as_finite("the matrix", entries.data)
    if (ratings == 0).any():
        _check_stored_zeros(ratings, scale)
    return RatingTable(users, items, user_codes, item_codes, ratings, place=_entry_place(user_codes, item_codes))


def _axis(ids: Any, length: int, label: str, codes: NDArray[Any]) -> tuple[Vocabulary, NDArray[np.int64]]:
    vocabulary, order = Vocabulary.encode(np.arange(length) if ids is None else getattr(ids, "ids", ids), label)
    if len(order) != length or len(vocabulary) != length:
        raise DataError(
            f"the matrix needs {length} distinct {label} ids; found {len(order)}, {len(vocabulary)} of them distinct"
        )
    return vocabulary, order[codes]


def _check_stored_zeros(ratings: NDArray[np.float64], scale: RatingScale | str | None) -> None:
    parsed = RatingScale.parse(scale, ratings) if isinstance(scale, str) else scale
    if parsed is None or bool(parsed.misfits([0.0])[0]):
        raise DataError(
            f"the matrix stores {int((ratings == 0).sum())} zeros, which may be ratings of 0 or no ratings."
            " Call matrix.eliminate_zeros() if they are none; give a scale with a 0 if they are ratings"
        )


def _entry_place(rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Any:
    return lambda entry: f"matrix entry ({rows[entry]}, {columns[entry]})"
