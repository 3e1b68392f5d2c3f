"""The rating files this package knows: which one a file is, and how to read it. Nothing is downloaded."""

import re
from pathlib import Path
from typing import Literal, get_args

from mnar_recsys.data.delimited import IdKinds, read_delimited
from mnar_recsys.data.dense import read_dense
from mnar_recsys.data.header import DEFAULT_COLUMNS, SEPARATORS, read_header, without_header
from mnar_recsys.data.parquet import read_parquet
from mnar_recsys.data.scale import RatingScale
from mnar_recsys.data.table import RatingTable
from mnar_recsys.data.textfile import check_file, cut, first_line
from mnar_recsys.errors import ConfigError, DataError

Layout = Literal["auto", "csv", "parquet", "recbole", "yahoo-r3", "coat", "kuairec", "movielens"]

FIVE_STARS = RatingScale(1, 5, 1)

_BY_NAME: tuple[tuple[str, Layout], ...] = (
    (r"ydata-ymusic-rating-study-v1_0-(train|test)\.txt", "yahoo-r3"),
    (r".*\.ascii", "coat"),
    (r"u\.data|u[1-5ab]\.(base|test)|ratings\.dat", "movielens"),
    (r".*\.inter", "recbole"),
    (r".*\.(parquet|pq)", "parquet"),
)

_COLUMNS: dict[Layout, tuple[str, ...]] = {
    "csv": DEFAULT_COLUMNS,
    "parquet": DEFAULT_COLUMNS,
    "recbole": ("user_id", "item_id", "rating"),
    "kuairec": ("user_id", "video_id", "watch_ratio"),
    "movielens": ("userId", "movieId", "rating"),
}

_MOVIELENS_NAMES = ("user", "item", "rating", "timestamp")


def read_layout(path: str | Path, layout: Layout, columns: tuple[str, ...] | None, kinds: IdKinds) -> RatingTable:
    """Read a rating file; ``auto`` goes by its name, then by its header, and notes which it is.

    Raises
    ------
    DataError
        If the file cannot be read as that layout, naming the place.
    ConfigError
        If the layout is unknown, or the columns are not three or four names.
    """
    path = Path(path)
    if layout not in get_args(Layout):
        raise ConfigError(f"layout must be one of {', '.join(get_args(Layout))}; found {layout!r}")
    if columns is not None and (isinstance(columns, str) or len(columns) not in (3, 4)):
        raise ConfigError(f"columns must name user, item, rating and perhaps timestamp; found {columns!r}")
    columns = None if columns is None else tuple(columns)
    if path.is_dir():
        raise _is_folder(path)
    check_file(path)
    chosen = detect_layout(path) if layout == "auto" else layout
    table = _read(path, chosen, columns, kinds)
    notes = (f"layout: {chosen}", *table.notes) if layout == "auto" else table.notes
    return table.with_notes(notes)


def detect_layout(path: Path) -> Layout:
    """Return the layout of a file, by its name or else by its header; ``csv`` where nothing else fits."""
    name = path.name.removesuffix(".gz").lower()
    for pattern, layout in _BY_NAME:
        if re.fullmatch(pattern, name):
            return layout
    _, header = first_line(path)
    cells = [{cell.strip() for cell in cut(header, separator)} for separator in SEPARATORS]
    by_header: tuple[Layout, ...] = ("csv", "kuairec", "movielens")
    for layout in by_header:
        if any(set(_COLUMNS[layout]) <= names for names in cells):
            return layout
    return "csv"


def _read(path: Path, layout: Layout, columns: tuple[str, ...] | None, kinds: IdKinds) -> RatingTable:
    if layout == "coat":
        _refuse_columns(path, layout, columns)
        if "text" in (kinds.user, kinds.item):
            raise DataError(f"{path}: the ids of this layout are line and entry numbers; they cannot be read as text")
        return read_dense(path)
    if layout == "parquet":
        return read_parquet(path, columns or _COLUMNS["parquet"], kinds)
    if layout == "yahoo-r3":
        _refuse_columns(path, layout, columns)
        text_format, roles, notes = without_header(path, "\t")
        return read_delimited(text_format, roles, kinds, scale=FIVE_STARS, notes=notes)
    if layout == "movielens" and (separator := _movielens_separator(path)) is not None:
        _refuse_columns(path, layout, columns)
        text_format, roles, notes = without_header(path, separator, _MOVIELENS_NAMES)
        return read_delimited(text_format, roles, kinds, scale=FIVE_STARS, notes=notes)
    is_tabbed = layout == "recbole"
    text_format, roles, notes = read_header(
        path, columns or _COLUMNS[layout], separators="\t" if is_tabbed else SEPARATORS, quoted=not is_tabbed
    )
    return read_delimited(text_format, roles, kinds, notes=notes)


def _refuse_columns(path: Path, layout: Layout, columns: tuple[str, ...] | None) -> None:
    if columns is not None:
        raise ConfigError(f"{path}: layout {layout} has no column names; leave columns out, or say layout='csv'")


def _movielens_separator(path: Path) -> str | None:
    """Return the separator of ``u.data`` or ``ratings.dat``, which have no header; None for a CSV."""
    _, text = first_line(path)
    return next((separator for separator in ("::", "\t") if separator in text), None)


def _is_folder(path: Path) -> DataError:
    names = sorted(
        file.name
        for file in path.iterdir()
        if file.is_file() and re.search(r"\.(csv|tsv|inter|parquet|pq|ascii|dat|data|txt)(\.gz)?$", file.name)
    )
    meant = f"Name one of {', '.join(names[:8])}" if names else "It holds no rating file that is known"
    return DataError(f"{path}: is a folder, expected a file. {meant}")
