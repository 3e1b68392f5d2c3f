"""Finding the wanted columns in the header of a delimited file."""

import re
from pathlib import Path

from mnar_recsys.data.delimited import Roles
from mnar_recsys.data.textfile import TextFormat, cut, first_line
from mnar_recsys.errors import DataError

SEPARATORS = ",\t;|"
DEFAULT_COLUMNS = ("user", "item", "rating")


def read_header(
    path: Path, columns: tuple[str, ...], *, separators: str = SEPARATORS, quoted: bool = True
) -> tuple[TextFormat, Roles, tuple[str, ...]]:
    """Return how the file is cut, where the columns are, and a note on those ignored.

    The separator is the one under which the header has the columns. A fourth column name is the timestamp's;
    with three, a column called ``timestamp`` is used if there is one. ``rating:float`` is found as
    ``rating``.

    Raises
    ------
    DataError
        If the header lacks a column or has it twice, listing what it has.
    """
    line, text = first_line(path)
    choices = [tuple(name.strip() for name in cut(text, separator, quoted=quoted)) for separator in separators]
    bare = [tuple(_bare(name, columns) for name in names) for names in choices]
    fitting = [place for place, names in enumerate(bare) if set(columns) <= set(names)]
    if not fitting:
        raise _columns_missing(path, line, max(choices, key=len), columns)
    names = bare[fitting[0]]
    if len(columns) == 3 and "timestamp" in names:
        columns = (*columns, "timestamp")
    for name in columns:
        if names.count(name) > 1:
            raise DataError(
                f"{path}, line {line}: column {name!r} occurs {names.count(name)} times. Rename one of them"
            )
    text_format = TextFormat(path, separators[fitting[0]], choices[fitting[0]], line, quoted)
    ignored = [name for name in names if name not in columns]
    return (
        text_format,
        Roles(*map(names.index, columns)),
        (f"ignored columns: {', '.join(ignored)}",) if ignored else (),
    )


def _bare(name: str, columns: tuple[str, ...]) -> str:
    """Return a RecBole column name without its type, unless the name with its type was asked for."""
    return name if name in columns else name.partition(":")[0]


def _columns_missing(path: Path, line: int, found: tuple[str, ...], columns: tuple[str, ...]) -> DataError:
    if any(re.fullmatch(r"[+-]?[0-9.]+", name) for name in found):
        return DataError(
            f"{path}, line {line}: found the data {', '.join(found)}, expected a header."
            f" Write {','.join(columns[:3])} (in the order of the columns) as the first line"
        )
    missing = [name for name in columns if name not in {_bare(other, columns) for other in found}]
    return DataError(
        f"{path}, line {line}: column {', '.join(missing)} missing; found the columns"
        f" {', '.join(found)[:300]}."
        " Name the user, item and rating columns (columns=..., --columns user,item,rating)"
    )


def without_header(
    path: Path, separator: str, names: tuple[str, ...] = ("user", "item", "rating")
) -> tuple[TextFormat, Roles, tuple[str, ...]]:
    """Return the same for a file without a header: user, item, rating, perhaps timestamp, in that order."""
    first_line(path)
    return TextFormat(path, separator, names, 0, quoted=False), Roles(*range(len(names))), ()
