"""Features of users or items from a file: an id column, and numbers or categories."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mnar_recsys.data.delimited import NUMBER, TextReader
from mnar_recsys.data.features import FeatureTable
from mnar_recsys.data.header import SEPARATORS
from mnar_recsys.data.textfile import TextFormat, cut, first_line
from mnar_recsys.data.vocab import Vocabulary
from mnar_recsys.errors import DataError

MAX_CATEGORIES = 200
"""More distinct words than this in a column are names or free text, not categories."""

HAS_FEATURES = "has_features"


def read_features(path: str | Path, vocabulary: Vocabulary, id_column: str) -> FeatureTable:
    """Read features from CSV or TSV and align them with a vocabulary.

    A column of numbers is one feature; a column of words becomes one 0/1 feature for each word,
    ``column=word``. Ids that the vocabulary lacks are left out. Where it has ids that the file lacks, those
    get zeros, and a further feature ``has_features`` tells them apart.

    Parameters
    ----------
    path : str or Path
    vocabulary : Vocabulary
        The users or the catalogue of a log, (V,).
    id_column : str
        The column of ids, usually ``user`` or ``item``.

    Raises
    ------
    DataError
        With the file, line and column of what is wrong: an id twice, a cell that is empty or no number.
    """
    reader = TextReader(_format(Path(path), id_column))
    names = reader.text_format.names
    columns = reader.read_columns(list(range(len(names))))
    position = names.index(id_column)
    found, codes, _ = reader.ids(columns[position], position, vocabulary.label, vocabulary.kind)
    _refuse_repeats(reader, found, codes)
    rows = np.full(len(found), -1, dtype=np.int64)
    rows[codes] = np.arange(len(codes))
    parts = [
        part for other in range(len(names)) if other != position for part in _encode(reader, columns[other], other)
    ]
    table = FeatureTable(tuple(name for name, _ in parts), np.stack([values for _, values in parts], axis=1))
    places = found.index(vocabulary.ids)
    wanted = np.where(places >= 0, rows[places], -1)
    return _mark_missing(table.take(wanted), wanted >= 0)


def _format(path: Path, id_column: str) -> TextFormat:
    line, text = first_line(path)
    for separator in SEPARATORS:
        names = tuple(name.strip() for name in cut(text, separator))
        if id_column in names and len(names) > 1:
            if len(set(names)) < len(names):
                raise DataError(f"{path}, line {line}: column names must be unique. Rename one")
            return TextFormat(path, separator, names, line, quoted=True)
    raise DataError(
        f"{path}, line {line}: expected the column {id_column!r} and at least one more; found {text[:200]!r}"
    )


def _refuse_repeats(reader: TextReader, found: Vocabulary, codes: NDArray[np.int64]) -> None:
    _, first_rows = np.unique(codes, return_index=True)
    if len(first_rows) < len(codes):
        row = int(np.setdiff1d(np.arange(len(codes)), first_rows)[0])
        raise DataError(
            f"{reader.line(row)}: {found.label} {found.ids[codes[row]]} occurs again. Keep one of the lines"
        )


def _encode(reader: TextReader, column: "pa.ChunkedArray", position: int) -> Iterator[tuple[str, NDArray[Any]]]:
    name = reader.text_format.names[position]
    distinct = pc.unique(column).to_pylist()
    if any(not cell.strip() or NUMBER.fullmatch(cell.strip()) for cell in distinct):
        yield name, reader.numbers(column, position)
        return
    if len(distinct) > MAX_CATEGORIES:
        raise DataError(
            f"{reader.text_format.path}, column {name}: found {len(distinct)} different words, expected"
            " numbers or at most"
            f" {MAX_CATEGORIES} categories. Leave the column out"
        )
    for word in sorted(distinct):
        yield f"{name}={word}", pc.equal(column, word).to_numpy().astype(np.float64)


def _mark_missing(table: FeatureTable, is_known: NDArray[np.bool_]) -> FeatureTable:
    if is_known.all():
        return table
    if HAS_FEATURES in table.names:
        raise DataError(f"some ids have no features, and {HAS_FEATURES} is taken by a column. Rename that column")
    values = np.column_stack([table.values, is_known.astype(np.float32)])
    return FeatureTable((*table.names, HAS_FEATURES), values)
