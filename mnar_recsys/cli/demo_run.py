"""What the demo does: simulate, fit, score, write."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from baselines.base import Baseline
from baselines.bias import BiasBaseline
from baselines.constant import ConstantTrain
from evaluation.contributions import squared_error
from evaluation.evaluate import evaluate
from evaluation.intervals import Interval, paired_difference
from mnar_recsys.cli.progress import progress
from mnar_recsys.cli.scoring import Scored, score_model, with_ends
from mnar_recsys.cli.terminal import note, table
from mnar_recsys.cli.training import stopping, training_progress, warn_of_sign
from mnar_recsys.data import RatingLog, Split
from mnar_recsys.data.simulate import Simulation, simulate_ratings
from mnar_recsys.data.simulate_files import write_simulation
from mnar_recsys.model_card import selection_by_level
from mnar_recsys.prediction.export import export_predictions
from mnar_recsys.prediction.pair_blocks import given_pairs
from mnar_recsys.recommender import MNARRecommender

PRESET = "r3-like"
N_ITEMS = 300
RATINGS_PER_USER = 12.0
# Half of the default's samples: the demo is to take minutes, and the selection curve hardly changes.
SAMPLES = 5
CONSTANT, BIAS, TWIN, OURS, FLOOR = (
    "constant (mean of the log)",
    "offsets of users and items",
    "MIWAE (ignores selection)",
    "not-MIWAE",
    "true tastes known (floor)",
)


@dataclass(frozen=True)
class DemoRun:
    """Everything the demo found."""

    simulation: Simulation
    recommender: MNARRecommender
    scored: Scored
    """of ``recommender``"""
    results: dict[str, pd.DataFrame]
    """method to the rows of ``evaluate``, from the floor of what is possible to the ceiling"""
    difference: Interval
    """MSE of not-MIWAE minus that of its twin, on the unseen cells"""
    seconds: float

    @property
    def levels(self) -> NDArray[np.float64]:
        """Rating levels."""
        return self.simulation.truth.design.preset.levels

    @property
    def fitted_selection(self) -> NDArray[np.float64]:
        """Fitted log-odds that a level adds, mean zero."""
        return np.array(list(selection_by_level(self.recommender.fitted).values()))

    @property
    def true_selection(self) -> NDArray[np.float64]:
        """The simulator's, mean zero."""
        selection = self.simulation.truth.selection
        return np.asarray(selection - selection.mean())


def run_demo(out: Path, users: int, seed: int) -> str:
    """Run the demo, write its files and return what to print."""
    from mnar_recsys.cli.demo_report import write_demo_report

    start = time.perf_counter()
    note(f"1/5 simulating {users:,} users x {N_ITEMS} items ({PRESET}), where people rate what they love")
    simulation = simulate_ratings(PRESET, n_users=users, n_items=N_ITEMS, seed=seed, ratings_per_user=RATINGS_PER_USER)
    write_simulation(simulation, out)
    note(
        f"    {simulation.train.n_ratings:,} self-selected ratings (mean {simulation.train.ratings.mean():.2f}), "
        f"{simulation.test.n_ratings:,} of a random survey to test on (mean {simulation.test.ratings.mean():.2f})"
    )
    recommender = _fit("2/5 training not-MIWAE", simulation.train, seed)
    recommender.save(out / "model")
    twin = _fit("3/5 training MIWAE, its twin that ignores the selection", simulation.train, seed, missing="ignorable")
    note("4/5 scoring on the random survey")
    scored, scored_twin = score_model(recommender, simulation.test), score_model(twin, simulation.test)
    results = {
        CONSTANT: _score_baseline(ConstantTrain(), simulation, seed),
        BIAS: _score_baseline(BiasBaseline(), simulation, seed),
        TWIN: scored_twin.results,
        OURS: scored.results,
        FLOOR: _score_truth(simulation),
    }
    note("5/5 writing predictions and report")
    _export(recommender, simulation.test, out / "predictions.parquet")
    difference = _difference(simulation, scored, scored_twin)
    run = DemoRun(simulation, recommender, scored, results, difference, time.perf_counter() - start)
    write_demo_report(run, out / "report.html")
    return describe(run, out)


