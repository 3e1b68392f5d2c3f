"""Rows of a benchmark: every metric of every cell, and one line a method."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evaluation.benchmark import CellFit
from evaluation.contributions import squared_error
from evaluation.intervals import Interval, bootstrap, paired_difference
from evaluation.protocols import P1, Protocol, score
from mnar_recsys.data import Split
from mnar_recsys.errors import DataError

RESULT_COLUMNS = (
    "model", "seed", "cells", "metric", "value", "lower", "upper", "mcar_labels", "fit_seconds", "peak_mb"
)  # fmt: skip
_OF_VALUES = (*P1.metrics, "mse_label", "nll")  # the metrics that a monotone map of the predictions changes
_RESAMPLES = 200  # a row; the table's own intervals have more


def result_rows(fits: Sequence[CellFit], split: Split, protocol: Protocol) -> pd.DataFrame:
    """Return one row a model, seed, set of cells and metric: those of P1, then those of ``protocol``.

    Columns are RESULT_COLUMNS; ``lower`` and ``upper`` are a 95 % interval from resampled users, NaN where a resampled
    value says nothing. A method that only ranks has no rows for errors of ratings or probabilities.
    """
    tables = []
    for fit in fits:
        scored = [
            score(one, split, fit.mean, level_probabilities=fit.levels, resamples=_RESAMPLES)
            for one in dict.fromkeys((P1, protocol))
        ]
        if not fit.predicts_ratings:
            scored = [table[~table["metric"].isin(_OF_VALUES)] for table in scored]
        facts = {name: getattr(fit, name) for name in ("model", "seed", "mcar_labels", "fit_seconds", "peak_mb")}
        tables.append(pd.concat(scored, ignore_index=True).assign(**facts))
    if not tables:
        return pd.DataFrame(columns=list(RESULT_COLUMNS))
    return pd.concat(tables, ignore_index=True)[list(RESULT_COLUMNS)]


def mean_squared_errors(fits: Sequence[CellFit], split: Split, cells: str = "all") -> dict[str, Interval]:
    """Return each model's MSE over seeds, with a 95 % interval from resampled users, best first.

    A test cell's error is averaged over the seeds first, so the interval is about people, not about seeds. Methods that
    only rank are left out.
    """
    errors, users = _errors_by_model(fits, split, cells)
    found = {name: bootstrap(values, users)[0] for name, values in errors.items()}
    return dict(sorted(found.items(), key=lambda item: item[1].value))


def differences(fits: Sequence[CellFit], split: Split, reference: str, cells: str = "all") -> dict[str, Interval]:
    """Return each other model's MSE minus that of ``reference``, on the same cells and the same resampled users."""
    errors, users = _errors_by_model(fits, split, cells)
    if reference not in errors:
        raise DataError(f"the reference must be one of the models; found {reference}. Choose of {', '.join(errors)}")
    return {
        name: paired_difference(values, errors[reference], users)
        for name, values in errors.items()
        if name != reference
    }


def summary_table(fits: Sequence[CellFit], rows: pd.DataFrame, split: Split, protocol: Protocol) -> pd.DataFrame:
    """Return one row a model, best MSE first and methods that only rank last, as text and numbers ready to print.

    Columns: model, MSE on all cells with its interval over users, its standard deviation over seeds, MSE on unseen
    cells, the headline metrics of P1 and of ``protocol`` on all cells as means over seeds, MCAR labels read,
    seconds a fit and peak memory (medians).
    """
    everything = mean_squared_errors(fits, split)
    unseen = mean_squared_errors(fits, split, "unseen") if split.unseen.any() else everything
    means = rows[rows["cells"] == "all"].groupby(["model", "metric"])["value"].agg(["mean", "std"])
    headline = dict.fromkeys((*P1.headline, *protocol.headline))
    lines = []
    for model in dict.fromkeys((*everything, *(fit.model for fit in fits))):
        mine = [fit for fit in fits if fit.model == model]
        metrics = means.xs(model) if model in means.index else means.iloc[:0].droplevel(0)
        line: dict[str, object] = {
            "model": model,
            "MSE": str(everything.get(model, "-")),
            "sd over seeds": float(metrics["std"].get("mse", np.nan)),
            "MSE, unseen cells": f"{unseen[model].value:.3f}" if model in unseen else "-",
        }
        line |= {name: float(metrics["mean"].get(name, np.nan)) for name in headline}
        line |= {
            "MCAR labels": mine[0].mcar_labels,
            "seconds": float(np.median([fit.fit_seconds for fit in mine])),
            "peak MB": float(np.median([fit.peak_mb for fit in mine])),
        }
        lines.append(line)
    return pd.DataFrame(lines).dropna(axis="columns", how="all")


def markdown(table: pd.DataFrame, digits: int = 3) -> str:
    """Return a frame as a Markdown table; numbers with so many digits, nothing as a dash."""

    def cell(value: object) -> str:
        if not isinstance(value, float | np.floating):
            return str(value)
        number = float(value)
        return "-" if np.isnan(number) else f"{number:,.0f}" if abs(number) >= 100 else f"{number:.{digits}f}"

    lines = [list(map(str, table.columns)), ["---"] * table.shape[1]]
    lines += [[cell(value) for value in row] for row in table.itertuples(index=False)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _errors_by_model(
    fits: Sequence[CellFit], split: Split, cells: str
) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.int32]]:
    test = split.mcar_test
    if test is None:
        raise DataError("errors need mcar_test; this split has none")
    mask = split.unseen if cells == "unseen" else np.ones(test.n_ratings, dtype=np.bool_)
    errors: dict[str, list[NDArray[np.float64]]] = {}
    for fit in (fit for fit in fits if fit.predicts_ratings):
        errors.setdefault(fit.model, []).append(squared_error(test.ratings, fit.mean)[mask])
    return {name: np.mean(values, axis=0) for name, values in errors.items()}, test.rows[mask]
