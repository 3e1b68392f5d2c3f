"""Rating tables from delimited text, with the line of whatever is wrong in it."""

import csv
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from numpy.typing import NDArray

from mnar_recsys.data.frames import seconds
from mnar_recsys.data.ids import IdKind, kind_of_text
from mnar_recsys.data.scale import RatingScale
from mnar_recsys.data.table import RatingTable
from mnar_recsys.data.text_cells import as_float, distinct_cells
from mnar_recsys.data.textfile import (
    TextFormat,
    broken_compression,
    first_undecodable_line,
    line_of_row,
    scan_rows,
)
from mnar_recsys.data.vocab import Vocabulary
from mnar_recsys.errors import DataError

_BLOCK_BYTES = 1 << 23
_REPEATED = pa.dictionary(pa.int32(), pa.string())


@dataclass(frozen=True)
class Roles:
    """Which column plays which role: positions in a row, counted from 0."""

    user: int
    item: int
    rating: int
    timestamp: int | None = None


@dataclass(frozen=True)
class IdKinds:
    """What the ids are: decided from the file (None), or known beforehand."""

    user: IdKind | None = None
    item: IdKind | None = None


def read_delimited(
    text_format: TextFormat,
    roles: Roles,
    kinds: IdKinds,
    *,
    scale: RatingScale | None = None,
    notes: tuple[str, ...] = (),
) -> RatingTable:
    """Read the columns that have a role.

    Raises
    ------
    DataError
        With the file, the line, the column, what was found and what was expected.
    """
    reader = TextReader(text_format)
    columns = reader.read_columns(
        [roles.user, roles.item, roles.rating, roles.timestamp], repeated=(roles.user, roles.item, roles.rating)
    )
    users, user_codes, user_notes = reader.ids(columns[roles.user], roles.user, "user", kinds.user)
    items, item_codes, item_notes = reader.ids(columns[roles.item], roles.item, "item", kinds.item)
    ratings = reader.numbers(columns[roles.rating], roles.rating)
    times, time_notes = reader.times(columns.get(roles.timestamp), roles.timestamp)
    return RatingTable(
        users,
        items,
        user_codes,
        item_codes,
        ratings,
        times,
        place=reader.line,
        scale=scale,
        source=f"{text_format.path}: ",
        notes=(*notes, *user_notes, *item_notes, *time_notes),
    )