def _fit(label: str, log: RatingLog, seed: int, **changes: str) -> MNARRecommender:
    note(label)
    # The fit without selection is one of the two that are shown.
    recommender = MNARRecommender("default", samples=SAMPLES, check_selection=False, **changes)
    with training_progress("    training", recommender.settings) as on_step:
        recommender.fit(log, seed=seed, on_step=on_step)
    warn_of_sign(recommender.fitted)
    note(f"    {stopping(recommender.fitted)}")
    return recommender


def _score_baseline(baseline: Baseline, simulation: Simulation, seed: int) -> pd.DataFrame:
    test = simulation.test
    baseline.fit(Split(mnar_train=simulation.train), seed=seed)
    predicted = baseline.predict(test.users.take(test.rows), test.catalogue.take(test.items))
    return evaluate(test, predicted, unseen=_unseen(simulation))


def _score_truth(simulation: Simulation) -> pd.DataFrame:
    test, truth = simulation.test, simulation.truth
    expected = truth.expected_rating(test.users.take(test.rows), test.catalogue.take(test.items))
    return evaluate(test, expected, unseen=_unseen(simulation))


def _unseen(simulation: Simulation) -> NDArray[np.bool_]:
    return Split(mnar_train=simulation.train, mcar_test=simulation.test).unseen


def _difference(simulation: Simulation, ours: Scored, twin: Scored) -> Interval:
    test, unseen = simulation.test, _unseen(simulation)
    first, second = (squared_error(test.ratings, scored.predictions.mean)[unseen] for scored in (ours, twin))
    return paired_difference(first, second, test.rows[unseen])


def _export(recommender: MNARRecommender, test: RatingLog, path: Path) -> None:
    """Write the predictions of the surveyed pairs, with level probabilities and propensities."""
    users, items = test.users.take(test.rows), test.catalogue.take(test.items)
    blocks = given_pairs(recommender.fitted.log, users, items, strict=True)
    with progress("    predicting", test.n_ratings, "pairs") as advance:
        export_predictions(path, recommender.predictor, blocks, levels=True, propensity=True, on_pairs=advance)


def describe(run: DemoRun, out: Path) -> str:
    """Return the results, the selection curve, and where things are."""
    rows = [[method, *_cells(results)] for method, results in run.results.items()]
    headers = ["on the random survey", "MSE, unseen cells", "MSE, all cells", "bias, all cells"]
    curve = [
        [f"{level:g}", f"{fitted:+.2f}", f"{true:+.2f}"]
        for level, fitted, true in zip(run.levels, run.fitted_selection, run.true_selection, strict=True)
    ]
    files = "\n".join(
        f"  {out / name}"
        for name in (
            "report.html",
            "predictions.parquet",
            "model",
            "train.csv",
            "test.csv",
            "mcar_labels.csv",
            "truth.npz",
        )
    )
    return "\n\n".join(
        [
            table(headers, rows),
            f"MSE of not-MIWAE minus that of MIWAE: {run.difference} (unseen cells, 95 % interval over users; no "
            "method saw the survey)",
            "Selection: log-odds that a rating adds to being given, mean zero\n"
            + table(["rating", "fitted", "true"], curve),
            f"Done in {run.seconds:.0f} s; written:\n{files}",
        ]
    )


def _cells(results: pd.DataFrame) -> list[str]:
    by_cell = {cells: results[results["cells"] == cells].set_index("metric") for cells in ("unseen", "all")}
    return [with_ends(by_cell["unseen"], "mse"), with_ends(by_cell["all"], "mse"), with_ends(by_cell["all"], "bias")]
