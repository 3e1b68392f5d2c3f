"""Figures that compare methods, and that show whether probabilities can be trusted."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest

from evaluation.calibration import total_variation
from evaluation.drawing import COLOURS, DASHES, INK, MARKERS, PAPER, Figure, in_words, panels, single, style, to_svg
from evaluation.plots import marginals
from mnar_recsys.checks import as_finite, check_same_length
from mnar_recsys.errors import DataError

MAX_METHODS = 30
_WIDTH_INCHES = 5.6
_ROW_INCHES = 0.27
_ACROSS = 3
_PANEL_INCHES = (_WIDTH_INCHES / _ACROSS, 1.75)
# Propensities span orders of magnitude: on a straight axis all but the largest would lie in a corner.
_LOG_FROM_RATIO = 20.0


def ranking_chart(
    methods: Sequence[str],
    values: ArrayLike,
    lows: ArrayLike,
    highs: ArrayLike,
    *,
    metric: str,
    lower_is_better: bool = True,
    references: Mapping[str, float] | None = None,
    uses_labels: Sequence[bool] | None = None,
) -> Figure:
    """Draw a metric by method as dots with intervals, the best on top.

    Parameters
    ----------
    methods
        Their names, M of them.
    values, lows, highs
        The metric and the ends of its intervals, each (M,); NaN ends for a method without an interval.
    metric
        Label of the axis, with its unit.
    lower_is_better
        The direction of the metric.
    references
        Name to value of up to three lines, for example of constant predictions.
    uses_labels
        Whether a method was trained on randomly collected ratings, (M,): another marker. Default: none was.

    Raises
    ------
    DataError
        If there are no methods or more than 30, more than three lines, lengths differ, or a value is not finite.
    """
    with_labels = np.zeros(len(methods), dtype=np.bool_) if uses_labels is None else np.asarray(uses_labels, np.bool_)
    columns = {
        "method": np.asarray(methods, dtype=object),
        "value": as_finite("values", values),
        "low": np.asarray(lows, dtype=np.float64),
        "high": np.asarray(highs, dtype=np.float64),
        "labels": with_labels,
    }
    check_same_length(**columns)
    lines = dict(references or {})
    if not 1 <= len(methods) <= MAX_METHODS or len(lines) > len(DASHES):
        raise DataError(
            f"a chart must hold 1 to {MAX_METHODS} methods and up to {len(DASHES)} reference lines; found "
            f"{len(methods)} and {len(lines)}"
        )
    table = pd.DataFrame(columns).sort_values("value", ascending=lower_is_better, kind="stable", ignore_index=True)
    with style():
        canvas, axes = single(metric, "", size_inches=(_WIDTH_INCHES, 1.4 + _ROW_INCHES * len(table)))
        axes.grid(visible=False, axis="y")
        axes.grid(visible=True, axis="x", linewidth=0.8)
        for dash, (name, value) in zip(DASHES, lines.items(), strict=False):
            axes.axvline(value, color=INK, linewidth=1.0, linestyle=dash, label=f"{name}, {value:.3g}")
        for number, name in enumerate(("log alone", "log and random labels")):
            rows = table[table["labels"] == bool(number)]
            # A percentile interval of a biased statistic can leave its value out.
            reach = [(rows["value"] - rows["low"]).clip(lower=0.0), (rows["high"] - rows["value"]).clip(lower=0.0)]
            axes.errorbar(
                rows["value"],
                rows.index,
                xerr=reach,
                label=name if with_labels.any() and len(rows) else None,
                color=COLOURS[number],
                marker=MARKERS[number],
                markerfacecolor=(COLOURS[0], PAPER)[number],
                markersize=6,
                linestyle="none",
            )
        axes.set_yticks(np.arange(len(table)), table["method"])
        axes.set_ylim(len(table) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        if lines or with_labels.any():
            canvas.legend(loc="outside lower center", ncols=2, fontsize=10.0)
        return Figure(to_svg(canvas), _ranking_in_words(table, metric, lines))


def compare_marginals(levels: ArrayLike, truth: ArrayLike, predicted: Mapping[str, ArrayLike]) -> Figure:
    """Draw each method's predicted shares of the rating levels against the true ones (not-MIWAE, figure 4).

    Up to two methods stand beside the truth in one panel; more have a panel each, with the truth as marks over the
    bars and the total variation distance in the title: 0 equal, 1 disjoint.

    Parameters
    ----------
    levels
        Rating levels, (R,), in rating points.
    truth
        True shares, (R,).
    predicted
        Method to predicted shares, (R,), in the order to draw.

    Raises
    ------
    DataError
        If there are no methods or more than 30, or one does not fit the levels.
    """
    x, actual = as_finite("levels", levels), as_finite("truth", truth)
    tables = {name: as_finite(name, shares) for name, shares in predicted.items()}
    if not 1 <= len(tables) <= MAX_METHODS:
        raise DataError(f"marginals must be of 1 to {MAX_METHODS} methods; found {len(tables)}")
    if len(tables) < len(COLOURS):
        return marginals(x, {**tables, "truth": actual})
    for name, shares in {"truth": actual, **tables}.items():
        check_same_length(**{"levels": x, name: shares})
    positions = np.arange(len(x))
    parts: list[str] = []
    with style():
        canvas, grid = panels(len(tables), across=_ACROSS, panel_inches=_PANEL_INCHES)
        for axes, (name, shares) in zip(grid, tables.items(), strict=True):
            distance = float(total_variation(shares, actual))
            # One panel's labels are the legend of all.
            labels = ("_bars", "_marks") if parts else ("predicted", "truth")
            axes.bar(positions, 100 * shares, 0.8, color=COLOURS[0], alpha=0.75, label=labels[0])
            axes.plot(
                positions,
                100 * actual,
                color=INK,
                marker="_",
                markersize=13,
                mew=2.2,
                linestyle="none",
                label=labels[1],
            )
            axes.set_title(f"{name}\ndistance {distance:.2f}", fontsize=10.0)
            axes.set_xticks(positions, [f"{level:g}" for level in x])
            parts.append(f"{name}, distance {distance:.2f}: {in_words(x, 100 * shares, '%')}")
        canvas.supxlabel("rating", fontsize=12.0)
        canvas.supylabel("share of ratings (%)", fontsize=12.0)
        canvas.legend(loc="outside lower right", ncols=2, fontsize=10.0)
        alt = f"Bar charts of the predicted share of each rating. Truth: {in_words(x, 100 * actual, '%')}. "
        return Figure(to_svg(canvas), f"{alt}{'; '.join(parts)}.")


def propensity_calibration(predicted: ArrayLike, observed: ArrayLike, counts: ArrayLike) -> Figure:
    """Draw the share of cells that were rated by predicted propensity; right propensities lie on the diagonal.

    Parameters
    ----------
    predicted, observed, counts
        Mean propensity, share rated and number of cells of each bin, each (B,), as
        ``propensity.diagnostics.calibration_table`` returns them. Axes are logarithmic where propensities differ
        20-fold. Bars are 95 % intervals of the share (Wilson).

    Raises
    ------
    DataError
        If the lengths differ, a propensity is not in (0, 1], a share not from 0 to 1, or a bin is empty.
    """
    x, y, n = _check_bins(predicted, observed, counts)
    if x.min() <= 0.0:
        raise DataError(f"propensities must be above 0; found {x.min():g}")
    low, high = _wilson(y, n)
    with style():
        canvas, axes = single("predicted propensity", "share of cells rated")
        ends = [min(x.min(), low[low > 0].min(initial=1.0)), max(x.max(), high.max())]
        axes.plot(ends, ends, color=INK, linewidth=1.0, linestyle=DASHES[2], label="as predicted")
        axes.errorbar(
            x,
            y,
            yerr=[y - low, high - y],
            color=COLOURS[0],
            marker=MARKERS[0],
            markersize=5,
            linestyle="none",
            label="rated",
        )
        if x.max() > _LOG_FROM_RATIO * x.min():
            axes.set(xscale="log", yscale="log", ylim=(ends[0] / 1.5, ends[1] * 1.5))
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_formatter("{x:g}")
                axis.set_minor_formatter("")
        canvas.legend(loc="outside lower center", ncols=2, fontsize=10.0)
        pairs = ", ".join(f"{p:.3g} predicted {o:.3g} rated" for p, o in zip(x, y, strict=True))
        return Figure(to_svg(canvas), f"Chart of the share of cells rated by predicted propensity: {pairs}.")


def level_calibration(table: pd.DataFrame) -> Figure:
    """Draw how often each rating was given by the probability that was predicted for it, a panel a level.

    Calibrated probabilities lie on the diagonal; bars are 95 % intervals of the share (Wilson).

    Parameters
    ----------
    table
        ``reliability.level_reliability``: columns ``level predicted observed n``.

    Raises
    ------
    DataError
        If it has no rows, or a value is not one of such a table.
    """
    if table.empty:
        raise DataError("a calibration chart needs one bin or more; found none")
    parts = []
    with style():
        levels = table["level"].unique()
        canvas, grid = panels(len(levels), across=_ACROSS, panel_inches=_PANEL_INCHES)
        for axes, level in zip(grid, levels, strict=True):
            rows = table[table["level"] == level]
            x, y, n = _check_bins(rows["predicted"], rows["observed"], rows["n"])
            low, high = _wilson(y, n)
            axes.plot([0.0, 1.0], [0.0, 1.0], color=INK, linewidth=1.0, linestyle=DASHES[2])
            axes.errorbar(
                x, y, yerr=[y - low, high - y], color=COLOURS[0], marker=MARKERS[0], markersize=4, linestyle="none"
            )
            axes.set_title(f"rating {level:g}", fontsize=10.0)
            parts.append(f"rating {level:g}: " + ", ".join(f"{p:.2f} {o:.2f}" for p, o in zip(x, y, strict=True)))
        canvas.supxlabel("predicted probability", fontsize=12.0)
        canvas.supylabel("share given", fontsize=12.0)
        return Figure(to_svg(canvas), f"Charts of predicted probability and share given, {'; '.join(parts)}.")


def _ranking_in_words(table: pd.DataFrame, metric: str, lines: Mapping[str, float]) -> str:
    columns = (table[name].tolist() for name in ("method", "value", "low", "high", "labels"))
    rows = []
    for method, value, low, high, labels in zip(*columns, strict=True):
        interval = "" if np.isnan(low) else f" [{low:.3f}, {high:.3f}]"
        rows.append(f"{method}{' (with labels)' if labels else ''} {value:.3f}{interval}")
    text = f"Dot chart of {metric} by method, best first: {', '.join(rows)}."
    return text + "".join(f" Reference line {name}: {value:.3f}." for name, value in lines.items())


def _check_bins(
    predicted: ArrayLike, observed: ArrayLike, counts: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    x, y, n = as_finite("predicted", predicted), as_finite("observed", observed), as_finite("counts", counts)
    check_same_length(predicted=x, observed=y, counts=n)
    if not len(x) or min(x.min(), y.min()) < 0.0 or max(x.max(), y.max()) > 1.0 or n.min() < 1.0:
        raise DataError("bins must hold probabilities and shares from 0 to 1 of one cell or more, and be one or more")
    return x, y, n


def _wilson(share: NDArray[np.float64], counts: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the ends of the 95 % interval of shares of so many, each (B,)."""
    results = [binomtest(round(y * n), int(n)) for y, n in zip(share, counts, strict=True)]
    ends = np.array([result.proportion_ci(0.95, method="wilson") for result in results])
    return np.minimum(ends[:, 0], share), np.maximum(ends[:, 1], share)
