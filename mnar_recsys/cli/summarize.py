"""``summarize``: naive beside debiased mean ratings."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mnar_recsys.cli.options import ModelFolder, Seed
from mnar_recsys.cli.progress import progress
from mnar_recsys.cli.terminal import interval, note, say, table

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    import pandas as pd

_SHOWN_AT_EACH_END = 10


def summarize(
    model: ModelFolder,
    by: Annotated[Literal["item", "user", "population"], typer.Option(help="Whose mean ratings.")] = "population",
    out: Annotated[Path | None, typer.Option(help="Also write all rows to this .csv or .parquet file.")] = None,
    draws: Annotated[int, typer.Option(min=2, help="Number of imputations.", metavar="M")] = 20,
    seed: Seed = 0,
) -> None:
    """Put mean ratings as given beside debiased ones.

    With 95 % intervals, pooled over multiple imputations by Rubin's rules. The debiased mean is that of all cells.
    """
    import pyarrow as pa

    from mnar_recsys.cli.reading import load_model
    from mnar_recsys.prediction.export import check_target, write_tables
    from mnar_recsys.prediction.impute import summarize as pool

    if out is not None:
        check_target(out)
    predictor = load_model(model).predictor
    with progress("imputing", predictor.log.n_users, "users") as advance:
        means = pool(predictor, by, draws=draws, seed=seed, on_users=advance)
    say(_as_text(means, by))
    if out is not None:
        write_tables(out, [pa.Table.from_pandas(means, preserve_index=False)])
        note(f"{out}: {len(means):,} rows")


def _as_text(means: "pd.DataFrame", by: str) -> str:
    """Return a table, cut to the highest and lowest debiased means where it is long."""
    headers = [by, "ratings", "mean as given", "debiased mean", "difference"]
    ranked = means.sort_values("debiased", ascending=False, kind="stable") if len(means) > 1 else means
    rows = [_row(record) for record in ranked.to_dict("records")]
    hidden = len(rows) - 2 * _SHOWN_AT_EACH_END
    if hidden > 0:
        gap = [f"... {hidden:,} more", "", "", "", ""]
        rows = [*rows[:_SHOWN_AT_EACH_END], gap, *rows[-_SHOWN_AT_EACH_END:]]
    return table(headers, rows)


def _row(record: "Mapping[Hashable, Any]") -> list[str]:
    numbers = {key: float(value) for key, value in record.items() if key != "id"}
    naive, debiased = numbers["naive"], numbers["debiased"]
    has_ratings = record["ratings"] > 0
    return [
        str(record["id"]),
        f"{record['ratings']:,}",
        interval(naive, (numbers["naive_lower"], numbers["naive_upper"])) if has_ratings else "-",
        interval(debiased, (numbers["lower"], numbers["upper"])),
        f"{debiased - naive:+.3f}" if has_ratings else "-",
    ]
