"""Coat's files: all ratings as a text matrix, zero where there is none, and feature matrices beside it."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mnar_recsys.data.features import FeatureTable
from mnar_recsys.data.scale import RatingScale
from mnar_recsys.data.table import RatingTable
from mnar_recsys.data.textfile import first_line, open_text
from mnar_recsys.data.vocab import Vocabulary
from mnar_recsys.errors import DataError

_FEATURE_FOLDER = "user_item_features"


def read_dense(path: Path) -> RatingTable:
    """Read a matrix of ratings from 1 to 5, one line a user, separated by spaces; 0 is no rating.

    User and item ids are the line and entry numbers, counted from 0, also of those without a rating. Where
    the folder has ``user_item_features/{user,item}_features.ascii`` with as many lines as there are users or
    items, they are attached.

    Raises
    ------
    DataError
        If an entry is not a number or a line is short, with its line.
    """
    matrix = read_matrix(path)
    user_codes, item_codes = (codes.astype(np.int64) for codes in np.nonzero(matrix))
    users = Vocabulary(np.arange(matrix.shape[0]), "user")
    items = Vocabulary(np.arange(matrix.shape[1]), "item")
    user_features, user_notes = _features(path, "user", len(users))
    item_features, item_notes = _features(path, "item", len(items))
    return RatingTable(
        users,
        items,
        user_codes,
        item_codes,
        matrix[user_codes, item_codes],
        place=lambda row: f"{path}, line {user_codes[row] + 1}, entry {item_codes[row] + 1}",
        scale=RatingScale(1, 5, 1),
        source=f"{path}: ",
        notes=(*user_notes, *item_notes),
        user_features=user_features,
        item_features=item_features,
    )


def read_matrix(path: Path) -> NDArray[np.float64]:
    """Return a text matrix of finite numbers; blank lines at the end are ignored."""
    first_line(path)
    rows: list[NDArray[np.float64]] = []
    try:
        with open_text(path) as opened:
            lines = opened.read().rstrip().splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text. Is this the right file?") from error
    for line, text in enumerate(lines, 1):
        cells = text.split()
        if rows and len(cells) != len(rows[0]):
            truncated = " The file seems truncated: copy it again" if line == len(lines) else " Repair that line"
            raise DataError(f"{path}, line {line}: found {len(cells)} entries, expected {len(rows[0])}.{truncated}")
        rows.append(_numbers(path, line, cells))
    return np.stack(rows)


def _numbers(path: Path, line: int, cells: list[str]) -> NDArray[np.float64]:
    try:
        values = np.asarray(cells, dtype=np.float64)
    except ValueError:
        values = np.asarray([_number_or_nan(cell) for cell in cells])
    if not np.isfinite(values).all():
        entry = int(np.argmax(~np.isfinite(values)))
        raise DataError(f"{path}, line {line}, entry {entry + 1}: found {cells[entry]!r}, expected a finite number")
    return values


def _number_or_nan(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return float("nan")


def _features(path: Path, label: str, count: int) -> tuple[FeatureTable | None, tuple[str, ...]]:
    file = path.parent / _FEATURE_FOLDER / f"{label}_features.ascii"
    if not file.is_file():
        return None, ()
    values = read_matrix(file)
    if len(values) != count:
        return None, (f"{file} not attached: it has {len(values)} lines, the ratings {count} {label}s",)
    names = _feature_names(file.with_name(f"{label}_features_map.txt"), values.shape[1])
    return FeatureTable.from_array(values, names), (f"{label} features read from {file}",)


def _feature_names(file: Path, count: int) -> tuple[str, ...] | None:
    if not file.is_file():
        return None
    with open_text(file) as opened:
        names = tuple(line.strip() for line in opened if line.strip())
    return names if len(names) == len(set(names)) == count else None
