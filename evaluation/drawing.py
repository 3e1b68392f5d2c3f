"""What the figures share: a palette of CSS variables, the style, and the way from a canvas to inline SVG.

Lines differ by dash and marker, bars by hatching, so that every figure can be read in black and white.
"""

import re
from contextlib import AbstractContextManager
from dataclasses import dataclass
from hashlib import sha256
from io import StringIO
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from numpy.typing import NDArray

# Placeholders that become CSS variables, so that one SVG serves both colour schemes.
INK, GRID, PAPER = "#010203", "#010204", "#010205"
COLOURS = ("#010206", "#010207", "#010208")
_VARIABLES = {
    INK: "var(--ink)",
    GRID: "var(--rule)",
    PAPER: "var(--paper)",
    **{colour: f"var(--series-{number})" for number, colour in enumerate(COLOURS, start=1)},
}
DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)))
MARKERS = ("o", "s", "^")
HATCHES = ("", "////", "....")
_SIZE_INCHES = (5.6, 3.3)
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "mnar-recsys",
    "font.size": 12.0,
    "text.parse_math": False,
    "legend.facecolor": PAPER,
    "legend.edgecolor": "none",
    "legend.framealpha": 1.0,
    "hatch.linewidth": 0.8,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": GRID,
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


def style() -> AbstractContextManager[None]:
    """Return the context to draw in; it leaves the global style alone."""
    return mpl.rc_context(_STYLE)


def panels(count: int, *, across: int = 1, panel_inches: tuple[float, float]) -> tuple[Canvas, list[Axes]]:
    """Return a canvas with ``count`` panels, ``across`` in a row, that share their axes."""
    across = min(across, count)
    down = -(-count // across)
    canvas = Canvas(figsize=(panel_inches[0] * across, panel_inches[1] * down), layout="constrained")
    grid = canvas.subplots(down, across, sharex=True, sharey=True, squeeze=False).ravel()
    canvas.patch.set_alpha(0.0)
    for axes in grid:
        axes.patch.set_alpha(0.0)
        axes.grid(axis="y", linewidth=0.8)
        axes.set_axisbelow(True)
    for axes in grid[count:]:
        axes.remove()
    for axes in grid[count - across : count]:
        # Above a removed panel, shared axes would leave the lowest without numbers.
        axes.tick_params(labelbottom=True)
    return canvas, list(grid[:count])


def single(x_label: str, y_label: str, *, size_inches: tuple[float, float] = _SIZE_INCHES) -> tuple[Canvas, Axes]:
    """Return a canvas with one panel."""
    canvas, (axes,) = panels(1, panel_inches=size_inches)
    axes.set(xlabel=x_label, ylabel=y_label)
    return canvas, axes


def line(
    axes: Axes,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    number: int,
    label: str,
    *,
    marked: bool = True,
) -> None:
    """Draw a curve as series ``number`` of at most three."""
    dash, marker = DASHES[number], MARKERS[number] if marked else ""
    axes.plot(x, y, color=COLOURS[number], linestyle=dash, marker=marker, markersize=5, linewidth=1.8, label=label)


def legend_above(axes: Axes) -> None:
    """Put the legend over the panel, where the data may fill every corner of it."""
    axes.legend(
        loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, columnspacing=1.0, handletextpad=0.5, handlelength=1.6
    )


def in_words(x: NDArray[np.float64], y: NDArray[np.float64], unit: str = "") -> str:
    """Return points as text for those who do not see the figure, for example ``1 51.50%, 2 25.20%``."""
    return ", ".join(f"{level:g} {value:.2f}{unit}" for level, value in zip(x, y, strict=True))


def to_svg(canvas: Canvas) -> str:
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
