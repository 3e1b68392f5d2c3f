"""Metrics on the native rating scale: means of the per-pair contributions."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evaluation import contributions


def mse(truth: ArrayLike, prediction: ArrayLike) -> float:
    """Return the mean squared error, in squared rating points; lower is better."""
    return float(contributions.squared_error(truth, prediction).mean())


def rmse(truth: ArrayLike, prediction: ArrayLike) -> float:
    """Return the root of the mean squared error, in rating points; lower is better."""
    return float(np.sqrt(mse(truth, prediction)))


def mae(truth: ArrayLike, prediction: ArrayLike) -> float:
    """Return the mean absolute error, in rating points; lower is better (medians do best here)."""
    return float(contributions.absolute_error(truth, prediction).mean())


def bias(truth: ArrayLike, prediction: ArrayLike) -> float:
    """Return the mean of prediction - truth, in rating points: positive where predictions are too high."""
    return float(contributions.signed_error(truth, prediction).mean())


def log_likelihood(level_index: NDArray[np.integer], probabilities: ArrayLike) -> float:
    """Return the mean log-probability of the true level, in nats a rating; higher is better."""
    return float(contributions.log_likelihood(level_index, probabilities).mean())
