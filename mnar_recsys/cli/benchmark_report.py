"""The benchmark's page: the ranking, how sure it is, and how each number was made."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from baselines.recbole_models import MODELS, RECBOLE
from baselines.registry import BASELINES
from evaluation.benchmark import CellFit
from evaluation.benchmark_plots import compare_marginals, level_calibration, propensity_calibration, ranking_chart
from evaluation.intervals import Interval
from evaluation.propensity_table import fit_propensities, propensity_summary
from evaluation.reliability import level_reliability
from evaluation.report import Section, facts_table, write_report
from evaluation.tables import differences, mean_squared_errors

if TYPE_CHECKING:
    from mnar_recsys.cli.benchmark_run import BenchmarkRun

_CONSTANTS = ("constant_train", "constant_mcar")
_PANELS = 9


def write_benchmark_report(run: "BenchmarkRun", path: Path) -> None:
    """Write the page."""
    errors = mean_squared_errors(run.fits, run.request.split)
    best = next(iter(errors), None)
    sections = [_table(run)] if best is None else [_ranking(run, errors), _table(run), _against_the_best(run, best)]
    if any(fit.levels is not None for fit in run.fits):
        sections += [_marginals(run, errors), _calibration(run, errors)]
    n_methods, n_ratings = len({fit.model for fit in run.fits}), run.request.split.mnar_train.n_ratings
    write_report(
        path,
        title="Who predicts what people would have said",
        lede=(
            f"{n_methods} methods, trained on {n_ratings:,} ratings that people chose to give, scored on "
            f"{_n_test(run):,} that were collected at random."
            + ("" if best is None else f" Lowest mean squared error: {best}, {errors[best]}.")
        ),
        sections=[*sections, *_off_policy(run, errors), *_propensities(run), _methods(run), _facts(run)],
    )


def _ranking(run: "BenchmarkRun", errors: Mapping[str, Interval]) -> Section:
    shown = {name: interval for name, interval in errors.items() if name not in _CONSTANTS} or errors
    labels = {fit.model: fit.mcar_labels > 0 for fit in run.fits}
    names = list(shown)
    figure = ranking_chart(
        names,
        [shown[name].value for name in names],
        [shown[name].low for name in names],
        [shown[name].high for name in names],
        metric="mean squared error (squared rating points)",
        references={name.replace("_", " "): errors[name].value for name in _CONSTANTS if name in errors},
        uses_labels=[labels[name] for name in names],
    )
    caption = "Lower is better. Bars are 95 % intervals from resampled people; lines are constant predictions."
    return Section("Ranking", "", replace(figure, caption=caption))


def _table(run: "BenchmarkRun") -> Section:
    text = (
        "Errors are in squared rating points, averaged over the seeds before people are resampled. The other metrics "
        f"are means over the seeds on all test cells ({run.request.protocol.describe()}). Test "
        f"cells that are also in the training log: {run.request.split.n_seen:,}; the unseen ones are scored apart."
    )
    if run.failures:
        reasons = dict.fromkeys((failure.model, failure.reason) for failure in run.failures)
        text += "\n\nNot run: " + "; ".join(f"{model} ({reason})" for model, reason in reasons) + "."
    return Section("All numbers", text, table=run.table.round(3))


def _against_the_best(run: "BenchmarkRun", best: str) -> Section:
    gaps = differences(run.fits, run.request.split, best)
    rows = [
        {"model": name, "MSE less that of the best": str(gap), "apart": "yes" if gap.low > 0 else "no"}
        for name, gap in sorted(gaps.items(), key=lambda item: item[1].value)
    ]
    text = (
        f"Differences to {best} on the same cells and the same resampled people. Two methods are apart where the "
        "interval leaves out 0: intervals of single methods overlap sooner than they should, because people who are "
        "hard to predict are hard for all methods."
    )
    return Section("Against the best", text, table=pd.DataFrame(rows) if rows else None)


def _marginals(run: "BenchmarkRun", errors: Mapping[str, Interval]) -> Section:
    predicted = {name: fit.levels.mean(0) for name, fit in _with_levels(run, errors).items() if fit.levels is not None}
    test = run.request.split.mcar_test
    levels = run.request.split.mnar_train.scale.levels
    if test is None or levels is None:
        return Section("What people would answer")
    truth = np.bincount(test.scale.level_index(test.ratings), minlength=len(levels)) / test.n_ratings
    text = (
        "Share of each rating among the random cells, as predicted (first seed) and as it was, for the best methods "
        "that predict whole distributions."
    )
    return Section("What people would answer", text, compare_marginals(levels, truth, predicted))


def _calibration(run: "BenchmarkRun", errors: Mapping[str, Interval]) -> Section:
    test = run.request.split.mcar_test
    name, fit = next(iter(_with_levels(run, errors).items()))
    if test is None or fit.levels is None or test.scale.levels is None:
        return Section("Are the probabilities honest?")
    table = level_reliability(test.scale.levels, test.scale.level_index(test.ratings), fit.levels)
    text = f"Where {name} gives a rating a probability of 30 %, does it come in 30 of 100 cases? First seed."
    return Section("Are the probabilities honest?", text, level_calibration(table))


def _off_policy(run: "BenchmarkRun", errors: Mapping[str, Interval]) -> list[Section]:
    from mnar_recsys.cli.benchmark_run import off_policy_text

    if run.off_policy is None:
        return []
    values = {name: interval.value for name, interval in errors.items()}
    text = off_policy_text(run.off_policy, values)
    return [Section("What could be known without random ratings", text, table=run.off_policy.table(values))]


def _propensities(run: "BenchmarkRun") -> list[Section]:
    fits, left_out = fit_propensities(run.request.split)
    text = (
        "Methods that weigh ratings by 1 / propensity are as good as their propensities. Effective ratings: so many of "
        "equal weight would be as informative. Weights of right propensities sum to the number of cells. Imbalance: "
        "the largest difference of a covariate's weighted mean from that of all cells, in standard deviations; above "
        "0.1 is much. Calibration error: mean gap between predicted propensity and share rated, for models that know "
        "unrated cells. "
        "None of this sees whether what people thought of an item made them rate it."
    )
    text += "".join(f"\n\nLeft out: {name} ({reason})." for name, reason in left_out.items())
    sections = [Section("Can the propensities be trusted?", text, table=propensity_summary(fits))]
    tables = {name: fit.calibration for name, fit in fits.items() if fit.calibration is not None and name != "uniform"}
    if not tables:
        return sections
    name, table = min(tables.items(), key=lambda item: fits[item[0]].worst_balance)
    figure = propensity_calibration(table["predicted"], table["observed"], table["n"])
    warnings = " ".join(fits[name].overlap.warnings()) or "No warning about overlap."
    return [*sections, Section(f"Propensities that balance best: {name}", warnings, figure)]


def _methods(run: "BenchmarkRun") -> Section:
    rows = []
    for model in dict.fromkeys(fit.model for fit in run.fits):
        what = _what_it_is(model)
        settings = ", ".join(f"{key} {value}" for key, value in run.settings.get(model, {}).items())
        rows.append({"model": model, "what it is": what, "settings": settings or "defaults"})
    text = (
        "Each cell was fitted in a process of its own, to the self-selected ratings and, where the table says so, to "
        "MCAR labels that are not in the test. No method, and no tuning, saw a rating of the test."
    )
    return Section("How each number was made", text, table=pd.DataFrame(rows))


def _what_it_is(model: str) -> str:
    if model in BASELINES:
        return (BASELINES[model].__doc__ or "").strip().splitlines()[0]
    known = MODELS.get(model.partition("+")[0])
    if known is None:
        return "The joint model of this package."
    kind = "predicts ratings" if known.predicts_ratings else "ranks only"
    return f"{known.name} of RecBole {RECBOLE} ({known.paper}); {kind}."


def _facts(run: "BenchmarkRun") -> Section:
    split = run.request.split
    facts = {
        "users": split.mnar_train.n_users,
        "items": split.mnar_train.n_items,
        "self-selected ratings": split.mnar_train.n_ratings,
        "test ratings": _n_test(run),
        "of these, also in the log": split.n_seen,
        "MCAR labels": split.n_labels,
        "seeds": len(run.request.seeds),
        "fitting, all cells": f"{sum(fit.fit_seconds for fit in run.fits):,.0f} s",
    }
    return Section("This run", table=facts_table(facts))


def _with_levels(run: "BenchmarkRun", errors: Mapping[str, Interval]) -> dict[str, CellFit]:
    """Return the first seed's fit of the best methods with level probabilities, best first."""
    first = {fit.model: fit for fit in reversed(run.fits) if fit.levels is not None}
    return {name: first[name] for name in [name for name in errors if name in first][:_PANELS]}


def _n_test(run: "BenchmarkRun") -> int:
    return 0 if run.request.split.mcar_test is None else run.request.split.mcar_test.n_ratings
