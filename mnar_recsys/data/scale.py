"""What a rating can be: one of some levels, or any number in an interval."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mnar_recsys.checks import as_finite
from mnar_recsys.data.ids import Place, array_position
from mnar_recsys.errors import ConfigError, DataError

MAX_INFERRED_LEVELS = 20
"""More grid points than this are taken for a real interval, unless levels are asked for by name."""

_STEPS = (1.0, 0.5, 0.25, 0.2, 0.1, 5.0, 10.0)
_OFF_GRID = 1e-3
"""Largest distance from a level, in steps: ratings are stored as float32, so 0.1 is not exactly 0.1."""


@dataclass(frozen=True)
class RatingScale:
    """Levels low, low + step, ..., high; or, without a step, the real interval from low to high.

    All values are in rating points, as the user wrote them.
    """

    low: float
    high: float
    step: float | None = None

    def __post_init__(self) -> None:
        for name in ("low", "high", "step"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else float(value))
        if not (np.isfinite(self.low) and np.isfinite(self.high) and self.low < self.high):
            raise ConfigError(f"a rating scale needs low < high, both finite; found low {self.low}, high {self.high}")
        if self.step is None:
            return
        n_steps = (self.high - self.low) / self.step if self.step > 0 else 0.0
        if n_steps < 1 - _OFF_GRID or abs(n_steps - round(n_steps)) > _OFF_GRID:
            raise ConfigError(
                f"a rating scale's step must divide high - low; found step {self.step:g} from {self.low:g}"
                f" to {self.high:g}"
            )

    @cached_property
    def levels(self) -> NDArray[np.float64] | None:
        """The levels in rising order, (R,); None for a real interval."""
        if self.step is None:
            return None
        n_levels = round((self.high - self.low) / self.step) + 1
        levels = np.round(np.linspace(self.low, self.high, n_levels), 10)
        levels.flags.writeable = False
        return levels

    @property
    def n_levels(self) -> int | None:
        """The number of levels; None for a real interval."""
        return None if self.levels is None else len(self.levels)

    @property
    def centre(self) -> float:
        """The middle of the scale, in rating points."""
        return (self.low + self.high) / 2

    @property
    def half_width(self) -> float:
        """Half the distance from low to high, in rating points."""
        return (self.high - self.low) / 2

    def misfits(self, ratings: ArrayLike) -> NDArray[np.bool_]:
        """Return where a rating is outside the scale, between two levels, or not finite."""
        values = np.asarray(ratings, dtype=np.float64)
        # float32 ratings may pass a float64 end by a rounding error.
        slack = _OFF_GRID * self.step if self.step is not None else 1e-6 * max(abs(self.low), abs(self.high))
        fits = (values >= self.low - slack) & (values <= self.high + slack)
        if self.step is not None:
            steps = (values - self.low) / self.step
            with np.errstate(invalid="ignore"):
                fits &= np.abs(steps - np.round(steps)) <= _OFF_GRID
        return ~fits

    def check(
        self,
        ratings: ArrayLike,
        label: str = "rating",
        place: Place = array_position,
        remedy: str = "Correct it, or give the scale that is meant (scale=..., --scale low,high,step)",
    ) -> None:
        """Raise DataError naming the first rating that is not on the scale."""
        values = np.asarray(ratings, dtype=np.float64).ravel()
        misfits = self.misfits(values)
        if misfits.any():
            row = int(np.argmax(misfits))
            raise DataError(f"{place(row)}: found {label} {values[row]:g}, expected one of {self.describe()}. {remedy}")

    def level_index(self, ratings: ArrayLike) -> NDArray[np.int64]:
        """Return the index of each rating's level, 0..R-1.

        Raises
        ------
        DataError
            If a rating is not on a level, or the scale is a real interval.
        """
        step = self._require_step()
        self.check(ratings)
        return np.round((np.asarray(ratings, dtype=np.float64) - self.low) / step).astype(np.int64)

    def _require_step(self) -> float:
        if self.step is None:
            raise DataError(f"levels are needed; found {self.describe()}. Give them as --scale low,high,step")
        return self.step

    def nearest_level(self, values: ArrayLike) -> NDArray[np.float64]:
        """Return the level nearest to each value; half-way goes up, so the mean of 1 and 2 becomes 2."""
        step, levels = self._require_step(), self.levels
        steps = np.floor((np.asarray(values, dtype=np.float64) - self.low) / step + 0.5)
        places = np.clip(steps, 0, len(levels if levels is not None else ()) - 1).astype(np.int64)
        return np.asarray(levels)[places]

    def clip(self, values: ArrayLike) -> NDArray[np.float64]:
        """Return the values moved into low..high."""
        return np.clip(np.asarray(values, dtype=np.float64), self.low, self.high)

    def describe(self) -> str:
        """Return the scale in words, for example ``5 levels from 1 to 5``."""
        if self.step is None:
            return f"the real numbers from {self.low:g} to {self.high:g}"
        steps = "" if self.step == 1 else f" in steps of {self.step:g}"
        return f"{self.n_levels} levels from {self.low:g} to {self.high:g}{steps}"

    def to_dict(self) -> dict[str, float | None]:
        """Return the scale as plain values for JSON."""
        return {"low": self.low, "high": self.high, "step": self.step}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RatingScale":
        """Return the scale that `to_dict` described; raise ConfigError for anything else."""
        numbers = [values.get(name) for name in ("low", "high", "step")]
        if set(values) != {"low", "high", "step"} or not all(
            number is None or (isinstance(number, int | float) and not isinstance(number, bool)) for number in numbers
        ):
            raise ConfigError(f"a rating scale must have the numbers low, high and step; found {dict(values)}")
        low, high, step = numbers
        if low is None or high is None:
            raise ConfigError(f"a rating scale must have a low and a high end; found {dict(values)}")
        return cls(float(low), float(high), None if step is None else float(step))

    @classmethod
    def infer(cls, ratings: ArrayLike) -> "RatingScale":
        """Return the coarsest usual grid that the ratings lie on, from the lowest to the highest of them.

        A grid is of whole numbers, halves, quarters, fifths, tenths, fives or tens, with at most 20 points;
        levels between the ends that nobody gave are included. Anything else is the real interval.

        Raises
        ------
        DataError
            If a rating is not finite, or all ratings are equal: then the ends are unknown.
        """
        distinct = np.unique(as_finite("ratings", ratings))
        if len(distinct) < 2:
            found = f"only the rating {distinct[0]:g}" if len(distinct) else "no rating"
            raise DataError(f"the rating scale cannot be inferred from {found}; give it (scale=..., --scale low,high)")
        low, high = float(distinct[0]), float(distinct[-1])
        return cls(low, high, _grid_step(low, high, distinct))

    @classmethod
    def parse(cls, text: str, ratings: ArrayLike | None = None) -> "RatingScale":
        """Return the scale written as ``1,5`` or ``0.5,5,0.5`` or ``0,1,real``.

        With two numbers the step is the coarsest usual one that the ratings (if given, else the two ends) lie
        on.

        Raises
        ------
        ConfigError
            If the text is none of these.
        """
        parts = [part.strip() for part in text.split(",")]
        try:
            low, high = float(parts[0]), float(parts[1])
            step = None if parts[2:] in ([], ["real"]) else float(parts[2])
        except (ValueError, IndexError):
            parts, low, high, step = [], 0.0, 1.0, None
        if len(parts) not in (2, 3):
            raise ConfigError(f"a scale must be written low,high or low,high,step or low,high,real; found {text!r}")
        if len(parts) == 2 and low < high:
            values = np.asarray([] if ratings is None else ratings, dtype=np.float64).ravel()
            inside = np.unique(values[(values >= low) & (values <= high)])
            step = _grid_step(low, high, inside)
        return cls(low, high, step)


def _grid_step(low: float, high: float, values: NDArray[np.float64]) -> float | None:
    """Return the first usual step whose grid from low to high has few points and holds all values."""
    for step in _STEPS:
        n_steps = (high - low) / step
        if n_steps > MAX_INFERRED_LEVELS - 1 + _OFF_GRID or n_steps < 1 - _OFF_GRID:
            continue
        steps = (np.append(values, high) - low) / step
        if np.all(np.abs(steps - np.round(steps)) <= _OFF_GRID):
            return step
    return None
