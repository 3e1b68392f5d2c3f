"""``demo``: the whole way, on data whose truth is known."""

from pathlib import Path
from typing import Annotated

import typer

from mnar_recsys.cli.options import Seed


def demo(
    out: Annotated[Path, typer.Option(help="Folder for data, model, predictions and report.")] = Path("demo"),
    users: Annotated[int, typer.Option(help="Number of simulated users; 50 or more.")] = 2000,
    seed: Seed = 0,
) -> None:
    """Simulate, train, evaluate and report, in minutes.

    Simulates a self-selected log, trains not-MIWAE and its twin that ignores the selection, scores both and two
    baselines on a random survey, and writes predictions.parquet and report.html.
    """
    from mnar_recsys.cli.demo_run import run_demo
    from mnar_recsys.cli.reading import check_writable
    from mnar_recsys.cli.terminal import say

    check_writable(out)
    say(run_demo(out, users, seed))
