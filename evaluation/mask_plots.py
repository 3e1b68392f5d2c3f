"""Figures of what a fitted model says of the mask, beside what it is."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from evaluation.drawing import COLOURS, INK, MARKERS, Figure, legend_above, single, style, to_svg
from mnar_recsys.checks import as_finite, check_same_length
from mnar_recsys.errors import DataError


def mask_check_chart(
    groups: Sequence[str],
    actual: ArrayLike,
    predicted: ArrayLike,
    low: ArrayLike,
    high: ArrayLike,
    *,
    x_label: str,
    y_label: str,
) -> Figure:
    """Draw actual numbers of a few groups, and the intervals predicted for them, as multiples of the predicted ones.

    Groups differ by orders of magnitude: as they are, the largest would hide all the rest. What lies in its interval is
    a filled dot, what does not a hollow square.

    Parameters
    ----------
    groups
        What the groups are called, G of them; where a name has a blank, what follows goes under it.
    actual, predicted, low, high
        (G,) each, not negative. A group of which 0 is predicted has no multiples and is left out.

    Raises
    ------
    DataError
        If there is no group, the lengths differ, or a value is negative or not finite.
    """
    parts = {"actual": actual, "predicted": predicted, "low": low, "high": high}
    values = {name: as_finite(f"{name} numbers", part) for name, part in parts.items()}
    check_same_length(groups=np.asarray(groups, dtype=object), **values)
    if not len(groups) or any((part < 0).any() for part in values.values()):
        raise DataError(f"a mask check needs groups, and numbers of 0 or more; found {len(groups)} groups")
    place = np.flatnonzero(values["predicted"] > 0)
    have, below, above = (values[name][place] / values["predicted"][place] for name in ("actual", "low", "high"))
    inside = (below <= have) & (have <= above)
    with style():
        canvas, axes = single(x_label, f"{y_label},\nactual / predicted")
        axes.axhline(1.0, color=INK, linewidth=0.8)
        axes.errorbar(
            place,
            np.ones(len(place)),
            yerr=[np.maximum(1 - below, 0), np.maximum(above - 1, 0)],
            fmt="none",
            ecolor=COLOURS[2],
            elinewidth=1.8,
            capsize=6,
            label="95 % interval",
        )
        axes.plot(place[inside], have[inside], MARKERS[0], color=COLOURS[0], markersize=6, label="actual")
        if not inside.all():
            axes.plot(
                place[~inside],
                have[~inside],
                MARKERS[1],
                color=COLOURS[1],
                markerfacecolor="none",
                markeredgewidth=2,
                markersize=8,
                label="actual, outside",
            )
        axes.set_xticks(np.arange(len(groups)), [name.replace(" ", "\n", 1) for name in groups])
        legend_above(axes)
        words = ", ".join(
            f"{name} {count:.3g} and {said:.3g}"
            for name, count, said in zip(groups, values["actual"], values["predicted"], strict=True)
        )
        return Figure(to_svg(canvas), f"Chart of {y_label} by {x_label}, actual and predicted: {words}.")
