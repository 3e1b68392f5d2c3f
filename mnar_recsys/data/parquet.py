"""Rating tables from Parquet files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet
from numpy.typing import NDArray

from mnar_recsys.data.delimited import IdKinds
from mnar_recsys.data.ids import IdKind
from mnar_recsys.data.table import RatingTable
from mnar_recsys.data.textfile import check_file
from mnar_recsys.data.vocab import Vocabulary
from mnar_recsys.errors import DataError


def read_parquet(path: Path, columns: tuple[str, ...], kinds: IdKinds) -> RatingTable:
    """Read the user, item and rating columns, and a timestamp: a fourth name, or the column ``timestamp``.

    Rows are counted from 1 in messages.

    Raises
    ------
    DataError
        With the file, the row and column, what was found and what was expected.
    """
    names = _column_names(path)
    if len(columns) == 3 and "timestamp" in names:
        columns = (*columns, "timestamp")
    wanted = columns
    reader = open_parquet(path, wanted)
    users, user_codes = reader.ids(wanted[0], "user", kinds.user)
    items, item_codes = reader.ids(wanted[1], "item", kinds.item)
    times = reader.times(wanted[3]) if len(wanted) > 3 else None
    ignored = [name for name in names if name not in wanted]
    notes = (f"ignored columns: {', '.join(ignored)}",) if ignored else ()
    ratings = reader.numbers(wanted[2])
    return RatingTable(
        users,
        items,
        user_codes,
        item_codes,
        ratings,
        times,
        place=reader.row,
        source=f"{path}: ",
        notes=notes,
    )


def open_parquet(path: Path, columns: Sequence[str]) -> "ParquetReader":
    """Read the named columns of a file; raise DataError if it is damaged, or lacks one or has it twice."""
    names = _column_names(path)
    for name in columns:
        if names.count(name) != 1:
            raise DataError(
                f"{path}: column {name!r} expected once; found the columns {', '.join(names)}."
                f" Name the {', '.join(_ROLES[: len(columns)])} columns (columns=..., --columns"
                f" {','.join(_ROLES[: len(columns)])})"
            )
    try:
        content = pyarrow.parquet.read_table(path, columns=list(columns), partitioning=None)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error
    if not content.num_rows:
        raise DataError(f"{path}: has columns but no rows. Check how it was written")
    return ParquetReader(path, content)


_ROLES = ("user", "item", "rating")


def _column_names(path: Path) -> list[str]:
    check_file(path)
    try:
        return list(pyarrow.parquet.read_schema(path).names)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> DataError:
    reason = str(error).splitlines()[0]
    return DataError(f"{path}: not a whole Parquet file ({reason}). Copy or write it again")


@dataclass(frozen=True)
class ParquetReader:
    """Columns of one Parquet file; every refusal names the row and the column."""

    path: Path
    content: "pa.Table"

    def row(self, row: int) -> str:
        """Name the file and a row, counted from 0."""
        return f"{self.path}, row {row + 1}"

    def _column(self, name: str) -> "pa.ChunkedArray":
        column = self.content[name]
        if column.null_count:
            row = int(np.argmax(pc.is_null(column).to_numpy()))
            raise DataError(f"{self.row(row)}, column {name}: is empty. Complete or remove that row")
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        return column

    def ids(self, name: str, label: str, kind: IdKind | None) -> tuple[Vocabulary, NDArray[np.int64]]:
        """Return the vocabulary of a column of ids, and each row's index."""
        column = self._column(name)
        is_whole = pa.types.is_integer(column.type)
        is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
        if not (is_whole or is_text) or (kind == "integer" and is_text):
            expected = "whole numbers" if kind == "integer" else "whole numbers or text"
            raise DataError(
                f"{self.path}, column {name}: found {column.type}, expected {expected} as {label} ids."
                " Convert the column and write the file again"
            )
        if is_whole and kind == "text":
            column = column.cast(pa.string())
        if is_whole and kind != "text":
            return Vocabulary.encode(column.to_numpy(), label, self.row)
        return self._text_ids(column, name, label)

    def _text_ids(self, column: "pa.ChunkedArray", name: str, label: str) -> tuple[Vocabulary, NDArray[np.int64]]:
        encoded = column.dictionary_encode().unify_dictionaries()
        codes = np.concatenate([chunk.indices.to_numpy() for chunk in encoded.chunks])
        distinct: Any = np.asarray(encoded.chunk(0).dictionary.to_pylist(), dtype=object)
        if (distinct == "").any():
            row = int(np.argmax((distinct == "")[codes]))
            raise DataError(f"{self.row(row)}, column {name}: the {label} id is empty. Complete or remove that row")
        return Vocabulary.from_distinct(distinct, codes, label)

    def numbers(self, name: str) -> NDArray[np.float64]:
        """Return a column of finite numbers."""
        column = self._column(name)
        kind = column.type
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
            raise DataError(
                f"{self.path}, column {name}: found {kind}, expected numbers. Convert the column and write"
                " the file again"
            )
        values = np.asarray(column.cast(pa.float64(), safe=False).to_numpy(), dtype=np.float64)
        if not np.isfinite(values).all():
            row = int(np.argmax(~np.isfinite(values)))
            raise DataError(
                f"{self.row(row)}, column {name}: found {values[row]}, expected a finite number."
                " Correct or remove that row"
            )
        return values

    def times(self, name: str) -> NDArray[np.float64]:
        """Return a column of numbers, or of dates as seconds since 1970."""
        kind = self.content[name].type
        if not pa.types.is_timestamp(kind) and not pa.types.is_date(kind):
            return self.numbers(name)
        micros = self._column(name).cast(pa.timestamp("us", tz=getattr(kind, "tz", None)), safe=False)
        return np.asarray(micros.cast(pa.int64()).to_numpy(), dtype=np.float64) / 1e6
