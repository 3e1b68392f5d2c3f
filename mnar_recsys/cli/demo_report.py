"""The demo's page: what was asked, what came out, and how far to trust it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evaluation.plots import marginals, selection_curve, training_history
from evaluation.report import Section, facts_table, methods_table, write_report
from mnar_recsys.cli.demo_run import OURS, PRESET, TWIN, DemoRun
from mnar_recsys.cli.scoring import with_ends
from mnar_recsys.data import RatingLog


def write_demo_report(run: DemoRun, path: Path) -> None:
    """Write the page."""
    write_report(
        path,
        title="What people would have said",
        lede=(
            "People rate what they love, so a log of their ratings misleads. On a simulated log, where the truth is "
            f"known, a model that ignores this has a mean squared error of {_value(run, TWIN, 'mse'):.2f} on a random "
            f"survey; one that learns why ratings are given, {_value(run, OURS, 'mse'):.2f}."
        ),
        sections=[
            _results(run),
            _selection(run),
            _marginals(run),
            _calibration(run),
            _training(run),
            _trust(),
            _facts(run),
        ],
    )


def _results(run: DemoRun) -> Section:
    train, test = run.simulation.train, run.simulation.test
    text = (
        f"The mean rating in the log is {train.ratings.mean():.2f}, in a random survey of the same people "
        f"{test.ratings.mean():.2f}. not-MIWAE and MIWAE are the same model with and without a model of why ratings "
        f"are given; the MSE of the first minus that of the second is {run.difference}, on the same cells.\n\n"
        "No method has seen a rating of the survey. Survey cells that are also in the log are left out, but for the "
        "last column; 95 % intervals come from resampling people. The last line is what someone would reach who knew "
        "everybody's true taste: the rest is noise."
    )
    table = methods_table(run.results, ("mse", "mae", "bias"), cells="unseen")
    table["MSE, all cells"] = methods_table(run.results, ("mse",), cells="all")["MSE"]
    return Section("Errors on the random survey", text, table=table)


def _selection(run: DemoRun) -> Section:
    model = run.recommender.fitted.settings.model
    fitted, true = run.fitted_selection, run.true_selection
    text = (
        "By how much does a rating raise the log-odds of being given? The model learns it from the log alone "
        f"(missing model {model.missing}, sign {model.sign}); the truth is the simulator's."
    )
    table = pd.DataFrame(
        {
            "rating": [f"{level:g}" for level in run.levels],
            "fitted": [f"{value:.2f}" for value in fitted],
            "truth": [f"{value:.2f}" for value in true],
        }
    )
    figure = selection_curve(run.levels, fitted, truth=true)
    return Section("Why ratings are given", text, replace(figure, caption="Mean zero over the ratings."), table)


def _marginals(run: DemoRun) -> Section:
    predicted = run.scored.predictions.levels
    shares = {"given in the log": _shares(run.simulation.train)}
    if predicted is not None:
        shares["predicted for the survey"] = predicted.mean(0).astype(np.float64)
    shares["given in the survey"] = _shares(run.simulation.test)
    text = "The ratings in the log, what the model says people would answer in the survey, and what they did answer."
    return Section("From the log to the survey", text, marginals(run.levels, shares))


def _calibration(run: DemoRun) -> Section:
    text = (
        "Of the survey's ratings, how many lie inside the model's 90 % intervals? Ratings come in steps, so an "
        "interval holds more than 90 %: compare with what the model itself expects. The randomised PIT allows for the "
        "steps and should be 0.900."
    )
    results = run.scored.results
    unseen = results[results["cells"] == "unseen"].set_index("metric")
    measures = {
        "in the 90 % interval": "coverage_90",
        "expected by the model": "coverage_90_model",
        "randomised PIT in its central 90 %": "pit_coverage_90",
        "log-likelihood, nats a rating": "log_likelihood",
    }
    values = [with_ends(unseen, metric) for metric in measures.values()]
    table = pd.DataFrame({"measure": list(measures), "value": values})
    return Section("Is the uncertainty honest?", text, table=table)


def _training(run: DemoRun) -> Section:
    fitted = run.recommender.fitted
    steps, bound, held_out = (np.array([row[key] for row in fitted.history]) for key in ("step", "bound", "held_out"))
    text = "The bound on the joint likelihood of ratings and of who rated what, higher is better."
    if not np.isfinite(held_out).any():
        return Section("Training", f"{text} Training stops when it has converged.", training_history(steps, bound))
    figure = training_history(steps, bound, held_out, chosen_step=fitted.kept_step)
    text += (
        " Training stops when it no longer rises for people held out; the last weights as good as their best are kept."
    )
    return Section("Training", text, figure)


def _trust() -> Section:
    return Section(
        "How far to trust it",
        "What people did not say is inferred from a model of why they speak. A log alone cannot prove that model "
        "right: other tastes with another selection can produce the same log. Here the assumption that people tend to "
        "rate what they like is true, because the simulator made it so. On your own data, check against a small "
        "random survey if you can.",
    )


def _facts(run: DemoRun) -> Section:
    train, test = run.simulation.train, run.simulation.test
    settings = run.recommender.fitted.settings.model
    return Section(
        "This run",
        table=facts_table(
            {
                "simulated world": PRESET,
                "users": train.n_users,
                "items": train.n_items,
                "ratings in the log": train.n_ratings,
                "ratings in the survey": test.n_ratings,
                "of these, also in the log": int(np.isin(test.cells, train.cells).sum()),
                "survey ratings used in training": 0,
                "decoder": settings.decoder,
                "missing model": f"{settings.missing}, sign {settings.sign}",
                "seed": run.recommender.fitted.seed,
                "time": f"{run.seconds:.0f} s",
            }
        ),
    )


def _value(run: DemoRun, method: str, metric: str) -> float:
    rows = run.results[method]
    return float(rows[(rows["cells"] == "unseen") & (rows["metric"] == metric)]["value"].iloc[0])


def _shares(log: RatingLog) -> NDArray[np.float64]:
    index = log.scale.level_index(log.ratings)
    return np.bincount(index, minlength=log.scale.n_levels or 0) / log.n_ratings
