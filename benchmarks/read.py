"""Time and memory of reading a rating log from CSV and from Parquet: 10 M ratings, text ids.

python -m benchmarks.read [--ratings N] [--json FILE]
"""

import tempfile
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import typer

from benchmarks.measure import Row, alone, measured, report
from benchmarks.shape import MEAN_RATINGS, made_up_log
from mnar_recsys.data import RatingLog

_ITEMS = 50_000


def write(folder: Path, n_ratings: int) -> None:
    """Write the log in both forms."""
    log = made_up_log(n_ratings // MEAN_RATINGS, _ITEMS)
    users = pa.array([f"u{user:08d}" for user in range(log.n_users)]).take(pa.array(log.rows))
    items = pa.array([f"i{item:06d}" for item in range(log.n_items)]).take(pa.array(log.items))
    table = pa.table({"user": users, "item": items, "rating": log.ratings})
    pyarrow.csv.write_csv(table, folder / "ratings.csv")
    pq.write_table(table, folder / "ratings.parquet")


def read(name: str, path: Path, repeats: int) -> Row:
    """Measure reading one file."""
    row = measured(name, _ITEMS, lambda: RatingLog.read(path), repeats=repeats, warmup=0)
    row.facts.update(ratings=RatingLog.read(path).n_ratings, file_mb=path.stat().st_size / 2**20)
    return row


def main(
    ratings: Annotated[int, typer.Option(min=1000)] = 10_000_000,
    repeats: Annotated[int, typer.Option(min=1)] = 3,
    json: Annotated[Path | None, typer.Option(help="Write the rows here as well.")] = None,
) -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), ratings)
        rows = [alone(read, kind, Path(folder) / f"ratings.{kind}", repeats) for kind in ("csv", "parquet")]
        report(rows, "Reading a log", json)


if __name__ == "__main__":
    typer.run(main)
