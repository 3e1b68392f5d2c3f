"""Rating tables from Parquet files."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from mnar_recsys.data.arrow import ArrowColumns, check_names, rating_table
from mnar_recsys.data.delimited import IdKinds
from mnar_recsys.data.table import RatingTable
from mnar_recsys.data.textfile import check_file
from mnar_recsys.errors import DataError

_ROLES = ("user", "item", "rating")


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
    return rating_table(open_parquet(path, columns), columns, kinds, names)


def open_parquet(path: Path, columns: Sequence[str]) -> ArrowColumns:
    """Read the named columns of a file; raise DataError if it is damaged, or lacks one or has it twice."""
    roles = _ROLES[: len(columns)]
    remedy = f"Name the {', '.join(roles)} columns (columns=..., --columns {','.join(roles)})"
    check_names(_column_names(path), columns, str(path), remedy)
    try:
        content = pyarrow.parquet.read_table(path, columns=list(columns), partitioning=None)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error
    return ArrowColumns(str(path), content)


def _column_names(path: Path) -> list[str]:
    check_file(path)
    try:
        return list(pyarrow.parquet.read_schema(path).names)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> DataError:
    reason = str(error).splitlines()[0]
    return DataError(f"{path}: not a whole Parquet file ({reason}). Copy or write it again")
