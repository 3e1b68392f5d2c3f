"""The paper's figures on complete-data matrices, as sections of a page."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure as Canvas
from numpy.typing import NDArray

from evaluation.drawing import COLOURS, DASHES, INK, Figure, panels, single, style, to_svg
from evaluation.paper.clipping import CLIPPED_AT, Clipped, Row
from evaluation.paper.gaussian_example import Example
from evaluation.report import Section

_IMAGES = 8
_LENGTH = 2.5  # of the drawn directions, in the units of the data


def gaussian_section(example: Example) -> Section:
    """Draw the data and the directions found (figure 1b)."""
    with style():
        canvas, axes = single("first feature", "second feature", size_inches=(6.8, 3.4))
        for seen, marker, label in ((True, ".", "fully observed"), (False, "x", "first feature missing")):
            chosen = example.complete[example.observed[:, 0] == seen]
            axes.plot(*chosen.T, marker, color=INK, alpha=0.35, markersize=4, label=label)
        for number, fit in enumerate((example.truth, *example.fits)):
            along = _LENGTH * np.array([np.cos(np.radians(fit.angle)), np.sin(np.radians(fit.angle))])
            ends = np.stack([fit.mean - along, fit.mean + along])
            axes.plot(*ends.T, color=COLOURS[number], linestyle=DASHES[number], linewidth=2 + number, label=fit.name)
            axes.plot(*fit.mean, "o", color=COLOURS[number], markersize=7)
        axes.set_aspect("equal")
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
        words = "; ".join(f"{fit.name} {fit.angle:.1f} degrees" for fit in (example.truth, *example.fits))
        figure = Figure(to_svg(canvas), f"Scatter of two features with principal directions: {words}.")
    text = (
        "The first feature is missing above its mean. PPCA takes that for chance: its centre and direction are "
        "those of what is left. The same model, fitted together with a self-masking missing model, sees past it."
    )
    return Section("Two features, one of them missing above its mean", text, figure)


def histogram_section(data: Clipped, rows: Sequence[Row]) -> Section:
    """Draw how the hidden pixels are distributed as imputed and in truth (figure 2)."""
    hidden = ~data.observed
    shown = [(row.method, row.imputed[hidden]) for row in rows if row.imputed is not None and row.method != "ones"]
    shown.append(("truth", data.train[hidden]))
    with style():
        canvas, grid = panels(len(shown), across=len(shown), panel_inches=(2.9, 2.8))
        for axes, (name, values) in zip(grid, shown, strict=True):
            axes.hist(np.clip(values, 0, 1.2), bins=48, range=(0, 1.2), color=COLOURS[0], density=True)
            axes.axvline(CLIPPED_AT, color=INK, linestyle=":", linewidth=1.2)
            axes.set(title=name, xlabel="grey level")
        grid[0].set_ylabel("density")
        words = "; ".join(f"{name}: mean {values.mean():.2f}" for name, values in shown)
        figure = Figure(to_svg(canvas), f"Histograms of hidden pixels. {words}.", "Dotted: where clipping begins.")
    return Section("Hidden pixels: imputed and true", figure=figure)


def image_section(data: Clipped, rows: Sequence[Row]) -> Section:
    """Draw some images, what was left of them, and what was put in (figure 3)."""
    chosen = np.argsort(-(~data.observed).sum(1), kind="stable")[: 4 * _IMAGES : 4]
    strips: list[tuple[str, NDArray[np.float64]]] = [
        ("original", data.train[chosen]),
        ("what is left", np.where(data.observed, data.train, 0.0)[chosen]),
    ]
    strips += [(row.method, row.imputed[chosen]) for row in rows if row.imputed is not None and row.method != "ones"]
    with style():
        canvas = Canvas(figsize=(0.85 * _IMAGES + 1.6, 0.95 * len(strips)), layout="constrained")
        canvas.patch.set_alpha(0.0)
        for axes, (name, images) in zip(canvas.subplots(len(strips), 1, squeeze=False)[:, 0], strips, strict=True):
            # A white column between images.
            framed = [np.pad(image.reshape(data.shape), ((0, 0), (0, 1)), constant_values=1.0) for image in images]
            axes.imshow(np.concatenate(framed, 1), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axes.set_axis_off()
            axes.text(-0.02, 0.5, name, ha="right", va="center", transform=axes.transAxes)
        figure = Figure(to_svg(canvas), "Rows of images: " + ", ".join(name for name, _ in strips) + ".")
    return Section("Images, clipped and imputed", figure=figure)
