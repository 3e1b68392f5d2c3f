"""``inspect``: what is in a rating log, before anything is fitted to it."""

from pathlib import Path
from typing import Annotated

import typer

from mnar_recsys.cli.options import Columns, Duplicates, Ids, Layout, Scale
from mnar_recsys.cli.terminal import say


def inspect(
    ratings: Annotated[Path, typer.Argument(help="Rating file.", metavar="RATINGS")],
    scale: Scale = None,
    duplicates: Duplicates = "error",
    columns: Columns = None,
    ids: Ids = "auto",
    layout: Layout = "auto",
) -> None:
    """Look at a rating log before fitting anything.

    Sizes, marginal, ratings a user and an item, signs of selection, problems.
    """
    from mnar_recsys.cli.log_facts import describe_log
    from mnar_recsys.cli.reading import read_log

    log = read_log(ratings, columns=columns, scale=scale, duplicates=duplicates, ids=ids, layout=layout)
    say(describe_log(log))
