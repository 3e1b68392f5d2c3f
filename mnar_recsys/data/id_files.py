"""Files of ids without ratings: pairs to predict, items on offer."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mnar_recsys.data.delimited import TextReader
from mnar_recsys.data.header import SEPARATORS
from mnar_recsys.data.ids import IdArray, IdKind
from mnar_recsys.data.parquet import open_parquet
from mnar_recsys.data.textfile import TextFormat, cut, first_line
from mnar_recsys.errors import DataError


@dataclass(frozen=True)
class IdColumn:
    """A column of ids to read."""

    name: str
    """in the file's header"""
    label: str
    """what the ids are of: ``user`` or ``item``"""
    kind: IdKind
    """what the ids must be: those of a log that they refer to"""


def read_ids(path: str | Path, columns: Sequence[IdColumn]) -> tuple[IdArray, ...]:
    """Return columns of ids of CSV, TSV or Parquet, each (n,), in the order of the file; others are ignored.

    Raises
    ------
    DataError
        With the file, the line or row and the column, what was found, what was expected, and the remedy.
    """
    path = Path(path)
    if path.suffix in (".parquet", ".pq"):
        reader = open_parquet(path, [column.name for column in columns])
        coded = [reader.ids(column.name, column.label, column.kind) for column in columns]
        return tuple(vocabulary.take(codes) for vocabulary, codes in coded)
    text = TextReader(_format(path, [column.name for column in columns]))
    positions = [text.text_format.names.index(column.name) for column in columns]
    cells = text.read_columns(list(positions))
    ids = []
    for column, position in zip(columns, positions, strict=True):
        vocabulary, codes, _ = text.ids(cells[position], position, column.label, column.kind)
        ids.append(vocabulary.take(codes))
    return tuple(ids)


def _format(path: Path, wanted: Sequence[str]) -> TextFormat:
    line, text = first_line(path)
    choices = [tuple(name.strip() for name in cut(text, separator)) for separator in SEPARATORS]
    for separator, names in zip(SEPARATORS, choices, strict=True):
        if set(wanted) <= set(names):
            for name in wanted:
                if names.count(name) > 1:
                    raise DataError(f"{path}, line {line}: column {name!r} occurs twice. Rename one of them")
            return TextFormat(path, separator, names, line, quoted=True)
    found = max(choices, key=len)
    missing = [name for name in wanted if name not in found]
    raise DataError(
        f"{path}, line {line}: column {', '.join(missing)} missing; found the columns {', '.join(found)[:300]}."
        f" Write {','.join(wanted)} as the first line"
    )
