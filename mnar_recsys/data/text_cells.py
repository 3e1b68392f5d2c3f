"""Cells of a column of text, as Arrow reads them: distinct ones, and numbers."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


def as_float(column: "pa.ChunkedArray") -> NDArray[np.float64]:
    """Return numbers in text; raise ArrowInvalid where a cell is none."""
    if not pa.types.is_dictionary(column.type):
        return np.asarray(pc.cast(column, pa.float64()).to_numpy())
    numbers = pc.cast(column.unify_dictionaries().chunk(0).dictionary, pa.float64()).to_numpy()
    return np.concatenate([numbers[chunk.indices.to_numpy()] for chunk in column.unify_dictionaries().chunks])


def distinct_cells(column: "pa.ChunkedArray") -> tuple[NDArray[np.object_], NDArray[np.int64], bool]:
    """Return the distinct cells, each row's index into them, and whether spaces around any were cut off."""
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    encoded = encoded.unify_dictionaries()
    codes = np.concatenate([chunk.indices.to_numpy() for chunk in encoded.chunks]).astype(np.int64)
    raw = np.asarray(encoded.chunk(0).dictionary.to_pylist(), dtype=object)
    stripped = np.asarray([cell.strip() for cell in raw], dtype=object)
    if np.array_equal(raw, stripped):
        return raw, codes, False
    merged, distinct = pd.factorize(stripped)
    return np.asarray(distinct, dtype=object), merged[codes], True
