"""Text files line by line: is it one, what is its header, and on which line does a row stand."""

import csv
import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from mnar_recsys.errors import DataError

_HEAD = 1 << 16
"""Bytes looked at to tell text from something else."""

_SIGNATURES = {
    b"PAR1": "a Parquet file. Give it the ending .parquet",
    b"PK\x03\x04": "a zip archive or an Excel workbook. Unpack it, or save the sheet as CSV",
    b"\x1f\x8b": "gzip-compressed. Give it the ending .gz",
    b"\xff\xfe": "UTF-16 text. Save it as UTF-8",
    b"\xfe\xff": "UTF-16 text. Save it as UTF-8",
}


@dataclass(frozen=True)
class TextFormat:
    """How the rows of a text file are cut into cells.

    Attributes
    ----------
    path : Path
    separator : str
        One character, or ``::``.
    names : tuple of str
        The header's names, or names for the positions where there is no header; one a cell.
    header_line : int
        Lines up to and including the header, 0 without one.
    quoted : bool
        Whether a cell may stand in double quotes.
    """

    path: Path
    separator: str
    names: tuple[str, ...]
    header_line: int
    quoted: bool


def check_file(path: Path) -> None:
    """Raise DataError unless ``path`` is a readable, non-empty file."""
    if path.is_dir():
        raise DataError(f"{path}: is a folder, expected a file. Name the file inside it")
    try:
        with path.open("rb") as opened:
            is_empty = not opened.read(1)
    except FileNotFoundError as error:
        raise DataError(f"{path}: does not exist. Check the path") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}). Check its permissions") from error
    if is_empty:
        raise DataError(f"{path}: is empty, expected ratings. Check how it was written")


def open_text(path: Path, errors: str = "strict") -> IO[str]:
    """Open a UTF-8 file, compressed if its name ends in ``.gz``; a byte-order mark is skipped."""
    opener = gzip.open if path.suffix == ".gz" else open
    return opener(path, "rt", encoding="utf-8-sig", errors=errors, newline="")


def first_line(path: Path) -> tuple[int, str]:
    """Return the number and text of the first line that is not blank.

    Raises
    ------
    DataError
        If the file is absent, a folder, empty, blank, compressed and broken, or not UTF-8 text.
    """
    check_file(path)
    _check_signature(path)
    line = 0
    try:
        with open_text(path) as opened:
            while text := opened.readline(_HEAD):
                line += 1
                if text.strip():
                    return line, text.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise _not_text(path, error) from error
    except (EOFError, OSError) as error:
        raise broken_compression(path) from error
    raise DataError(f"{path}: has only blank lines, expected ratings. Check how it was written")


def _check_signature(path: Path) -> None:
    with path.open("rb") as opened:
        head = opened.read(_HEAD)
    if path.suffix == ".gz":
        return
    for signature, what in _SIGNATURES.items():
        if head.startswith(signature):
            raise DataError(f"{path}: expected UTF-8 text; found {what}")
    if b"\0" in head:
        line = head[: head.index(b"\0")].count(b"\n") + 1
        raise DataError(f"{path}, line {line}: found a zero byte, expected UTF-8 text. Is this the right file?")


def broken_compression(path: Path) -> DataError:
    """Return the error for a ``.gz`` file that ends early or is not gzip."""
    return DataError(f"{path}: the compressed data are damaged or truncated. Copy or download it again")


def _not_text(path: Path, error: UnicodeDecodeError) -> DataError:
    place = first_undecodable_line(path)
    found = f"byte 0x{error.object[error.start]:02x}"
    return DataError(f"{path}, line {place}: found {found}, expected UTF-8 text. Save the file as UTF-8")


def first_undecodable_line(path: Path) -> int | None:
    """Return the number of the first line that is not UTF-8, or None."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as opened:
        for line, content in enumerate(opened, 1):
            try:
                content.decode("utf-8")
            except UnicodeDecodeError:
                return line
    return None


def cut(text: str, separator: str, *, quoted: bool = True) -> list[str]:
    """Return the cells of one line."""
    if len(separator) > 1 or not quoted:
        return text.split(separator)
    try:
        return next(csv.reader([text], delimiter=separator), [])
    except csv.Error:
        return [text]


def scan_rows(text_format: TextFormat) -> Iterator[tuple[int, list[str], int]]:
    """Yield each row after the header: its first line, its cells, its last line.

    Slow; for finding an error's place. Blank rows are left out, as they are when the file is read.
    """
    separator, n_cells = text_format.separator, len(text_format.names)
    with open_text(text_format.path, errors="replace") as opened:
        for _ in range(text_format.header_line):
            opened.readline()
        for first, cells, last in _cut_rows(opened, text_format):
            if len(cells) == n_cells or separator.join(cells).strip():
                yield text_format.header_line + first, cells, text_format.header_line + last


def _cut_rows(opened: IO[str], text_format: TextFormat) -> Iterator[tuple[int, list[str], int]]:
    if not text_format.quoted:
        for line, text in enumerate(opened, 1):
            yield line, text.rstrip("\r\n").split(text_format.separator), line
        return
    reader = csv.reader(opened, delimiter=text_format.separator)
    last = 0
    for cells in reader:
        yield last + 1, cells, reader.line_num
        last = reader.line_num


def line_of_row(text_format: TextFormat, row: int) -> int:
    """Return the line on which row ``row`` (from 0, blank rows not counted) begins."""
    for position, (line, _, _) in enumerate(scan_rows(text_format)):
        if position == row:
            return line
    return text_format.header_line + row + 1
