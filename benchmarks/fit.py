"""Time and memory of whole fits on an r3-like log.

    python -m benchmarks.fit [--users 15400] [--json FILE]

``paper`` is the preset ``yahoo-r3``, all its 10,000 iterations; ``paper-marginal`` the same with the missing ratings
summed out; ``default`` the default settings, which stop by themselves. A row is one fit.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.measure import Row, alone, measured, report
from mnar_recsys import MNARRecommender
from mnar_recsys.data.simulate import simulate_ratings

_FITS: dict[str, tuple[str, dict[str, Any]]] = {
    "paper": ("yahoo-r3", {}),
    "paper-marginal": ("yahoo-r3", {"estimator": "marginal"}),
    "default": ("default", {}),
}


def fit(name: str, n_users: int, steps: int | None) -> Row:
    """Measure one fit, the simulation of its log not counted."""
    log = simulate_ratings("r3-like", n_users=n_users, n_items=1000, seed=0).train
    base, changes = _FITS[name]
    recommender = MNARRecommender(base, **changes, **({} if steps is None else {"max_steps": steps, "stop": "never"}))
    row = measured(name, log.n_items, lambda: recommender.fit(log, seed=0), repeats=1, warmup=0)
    row.facts.update(users=n_users, ratings=log.n_ratings, steps=int(recommender.fitted.history[-1]["step"]))
    return row


def main(
    users: Annotated[int, typer.Option(min=100)] = 15_400,
    steps: Annotated[int | None, typer.Option(help="Stop after so many steps; default, as the settings say.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the rows here as well.")] = None,
) -> None:
    """Print the table."""
    report((alone(fit, name, users, steps) for name in _FITS), "Whole fits", json)


if __name__ == "__main__":
    typer.run(main)
