"""Rating tables from Arrow columns: of a Parquet file, or of any frame that speaks Arrow."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mnar_recsys.data.delimited import IdKinds
from mnar_recsys.data.ids import IdKind
from mnar_recsys.data.table import RatingTable
from mnar_recsys.data.vocab import Vocabulary
from mnar_recsys.errors import DataError


def read_stream(frame: Any) -> "pa.Table":
    """Return what a frame hands over by the Arrow PyCapsule interface; its buffers are not copied.

    Raises
    ------
    DataError
        If it has no such interface.
    """
    if not hasattr(frame, "__arrow_c_stream__"):
        raise DataError(
            f"a frame with the Arrow stream interface is needed, such as one of polars, pyarrow or pandas; found "
            f"{type(frame).__name__}"
        )
    return pa.RecordBatchReader.from_stream(frame).read_all()


def check_names(found: Sequence[str], wanted: Sequence[str], source: str, remedy: str) -> None:
    """Raise DataError unless each wanted column is there once."""
    for name in wanted:
        if found.count(name) != 1:
            raise DataError(f"{source}: column {name!r} expected once; found the columns {', '.join(found)}. {remedy}")


def rating_table(columns: "ArrowColumns", names: Sequence[str], kinds: IdKinds, found: Sequence[str]) -> RatingTable:
    """Return the ratings in columns named user, item, rating and perhaps timestamp, in this order.

    ``found`` are the columns of the source, so that those that are ignored can be noted.
    """
    users, user_codes = columns.ids(names[0], "user", kinds.user)
    items, item_codes = columns.ids(names[1], "item", kinds.item)
    times = columns.times(names[3]) if len(names) > 3 else None
    ignored = [name for name in found if name not in names]
    return RatingTable(
        users,
        items,
        user_codes,
        item_codes,
        columns.numbers(names[2]),
        times,
        place=columns.row,
        source=f"{columns.source}: ",
        notes=(f"ignored columns: {', '.join(ignored)}",) if ignored else (),
    )


@dataclass(frozen=True)
class ArrowColumns:
    """Columns of one table; every refusal names the row, counted from 1, and the column."""

    source: str
    """what messages call the table"""
    content: "pa.Table"

    def __post_init__(self) -> None:
        if not self.content.num_rows:
            raise DataError(f"{self.source}: has columns but no rows. Check how it was written")

    def row(self, row: int) -> str:
        """Name the table and a row, counted from 0."""
        return f"{self.source}, row {row + 1}"

    def _column(self, name: str) -> "pa.ChunkedArray":
        column = self.content[name]
        if pa.types.is_dictionary(column.type):
            column = pa.chunked_array([_decoded(chunk) for chunk in column.chunks])
        if column.null_count:
            row = int(np.argmax(pc.is_null(column).to_numpy()))
            raise DataError(f"{self.row(row)}, column {name}: is empty. Complete or remove that row")
        return column

    def ids(self, name: str, label: str, kind: IdKind | None) -> tuple[Vocabulary, NDArray[np.int64]]:
        """Return the vocabulary of a column of ids, and each row's index."""
        column = self._column(name)
        is_whole, is_text = pa.types.is_integer(column.type), _is_text(column.type)
        if not (is_whole or is_text) or (kind == "integer" and is_text):
            expected = "whole numbers" if kind == "integer" else "whole numbers or text"
            raise DataError(
                f"{self.source}, column {name}: found {column.type}, expected {expected} as {label} ids."
                " Convert the column"
            )
        if is_whole and kind == "text":
            column = column.cast(pa.string())
        if is_whole and kind != "text":
            return Vocabulary.encode(column.to_numpy(), label, self.row)
        return self._text_ids(column, name, label)

    def _text_ids(self, column: "pa.ChunkedArray", name: str, label: str) -> tuple[Vocabulary, NDArray[np.int64]]:
        encoded = column.cast(pa.large_string()).dictionary_encode().unify_dictionaries()
        codes = np.concatenate([chunk.indices.to_numpy() for chunk in encoded.chunks])
        distinct: Any = np.asarray(encoded.chunk(0).dictionary.to_pylist(), dtype=object)
        if (distinct == "").any():
            row = int(np.argmax((distinct == "")[codes]))
            raise DataError(f"{self.row(row)}, column {name}: the {label} id is empty. Complete or remove that row")
        return Vocabulary.from_distinct(distinct, codes, label)

    def numbers(self, name: str) -> NDArray[np.float64]:
        """Return a column of finite numbers; a view of it where it is one piece of them."""
        column = self._column(name)
        kind = column.type
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
            raise DataError(f"{self.source}, column {name}: found {kind}, expected numbers. Convert the column")
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


def _is_text(kind: "pa.DataType") -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or str(kind) == "string_view"


def _decoded(chunk: "pa.DictionaryArray") -> "pa.Array":
    """Return categories as what they stand for; those of no row are gone."""
    values = chunk.dictionary
    if _is_text(values.type):
        values = values.cast(pa.large_string())  # pyarrow cannot take from views
    return pa.DictionaryArray.from_arrays(chunk.indices, values).dictionary_decode()
