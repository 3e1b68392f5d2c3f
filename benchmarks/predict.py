"""Time and memory of ``predict --all``, every column, to Parquet: 15,400 users x 1,000 items.

    python -m benchmarks.predict [--users N --items P] [--json FILE]

The model is fitted for a thousand steps, about as long as it takes. ``monte_carlo_error``
is the root mean square difference of a mean between two seeds, over the square root of 2, for a sample of users.
"""

import tempfile
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.measure import Row, alone, measured, report
from mnar_recsys import MNARRecommender
from mnar_recsys.data.simulate import simulate_ratings
from mnar_recsys.prediction import Predictor
from mnar_recsys.prediction.export import export_predictions
from mnar_recsys.prediction.pair_blocks import all_pairs

_STEPS = 1000
_CHECKED_USERS = 200


def predict_all(name: str, n_users: int, n_items: int) -> Row:
    """Measure one export."""
    log = simulate_ratings("r3-like", n_users=n_users, n_items=n_items, seed=0).train
    fitted = MNARRecommender(max_steps=_STEPS, stop="never").fit(log, seed=0).fitted
    predictor = Predictor(fitted.model, log)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "predictions.parquet"

        def export() -> None:
            with predictor.compiling(n_users * n_items):
                export_predictions(target, predictor, all_pairs(log), levels=True, propensity=True)

        row = measured(name, n_items, export, repeats=1, warmup=0)
    users = np.repeat(np.arange(min(_CHECKED_USERS, n_users)), n_items)
    items = np.tile(np.arange(n_items), min(_CHECKED_USERS, n_users))
    means = [Predictor(fitted.model, log, seed=seed).predict(users, items).mean for seed in (1, 2)]
    error = float(np.sqrt(np.mean((means[0] - means[1]) ** 2 / 2)))
    row.facts.update(users=n_users, pairs=n_users * n_items, draws=predictor.n_draws, monte_carlo_error=error)
    return row


def main(
    users: Annotated[int, typer.Option(min=100)] = 15_400,
    items: Annotated[int, typer.Option(min=100)] = 1_000,
    json: Annotated[Path | None, typer.Option(help="Write the rows here as well.")] = None,
) -> None:
    """Print the table."""
    report([alone(predict_all, "predict-all", users, items)], "predict --all, every column, to Parquet", json)


if __name__ == "__main__":
    typer.run(main)
