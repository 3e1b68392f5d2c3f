"""Predicting a test log and scoring the predictions."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evaluation.evaluate import evaluate
from mnar_recsys.cli.progress import progress
from mnar_recsys.cli.terminal import interval, table
from mnar_recsys.data import RatingLog, Split, count_trained_labels
from mnar_recsys.errors import DataError
from mnar_recsys.recommender import MNARRecommender

_PAIRS_AT_ONCE = 50_000
_NAMES = {
    "bias": "bias (predicted - true)",
    "coverage_90": "coverage of the 90 % interval",
    "coverage_90_model": "coverage the model expects",
    "coverage_90_gap": "coverage minus expected",
    "log_likelihood": "log-likelihood (nats a rating)",
    "pit_coverage_90": "coverage, randomised PIT 90 %",
    "marginal_tv": "marginal, total variation",
    "marginal_wasserstein": "marginal, Wasserstein",
    "mse": "MSE",
    "rmse": "RMSE",
    "mae": "MAE",
}


@dataclass(frozen=True)
class TestPredictions:
    """Predictions for the n cells of a test log, in its order."""

    mean: NDArray[np.float32]
    low: NDArray[np.float32]
    high: NDArray[np.float32]
    levels: NDArray[np.float32] | None
    """(n, R)"""
    cold: NDArray[np.bool_]


@dataclass(frozen=True)
class Scored:
    """A scored test."""

    predictions: TestPredictions
    results: pd.DataFrame
    """as ``evaluation.evaluate`` returns them"""
    remarks: str


def refuse_training_labels(trained_on: RatingLog, test: RatingLog, path: Path) -> int:
    """Return how many MCAR labels a model was trained on; raise DataError if one of them is in the test."""
    shared = count_trained_labels(trained_on, test)
    if shared:
        raise DataError(
            f"{path}: must hold no rating that the model was trained on as an MCAR label; found {shared}. Remove them"
        )
    return 0 if trained_on.surveyed is None else int(trained_on.surveyed.sum())


def predict_test(recommender: MNARRecommender, test: RatingLog, label: str = "predicting") -> TestPredictions:
    """Predict mean, 5 % and 95 % quantile and, on a level scale, level probabilities of every test cell."""
    users, items = test.users.take(test.rows), test.catalogue.take(test.items)
    has_levels = test.scale.levels is not None
    parts = []
    with progress(label, test.n_ratings, "pairs") as advance:
        for start in range(0, test.n_ratings, _PAIRS_AT_ONCE):
            part = slice(start, start + _PAIRS_AT_ONCE)
            parts.append(
                recommender.predict_full(users[part], items[part], probabilities=(0.05, 0.95), levels=has_levels)
            )
            advance(len(users[part]))
    low, high = np.concatenate([part.quantiles for part in parts], axis=1)
    levels = [part.levels for part in parts if part.levels is not None]
    return TestPredictions(
        np.concatenate([part.mean for part in parts]),
        low,
        high,
        np.concatenate(levels) if levels else None,
        np.concatenate([part.cold for part in parts]),
    )


def score_model(recommender: MNARRecommender, test: RatingLog, label: str = "predicting") -> Scored:
    """Predict and score a test log on unseen cells and on all."""
    predicted = predict_test(recommender, test, label)
    split = Split(mnar_train=recommender.fitted.log.chosen, mcar_test=test)
    results = evaluate(
        test,
        predicted.mean,
        quantiles=(predicted.low, predicted.high),
        level_probabilities=predicted.levels,
        unseen=split.unseen,
    )
    remarks = f"Of {test.n_ratings:,} test cells {split.n_seen:,} are also in the training log"
    remarks += f", {int(predicted.cold.sum()):,} are cold (predicted from the prior)."
    return Scored(predicted, results, remarks)


def results_text(results: pd.DataFrame) -> str:
    """Return the results as a table, a metric a row, unseen cells before all."""
    groups = list(dict.fromkeys(results["cells"]))
    by_cell = {cells: results[results["cells"] == cells].set_index("metric") for cells in groups}
    headers = ["metric", *(f"{cells} cells ({int(rows['n'].iloc[0]):,})" for cells, rows in by_cell.items())]
    rows = [
        [_NAMES.get(metric, metric), *(with_ends(part, metric) for part in by_cell.values())]
        for metric in map(str, by_cell[groups[0]].index)
    ]
    return table(headers, rows)


def with_ends(part: pd.DataFrame, metric: str) -> str:
    """Return a metric of results indexed by metric, with its interval."""
    value, low, high = (float(part[column][metric]) for column in ("value", "lower", "upper"))
    return interval(value, (low, high))
