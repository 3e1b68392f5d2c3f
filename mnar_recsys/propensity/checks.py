"""Checks on settings of propensity models, and on propensities from outside."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mnar_recsys.checks import as_finite
from mnar_recsys.errors import ConfigError, DataError


def positive(label: str, value: float) -> float:
    """Return ``value``; raise ConfigError unless it is a finite number above 0."""
    if not 0.0 < value < math.inf:
        raise ConfigError(f"{label} must be a number above 0; found {value}. Give a larger one")
    return float(value)


def at_least(label: str, value: int, least: int) -> int:
    """Return ``value``; raise ConfigError unless it is a whole number of at least ``least``."""
    if value != int(value) or value < least:
        raise ConfigError(f"{label} must be a whole number of at least {least}; found {value}. Give a larger one")
    return int(value)


def as_propensities(values: ArrayLike) -> NDArray[np.float64]:
    """Return ``values`` as float64, (n,); raise DataError unless all are above 0 and at most 1."""
    array = as_finite("propensities", values)
    if array.ndim != 1:
        raise DataError(f"propensities must be one-dimensional; found shape {array.shape}. Give one a cell")
    outside = (array <= 0.0) | (array > 1.0)
    if outside.any():
        raise DataError(
            f"propensities must be above 0 and at most 1; found {array[outside][0]:g} at position "
            f"{int(np.argmax(outside))}. Correct the model that gave it"
        )
    return array
