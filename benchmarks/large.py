"""Time and memory of one pass over a large log: 500,000 users x 50,000 items, 10 M ratings.

python -m benchmarks.large [--users N --items P] [--json FILE]
"""

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.measure import Row, alone, measured, report
from benchmarks.shape import made_up_log
from mnar_recsys.config import Settings
from mnar_recsys.model.build import build_model
from mnar_recsys.training import Trainer


def epoch(name: str, n_users: int, n_items: int) -> Row:
    """Measure a pass with the default settings, the looks at held-out users counted."""
    log = made_up_log(n_users, n_items)
    steps = n_users // Settings().training.batch_size
    settings = Settings().replace({"max_steps": steps, "device": "cpu"})
    trainer = Trainer(build_model(settings.model, log, 0), log, settings, seed=0)
    return measured(name, n_items, trainer.run, repeats=1, warmup=0, users=n_users, ratings=log.n_ratings, steps=steps)


def main(
    users: Annotated[int, typer.Option(min=1000)] = 500_000,
    items: Annotated[int, typer.Option(min=100)] = 50_000,
    json: Annotated[Path | None, typer.Option(help="Write the rows here as well.")] = None,
) -> None:
    """Print the table."""
    report([alone(epoch, "epoch", users, items)], "One pass over a large log, default settings", json)


if __name__ == "__main__":
    typer.run(main)