@dataclass(frozen=True)
class TextReader:
    """Columns of one text file; every refusal names the line and the column."""

    text_format: TextFormat

    def line(self, row: int) -> str:
        """Name the file and the line of a row, counted from 0 after the header."""
        return f"{self.text_format.path}, line {line_of_row(self.text_format, row)}"

    def place(self, row: int, position: int) -> str:
        """Name the file, the line and the column of a cell."""
        return f"{self.line(row)}, column {self.text_format.names[position]}"

    def read_columns(
        self, positions: list[int | None], *, repeated: Collection[int] = ()
    ) -> "dict[int | None, pa.ChunkedArray]":
        """Read the cells of some columns as text; every row must have as many cells as there are names.

        Columns whose cells are ``repeated`` are held as numbers of distinct texts, which takes less
        memory.
        """
        stride = len(self.text_format.separator)  # "::" is read as ":" with an empty cell between
        n_cells = stride * (len(self.text_format.names) - 1) + 1
        wanted = [position for position in positions if position is not None]
        include = [str(stride * position) for position in wanted]
        types = {
            name: _REPEATED if position in repeated else pa.string()
            for position, name in zip(wanted, include, strict=True)
        }
        try:
            try:
                table = self._read(n_cells, types, skip_blank=False)
            except pa.ArrowInvalid:
                table = self._read(n_cells, types, skip_blank=True)
        except (pa.ArrowInvalid, OSError) as error:
            raise self._diagnose(error) from error
        if not table.num_rows:
            raise DataError(f"{self.text_format.path}: has a header but no rows. Check how it was written")
        return {position: table[name] for position, name in zip(wanted, include, strict=True)}

    def _read(self, n_cells: int, types: "dict[str, pa.DataType]", *, skip_blank: bool) -> "pa.Table":
        """Read the columns of these types; with ``skip_blank``, pass over rows of nothing but spaces.

        That takes a call from Arrow into Python, which its threads may let go of while the interpreter ends, and abort.
        """
        return pyarrow.csv.read_csv(
            str(self.text_format.path),
            read_options=pyarrow.csv.ReadOptions(
                skip_rows=self.text_format.header_line,
                column_names=[str(cell) for cell in range(n_cells)],
                block_size=_BLOCK_BYTES,
                use_threads=not skip_blank,
            ),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=self.text_format.separator[0],
                quote_char='"' if self.text_format.quoted else False,
                newlines_in_values=self.text_format.quoted,
                invalid_row_handler=_skip_blank if skip_blank else None,
            ),
            convert_options=pyarrow.csv.ConvertOptions(column_types=types, include_columns=list(types)),
        )

    def _diagnose(self, error: Exception) -> DataError:
        """Read the file again, slowly, to say on which line it goes wrong."""
        path, n_cells = self.text_format.path, len(self.text_format.names)
        line = self.text_format.header_line
        try:
            if "UTF8" in str(error) and (line := first_undecodable_line(path) or 0):
                return DataError(f"{path}, line {line}: not UTF-8 text. Save the file as UTF-8")
            for line, cells, last in scan_rows(self.text_format):
                if len(cells) != n_cells:
                    return self._wrong_length(line, len(cells), last)
        except csv.Error as problem:
            return DataError(f"{path}, after line {line}: {problem}. Check the quotes there")
        except (EOFError, OSError):
            return broken_compression(path)
        return DataError(f"{path}: cannot be read; {str(error).splitlines()[0]}")

    def _wrong_length(self, line: int, n_found: int, last: int) -> DataError:
        expected = len(self.text_format.names)
        names = self.text_format.separator.join(self.text_format.names)
        if last > line:
            remedy = f"A quote that opens there is closed on line {last} or never"
        elif n_found > expected:
            remedy = "Put a value that holds the separator in double quotes, or remove the extra cells"
        elif self._is_last(last):
            remedy = "It is the last line: the file seems truncated. Copy it again, or remove that line"
        else:
            remedy = "Complete or remove that row"
        cells = "cell" if n_found == 1 else "cells"
        return DataError(
            f"{self.text_format.path}, line {line}: found {n_found} {cells}, expected {expected} ({names!r}). {remedy}"
        )

    def _is_last(self, line: int) -> bool:
        return all(first <= line for first, _, _ in scan_rows(self.text_format))

    def ids(
        self, column: "pa.ChunkedArray", position: int, label: str, kind: IdKind | None
    ) -> tuple[Vocabulary, NDArray[np.int64], tuple[str, ...]]:
        """Return the vocabulary of a column of ids, each row's index, and notes."""
        distinct, codes, trimmed = distinct_cells(column)
        self._check_cells(distinct, codes, position, label)
        name = self.text_format.names[position]
        notes: tuple[str, ...] = (f"spaces around the ids in column {name} ignored",) if trimmed else ()
        if kind != "text":
            decided, number, other = kind_of_text(distinct)
            if decided is None or (kind == "integer" and decided != kind):
                raise self._mixed_ids(distinct, codes, position, (number, other), expected=kind)
            if number and decided == "text":
                notes += (f"{label} ids are text, because of ids like {other!r} beside {number!r}",)
            kind = decided
        ids: Any = distinct if kind == "text" else distinct.astype(np.int64)
        vocabulary, indices = Vocabulary.from_distinct(ids, codes, label)
        return vocabulary, indices, notes

    def _check_cells(self, distinct: NDArray[np.object_], codes: NDArray[np.int64], position: int, label: str) -> None:
        faults = np.fromiter((not cell or bool(_CONTROL.search(cell)) for cell in distinct), bool, len(distinct))
        if not faults.any():
            return
        row = int(np.argmax(faults[codes]))
        cell = distinct[codes[row]]
        found = f"found {cell[:40]!r}, expected" if cell else f"the {label} id is empty, expected"
        remedy = "Check for an unclosed quote" if cell else "Complete or remove that row"
        raise DataError(f"{self.place(row, position)}: {found} a {label} id. {remedy}")

    def _mixed_ids(
        self,
        distinct: NDArray[np.object_],
        codes: NDArray[np.int64],
        position: int,
        samples: tuple[str, str],
        *,
        expected: IdKind | None,
    ) -> DataError:
        number, other = samples[0], samples[1] or str(distinct[0])
        row = int(np.argmax(distinct[codes] == other))
        if expected == "integer":
            what = "expected a whole number, as in the log it is read for"
            remedy = "Correct it, or read that log with ids='text' too (train --ids text)"
        else:
            what = f"expected a whole number, as {number!r} on other lines, or text in all of them"
            remedy = "If all are meant as text, say ids='text' (--ids text)"
        return DataError(f"{self.place(row, position)}: found the id {other!r}, {what}. {remedy}")

    def numbers(
        self, column: "pa.ChunkedArray", position: int, expected: str = "a finite number"
    ) -> NDArray[np.float64]:
        """Return a column of finite numbers."""
        try:
            values = as_float(column)
        except pa.ArrowInvalid:
            values = self._parse_numbers(column, position, expected)
        if not np.isfinite(values).all():
            raise self._not_a_number(column, int(np.argmax(~np.isfinite(values))), position, expected)
        return np.asarray(values, dtype=np.float64)

    def _parse_numbers(self, column: "pa.ChunkedArray", position: int, expected: str) -> NDArray[np.float64]:
        """Parse what Arrow refuses, spaces and plus signs; name the first cell that is no number."""
        distinct, codes, _ = distinct_cells(column)
        parsed = [float(cell) if NUMBER.fullmatch(cell) else np.nan for cell in distinct]
        values = np.asarray(parsed, dtype=np.float64)[codes]
        if np.isnan(values).any():
            raise self._not_a_number(column, int(np.argmax(np.isnan(values))), position, expected)
        return values

    def _not_a_number(self, column: "pa.ChunkedArray", row: int, position: int, expected: str) -> DataError:
        cell = column[row].as_py()
        found = repr(cell[:40]) if cell.strip() else "an empty cell"
        return DataError(f"{self.place(row, position)}: found {found}, expected {expected}. Correct or remove that row")

    def times(
        self, column: "pa.ChunkedArray | None", position: int | None
    ) -> tuple[NDArray[np.float64] | None, tuple[str, ...]]:
        """Return a column of numbers, or of ISO dates as seconds since 1970; None where cells are empty."""
        if column is None or position is None:
            return None, ()
        n_empty = int(pc.sum(pc.equal(column, "")).as_py())
        if n_empty:
            name = self.text_format.names[position]
            return None, (f"column {name} ignored: it is empty in {n_empty} of {len(column)} rows",)
        if NUMBER.fullmatch(column[0].as_py().strip()):
            return self.numbers(column, position, _TIME), ()
        return self._dates(column, position), ()

    def _dates(self, column: "pa.ChunkedArray", position: int) -> NDArray[np.float64]:
        for date in (pa.timestamp("us"), pa.timestamp("us", tz="UTC")):
            try:
                return np.asarray(pc.cast(pc.cast(column, date), pa.int64()).to_numpy() / 1e6)
            except pa.ArrowInvalid:
                continue
        # Slower and more patient: takes a mixture of forms and names the first cell that is no date.
        dates = pd.to_datetime(pd.Series(column.to_pylist()), format="ISO8601", utc=True, errors="coerce")
        if bool(dates.isna().any()):
            raise self._not_a_number(column, int(np.argmax(dates.isna().to_numpy())), position, _TIME)
        return seconds(dates, self.text_format.names[position])


_TIME = "a number or an ISO date such as 2024-05-31 12:00:00"
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_CONTROL = re.compile(r"[\x00-\x1f]")


def _skip_blank(row: Any) -> str:
    return "error" if row.text.strip() else "skip"
