"""Figures for the report, as inline SVG that follows the page's light or dark colours.

Lines differ by dash and marker, bars by hatching, so that every figure can be read in black and white.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from io import StringIO
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from numpy.typing import ArrayLike, NDArray

from mnar_recsys.checks import as_finite, check_same_length
from mnar_recsys.errors import DataError

# Placeholders that become CSS variables, so that one SVG serves both colour schemes.
_INK, _GRID, _PAPER = "#010203", "#010204", "#010205"
_COLOURS = ("#010206", "#010207", "#010208")
_VARIABLES = {
    _INK: "var(--ink)",
    _GRID: "var(--rule)",
    _PAPER: "var(--paper)",
    **{colour: f"var(--series-{number})" for number, colour in enumerate(_COLOURS, start=1)},
}
_DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)))
_MARKERS = ("o", "s", "^")
_HATCHES = ("", "////", "....")
_SIZE_INCHES = (5.6, 3.3)
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "mnar-recsys",
    "font.size": 12.0,
    "text.parse_math": False,
    "legend.facecolor": _PAPER,
    "legend.edgecolor": "none",
    "legend.framealpha": 1.0,
    "hatch.linewidth": 0.8,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "grid.color": _GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


@dataclass(frozen=True)
class Figure:
    """A picture for the page."""

    svg: str
    """An ``<svg>`` element without declaration, coloured by the page's CSS variables."""
    alt: str
    """What the picture shows, in words, for those who do not see it."""
    caption: str = ""
    """A sentence under the picture."""


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
    with mpl.rc_context(_STYLE):
        canvas, axes = _canvas("rating", "log-odds of being rated,\nrelative to the mean level")
        axes.axhline(0.0, color=_INK, linewidth=0.8)
        if low is not None and high is not None:
            ends = [as_finite("interval ends", end) - y.mean() for end in (low, high)]
            axes.fill_between(x, *ends, color=_COLOURS[0], alpha=0.2, linewidth=0, label="interval")
        _line(axes, x, y - y.mean(), 0, "fitted")
        if truth is not None:
            actual = as_finite("true log-odds", truth)
            _line(axes, x, actual - actual.mean(), 1, "truth")
        axes.set_xticks(x, [f"{level:g}" for level in x])
        axes.legend()
        alt = f"Line chart of log-odds of being rated by rating. Fitted: {_in_words(x, y - y.mean())}."
        if truth is not None:
            alt += f" Truth: {_in_words(x, actual - actual.mean())}."
        return Figure(_to_svg(canvas), alt)


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
    if not 1 <= len(tables) <= len(_COLOURS):
        raise DataError(f"marginals must be 1 to {len(_COLOURS)} distributions; found {len(tables)}")
    for name, values in tables.items():
        check_same_length(**{"levels": x, name: values})
    positions, width = np.arange(len(x)), 0.8 / len(tables)
    with mpl.rc_context(_STYLE):
        canvas, axes = _canvas("rating", "share of ratings (%)")
        for number, (name, values) in enumerate(tables.items()):
            place = positions + (number - (len(tables) - 1) / 2) * width
            colour = _COLOURS[number]
            axes.bar(place, 100 * values, width, label=name, color=colour, edgecolor=_PAPER, hatch=_HATCHES[number])
        axes.set_xticks(positions, [f"{level:g}" for level in x])
        axes.legend()
        parts = [f"{name}: {_in_words(x, 100 * values, '%')}" for name, values in tables.items()]
        return Figure(_to_svg(canvas), f"Bar chart of the share of each rating. {'; '.join(parts)}.")


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
    with mpl.rc_context(_STYLE):
        canvas, axes = _canvas("training step", unit)
        for number, (name, values) in enumerate(curves.items()):
            check_same_length(steps=x, bound=values)
            known = np.isfinite(values)
            if not known.any():
                raise DataError(f"the bound of users {name} must have a finite value; found none")
            _line(axes, x[known], values[known], number, f"users {name}", marked=known.sum() <= 25)
            ends.append(f"users {name} from {values[known][0]:.1f} to {values[known][-1]:.1f}")
        axes.set_ylim(*_without_start(list(curves.values())))
        if chosen_step is not None:
            axes.axvline(chosen_step, color=_INK, linewidth=1.0, linestyle=":", label="weights kept")
        axes.legend(loc="lower right")
        return Figure(_to_svg(canvas), f"Line chart of the {unit} by training step: {', '.join(ends)}.")


def _canvas(x_label: str, y_label: str) -> tuple[Canvas, Axes]:
    canvas = Canvas(figsize=_SIZE_INCHES, layout="constrained")
    axes = canvas.add_subplot()
    canvas.patch.set_alpha(0.0)
    axes.patch.set_alpha(0.0)
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.grid(axis="y", linewidth=0.8)
    axes.set_axisbelow(True)
    return canvas, axes


def _line(
    axes: Axes,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    number: int,
    label: str,
    *,
    marked: bool = True,
) -> None:
    style, marker = _DASHES[number], _MARKERS[number] if marked else ""
    axes.plot(x, y, color=_COLOURS[number], linestyle=style, marker=marker, markersize=5, linewidth=1.8, label=label)


def _without_start(curves: list[NDArray[np.float64]]) -> tuple[float, float]:
    """Return limits that leave out the steep first steps, which would flatten all the rest."""
    values = np.concatenate([curve[np.isfinite(curve)] for curve in curves])
    low, high = float(np.quantile(values, 0.1)), float(values.max())
    spread = max(high - low, 1e-6 * max(abs(high), 1.0))
    return max(float(values.min()), low - 0.5 * spread) - 0.05 * spread, high + 0.08 * spread


def _in_words(x: NDArray[np.float64], y: NDArray[np.float64], unit: str = "") -> str:
    return ", ".join(f"{level:g} {value:.2f}{unit}" for level, value in zip(x, y, strict=True))


def _to_svg(canvas: Canvas) -> str:
    """Return the figure as an SVG element that can stand in a page beside others."""
    buffer = StringIO()
    canvas.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].strip()
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # One page holds several figures, and ids must be unique in it.
    prefix = "f" + sha256(text.encode()).hexdigest()[:8] + "-"
    text = re.sub(r'(\bid="|xlink:href="#|url\(#)', rf"\g<1>{prefix}", text)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    for placeholder, variable in _VARIABLES.items():
        text = text.replace(placeholder, variable)
    # The page's font, not the one that matplotlib measured with.
    return re.sub(r"(font(?:-family)?: [^;\"]*?)'DejaVu Sans'[^;\"]*", r"\1var(--font)", text)
