"""The demo's page: what was asked, what came out, and how far to trust it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evaluation.plots import marginals, selection_curve, training_history
from evaluation.report import Section, facts_table, methods_table, write_report
from mnar_recsys.cli.demo_run import OURS, PRESET, TWIN, DemoRun
from mnar_recsys.data import RatingLog


def write_demo_report(run: DemoRun, path: Path) -> None:
    """Write the page."""
    write_report(
        path,
        title="What people would have said",
        lede=(
            "A simulated log of self-selected ratings, a model that learns why ratings are given, and a random survey "
            "of the same people to check it: in a simulation the truth is known."
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
    mse = {method: _value(run, method, "mse") for method in (OURS, TWIN)}
    text = (
        f"People rate what they love, so the mean rating in the log, {run.simulation.train.ratings.mean():.2f}, is far "
        f"above that of a random survey, {run.simulation.test.ratings.mean():.2f}. A model that ignores this (MIWAE) "
        f"has a mean squared error of {mse[TWIN]:.3f} on the survey; the same model with a missing model (not-MIWAE) "
        f"{mse[OURS]:.3f}. The difference is {run.difference}, on the same cells.\n\n"
        "No method has seen a rating of the survey. Cells that are also in the log are left out here; 95 % intervals "
        "come from resampling people. The last line is what someone would reach who knew everybody's true taste: "
        "the rest is noise."
    )
    table = methods_table(run.results, ("mse", "mae", "bias"), cells="unseen")
    return Section("Errors on the random survey", text, table=table)


def _selection(run: DemoRun) -> Section:
    figure = selection_curve(run.levels, run.fitted_selection, truth=run.true_selection)
    missing = run.recommender.settings.model.missing
    text = (
        "How much more likely is a rating to be given if it is a five than if it is a one? The model learns it from "
        f"the log alone, under the assumption that it follows its missing model ({missing}) and never falls."
    )
    return Section("Why ratings are given", text, replace(figure, caption="Mean zero over the ratings."))


def _marginals(run: DemoRun) -> Section:
    predicted = run.scored.predictions.levels
    shares = {"given in the log": _shares(run.simulation.train)}
    if predicted is not None:
        shares["predicted for the survey"] = predicted.mean(0).astype(np.float64)
    shares["given in the survey"] = _shares(run.simulation.test)
    text = "The ratings in the log, what the model says people would answer in the survey, and what they did answer."
    return Section("From the log to the survey", text, marginals(run.levels, shares))


def _calibration(run: DemoRun) -> Section:
    names = ("coverage_90", "coverage_90_model", "pit_coverage_90", "log_likelihood")
    text = (
        "Of the survey's ratings, how many lie inside the model's 90 % intervals? Ratings come in steps, so an "
        "interval holds more than 90 %: compare with what the model itself expects. The randomised PIT allows for the "
        "steps and should be 0.900."
    )
    return Section(
        "Is the uncertainty honest?", text, table=methods_table({OURS: run.scored.results}, names, cells="all")
    )


def _training(run: DemoRun) -> Section:
    history = run.recommender.fitted.history
    steps, bound, held_out = (np.array([row[key] for row in history]) for key in ("step", "bound", "held_out"))
    best = float(steps[np.nanargmax(held_out)])
    figure = training_history(steps, bound, held_out, chosen_step=best)
    text = (
        "The bound on the joint likelihood of ratings and of who rated what, higher is better. Training stops when it "
        "no longer rises for people held out, and keeps the best weights."
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
    settings = run.recommender.settings.model
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
