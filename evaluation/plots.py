"""Figures for the report of a run, as inline SVG that follows the page's light or dark colours."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evaluation.drawing import (
    COLOURS,
    DASHES,
    HATCHES,
    INK,
    MARKERS,
    PAPER,
    Figure,
    in_words,
    legend_above,
    line,
    single,
    style,
    to_svg,
)  # fmt: skip
from mnar_recsys.checks import as_finite, check_same_length
from mnar_recsys.errors import DataError

_SELECTION = "selection between the ends of the scale (nats)"


def selection_curve(
    levels: ArrayLike,
    fitted: ArrayLike,
    *,
    low: ArrayLike | None = None,
    high: ArrayLike | None = None,
    truth: ArrayLike | None = None,
) -> Figure:
    """Draw the log-odds of being rated per level.

    Each curve is shifted to mean zero: its level is a matter of the intercept.

    Parameters
    ----------
    levels, fitted
        Rating levels in rating points and fitted log-odds, each (R,).
    low, high
        Ends of an interval for ``fitted``, each (R,): both or neither.
    truth
        The simulator's log-odds, (R,), where it is known.

    Raises
    ------
    DataError
        If the arrays differ in length or hold a value that is not finite, or only one end is given.
    """
    x, y = as_finite("levels", levels), as_finite("fitted log-odds", fitted)
    check_same_length(levels=x, fitted=y)
    if (low is None) != (high is None):
        raise DataError("an interval needs both ends; found only one of low and high")
    with style():
        canvas, axes = single("rating", "log-odds of being rated,\nrelative to the mean level")
        axes.axhline(0.0, color=INK, linewidth=0.8)
        if low is not None and high is not None:
            ends = [as_finite("interval ends", end) - y.mean() for end in (low, high)]
            axes.fill_between(x, *ends, color=COLOURS[0], alpha=0.2, linewidth=0, label="interval")
        line(axes, x, y - y.mean(), 0, "fitted")
        if truth is not None:
            actual = as_finite("true log-odds", truth)
            line(axes, x, actual - actual.mean(), 1, "truth")
        axes.set_xticks(x, [f"{level:g}" for level in x])
        axes.legend()
        alt = f"Line chart of log-odds of being rated by rating. Fitted: {in_words(x, y - y.mean())}."
        if truth is not None:
            alt += f" Truth: {in_words(x, actual - actual.mean())}."
        return Figure(to_svg(canvas), alt)


def marginals(levels: ArrayLike, shares: Mapping[str, ArrayLike]) -> Figure:
    """Draw up to three distributions over the rating levels beside each other.

    Parameters
    ----------
    levels
        Rating levels, (R,), in rating points.
    shares
        Name to shares of the levels, (R,), in the order to draw, for example training log, predicted, true
        test.

    Raises
    ------
    DataError
        If there are none or more than three, or one does not fit the levels.
    """
    x = as_finite("levels", levels)
    tables = {name: as_finite(name, values) for name, values in shares.items()}
    if not 1 <= len(tables) <= len(COLOURS):
        raise DataError(f"marginals must be 1 to {len(COLOURS)} distributions; found {len(tables)}")
    for name, values in tables.items():
        check_same_length(**{"levels": x, name: values})
    positions, width = np.arange(len(x)), 0.8 / len(tables)
    with style():
        canvas, axes = single("rating", "share of ratings (%)")
        for number, (name, values) in enumerate(tables.items()):
            place = positions + (number - (len(tables) - 1) / 2) * width
            colour = COLOURS[number]
            axes.bar(place, 100 * values, width, label=name, color=colour, edgecolor=PAPER, hatch=HATCHES[number])
        axes.set_xticks(positions, [f"{level:g}" for level in x])
        axes.legend()
        parts = [f"{name}: {in_words(x, 100 * values, '%')}" for name, values in tables.items()]
        return Figure(to_svg(canvas), f"Bar chart of the share of each rating. {'; '.join(parts)}.")


def training_history(
    steps: ArrayLike,
    train: ArrayLike,
    held_out: ArrayLike | None = None,
    *,
    unit: str = "bound (nats a user)",
    chosen_step: float | None = None,
) -> Figure:
    """Draw the bound by training step; higher is better.

    Parameters
    ----------
    steps
        Step numbers, (T,).
    train, held_out
        Bound on the users trained on, and on those held out, each (T,); NaN where it was not measured.
    unit
        Label of the vertical axis.
    chosen_step
        The step whose weights were kept; marked.

    Raises
    ------
    DataError
        If the lengths differ, or a curve has no finite value.
    """
    x = as_finite("steps", steps)
    curves = {"trained on": np.asarray(train, dtype=np.float64)}
    if held_out is not None:
        curves["held out"] = np.asarray(held_out, dtype=np.float64)
    ends = []
    with style():
        canvas, axes = single("training step", unit)
        for number, (name, values) in enumerate(curves.items()):
            check_same_length(steps=x, bound=values)
            known = np.isfinite(values)
            if not known.any():
                raise DataError(f"the bound of users {name} must have a finite value; found none")
            line(axes, x[known], values[known], number, f"users {name}", marked=known.sum() <= 25)
            ends.append(f"users {name} from {values[known][0]:.1f} to {values[known][-1]:.1f}")
        axes.set_ylim(*_without_start(list(curves.values())))
        if chosen_step is not None:
            axes.axvline(chosen_step, color=INK, linewidth=1.0, linestyle=":", label="weights kept")
        legend_above(axes)
        return Figure(to_svg(canvas), f"Line chart of the {unit} by training step: {', '.join(ends)}.")


def _without_start(curves: list[NDArray[np.float64]]) -> tuple[float, float]:
    """Return limits that leave out the steep first steps, which would flatten all the rest."""
    values = np.concatenate([curve[np.isfinite(curve)] for curve in curves])
    low, high = float(np.quantile(values, 0.1)), float(values.max())
    spread = max(high - low, 1e-6 * max(abs(high), 1.0))
    return max(float(values.min()), low - 0.5 * spread) - 0.05 * spread, high + 0.08 * spread


def selection_profile(
    selections: ArrayLike, relative: ArrayLike, errors: ArrayLike, *, fitted: float, plausible: float
) -> Figure:
    """Draw the log-likelihood of a log by the selection that was held.

    Parameters
    ----------
    selections, relative, errors
        Selection between the ends of the scale, log-likelihood less the highest, and its standard error, in nats, (n,)
        each, by rising selection.
    fitted
        The fitted selection: a vertical line.
    plausible
        How far below the highest is still plausible, in nats: a horizontal line.

    Raises
    ------
    DataError
        If the arrays differ in length, or hold a value that is not finite.
    """
    x, y, error = (as_finite(name, values) for name, values in (
        ("selections", selections), ("log-likelihoods", relative), ("standard errors", errors)))  # fmt: skip
    check_same_length(selections=x, relative=y, errors=error)
    with style():
        canvas, axes = single(
            "selection between the ends of the scale (nats)", "log-likelihood less\nthe highest (nats)"
        )
        axes.axhline(-plausible, color=INK, linewidth=1.0, linestyle=DASHES[2], label=f"{plausible:g} nats below")
        axes.axvline(fitted, color=INK, linewidth=1.0, linestyle=DASHES[1], label="fitted")
        axes.errorbar(x, y, yerr=2 * error, color=COLOURS[0], marker=MARKERS[0], markersize=5, linewidth=1.8)
        axes.legend()
        return Figure(to_svg(canvas), f"Line chart of log-likelihood by selection: {in_words(x, y)}.")


def mean_by_selection(selections: ArrayLike, means: ArrayLike, *, given: float) -> Figure:
    """Draw the predicted mean rating of unrated cells by the selection that was held.

    Parameters
    ----------
    selections, means
        Selection between the ends of the scale in nats, and mean in rating points, (n,) each, by rising selection.
    given
        Mean of the given ratings: a horizontal line.

    Raises
    ------
    DataError
        If the arrays differ in length, or hold a value that is not finite.
    """
    x, y = as_finite("selections", selections), as_finite("means", means)
    check_same_length(selections=x, means=y)
    with style():
        canvas, axes = single(
            "selection between the ends of the scale (nats)", "mean of unrated cells\n(rating points)"
        )
        axes.axhline(given, color=INK, linewidth=1.0, linestyle=DASHES[2], label="given ratings")
        line(axes, x, y, 0, "unrated cells, predicted")
        axes.legend()
        return Figure(to_svg(canvas), f"Line chart of the predicted mean by selection: {in_words(x, y)}.")
