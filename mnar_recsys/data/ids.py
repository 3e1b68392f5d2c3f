"""User and item ids as they come: whole numbers or text, never both in one column, never coerced silently."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mnar_recsys.errors import DataError

IdArray = NDArray[np.int64] | NDArray[np.object_]
IdKind = Literal["integer", "text"]
Place = Callable[[int], str]
"""Names where row ``i`` stands in its source: ``position 4``, ``ratings.csv, line 6``."""


def array_position(row: int) -> str:
    """Name a place in an array or a frame, counted from 0."""
    return f"position {row}"


def as_id_array(values: Any, label: str, place: Place = array_position) -> IdArray:
    """Return ids as an int64 array or an object array of ``str``.

    Parameters
    ----------
    values : array, series or sequence, (n,)
        Whole numbers or text.
    label : str
        What the ids are of, for messages: ``user`` or ``item``.
    place : callable
        Names the place of a row in messages.

    Raises
    ------
    DataError
        If an id is missing or empty, a float or a truth value, if whole numbers and text are mixed, or if a
        whole number does not fit 64 bits.
    """
    array = _as_array(values)
    if array.ndim != 1:
        raise DataError(f"{label} ids must be one-dimensional; found shape {array.shape}")
    if array.size == 0:
        return np.empty(0, dtype=np.int64)
    if array.dtype.kind in "iu":
        return _as_int64(array, label, place)
    if array.dtype.kind in "OUT":
        return _from_objects(array.astype(object), label, place)
    remedy = f"Convert them first, for example {label}s.astype('int64') or {label}s.astype(str)"
    raise DataError(
        f"{label} ids must be whole numbers or text; found {array.dtype} ({array[0]!s} at {place(0)}). {remedy}"
    )


def _as_array(values: Any) -> NDArray[Any]:
    if isinstance(values, np.ndarray):
        return values
    if hasattr(values, "__array__"):
        return np.asarray(values)
    # numpy would turn the list [1, "a"] into text; an object array keeps what each entry is.
    entries = list(values)
    array = np.empty(len(entries), dtype=object)
    array[:] = entries
    return array


def _as_int64(array: NDArray[Any], label: str, place: Place) -> NDArray[np.int64]:
    too_large = array > np.iinfo(np.int64).max if array.dtype.kind == "u" else np.zeros(1, dtype=bool)
    if too_large.any():
        row = int(np.argmax(too_large))
        raise DataError(f"{place(row)}: {label} id {array[row]} does not fit 64 bits; pass the {label} ids as text")
    return array.astype(np.int64)


def _from_objects(array: NDArray[np.object_], label: str, place: Place) -> IdArray:
    missing = np.asarray(pd.isna(array)) | (array == "")
    if missing.any():
        row = int(np.argmax(missing))
        raise DataError(
            f"{place(row)}: the {label} id is empty; expected a whole number or text. Remove or repair that row"
        )
    kind = pd.api.types.infer_dtype(array, skipna=False)
    if kind == "string":
        return array
    if kind == "integer":
        try:
            return array.astype(np.int64)
        except OverflowError as error:
            raise DataError(f"{label} ids must fit 64 bits; pass larger {label} ids as text") from error
    is_text = np.fromiter((isinstance(entry, str) for entry in array), dtype=bool, count=array.size)
    row = int(np.argmax(is_text != is_text[0])) if is_text.any() else 0
    if kind in ("floating", "mixed-integer-float", "boolean"):
        row = next(row for row, entry in enumerate(array) if isinstance(entry, float | np.floating | bool | np.bool_))
    raise DataError(
        f"{label} ids must be all whole numbers or all text; found {_show(array[0])} at {place(0)}"
        + (f" and {_show(array[row])} at {place(row)}" if row else "")
        + f". Convert them first, for example {label}s.astype(str)"
    )


def _show(entry: object) -> str:
    return f"{entry!r} ({type(entry).__name__})"


def kind_of_text(ids: NDArray[np.object_]) -> tuple[IdKind | None, str, str]:
    """Decide what the distinct ids of a text column are.

    Whole numbers if each is written as a whole number is (no leading zero, no sign but ``-``) and fits 64
    bits; text if none is, or if all are digits (``007`` beside ``12``).

    Returns
    -------
    kind : {"integer", "text"} or None
        None where whole numbers stand beside other text: the caller must ask which is meant.
    number, other : str
        An id that is a whole number and one that is not (empty where there is none).
    """
    column = pd.Series(ids, dtype=object).str
    written_whole = column.fullmatch(r"0|-?[1-9][0-9]*").to_numpy(dtype=bool, copy=True)
    # 19 digits may pass the largest int64; only those few are compared as Python integers.
    long = np.flatnonzero(written_whole & (column.len().to_numpy() >= len(str(np.iinfo(np.int64).max))))
    limits = np.iinfo(np.int64)
    written_whole[long] = [limits.min <= int(ids[place]) <= limits.max for place in long]
    if written_whole.all():
        return "integer", "", ""
    if not written_whole.any():
        return "text", "", ""
    all_digits = column.fullmatch(r"-?[0-9]+").to_numpy(dtype=bool)
    odd = ~written_whole if all_digits.all() else ~all_digits
    number, other = str(ids[np.argmax(written_whole)]), str(ids[np.argmax(odd)])
    return ("text" if all_digits.all() else None), number, other
