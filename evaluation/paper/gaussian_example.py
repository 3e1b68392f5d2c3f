"""Figure 1b: two correlated Gaussian features, the first one missing above its mean (section 2.1)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnar_recsys.rng import numpy_generator
from mnar_recsys.tables import MNARImputer

OnStep = Callable[[str, int, int], None]
"""Told the model, and how many of how many steps are done."""

MEAN = np.array([1.0, 1.0])
COVARIANCE = np.array([[1.0, 0.8], [0.8, 1.0]])
_BOOTSTRAPS = 500


@dataclass(frozen=True)
class Fit:
    """Where one model puts the centre of the data, (2,), and the angle of its principal direction, in degrees."""

    name: str
    mean: NDArray[np.float64]
    angle: float


@dataclass(frozen=True)
class Example:
    """The data, the truth with the sampling error that complete data would leave, and two fits."""

    complete: NDArray[np.float64]
    observed: NDArray[np.bool_]
    truth: Fit
    mean_error: NDArray[np.float64]
    """(2,) standard error of the mean of as many complete rows"""
    angle_error: float
    """standard error of their principal direction, in degrees"""
    fits: tuple[Fit, ...]


def run(
    *,
    n_rows: int = 1_000,
    iterations: int = 100_000,
    learning_rate: float = 1e-3,
    seed: int = 0,
    on_step: OnStep | None = None,
) -> Example:
    """Simulate and fit PPCA, which takes what is missing for random, and not-MIWAE with a PPCA decoder.

    The mask is a threshold, and a slope gets there slowly: with fewer steps of not-MIWAE the centre stays behind.
    """
    rng = numpy_generator(seed, "figure 1b")
    complete = rng.multivariate_normal(MEAN, COVARIANCE, size=n_rows)
    observed = np.ones_like(complete, dtype=bool)
    observed[:, 0] = complete[:, 0] <= MEAN[0]
    table = np.where(observed, complete, np.nan)
    common: dict[str, Any] = {"decoder": "linear", "latent_size": 1, "batch_size": 100, "mask_input": False}
    fits = []
    common |= {"max_iter": iterations, "learning_rate": learning_rate, "random_state": seed}
    for name, missing in (("PPCA", "ignorable"), ("not-MIWAE PPCA", "self-masking")):
        imputer = MNARImputer(**{**common, "missing": missing})

        def look(step: int, _: NDArray[np.float64], name: str = name) -> None:
            if on_step is not None:
                on_step(name, step, iterations)

        fits.append(_read(name, imputer.fit(table, on_step=look)))
    again = [complete[rng.integers(n_rows, size=n_rows)] for _ in range(_BOOTSTRAPS)]
    angles = np.array([principal_angle(np.cov(rows.T)) for rows in again])
    return Example(
        complete,
        observed,
        Fit("truth", MEAN, principal_angle(COVARIANCE)),
        np.std([rows.mean(0) for rows in again], axis=0),
        float(np.std(angles)),
        tuple(fits),
    )


def principal_angle(covariance: NDArray[np.float64]) -> float:
    """Return the direction of largest variance of two features, in degrees from the first, in [-90, 90)."""
    direction = np.linalg.eigh(covariance)[1][:, -1]
    return float((np.degrees(np.arctan2(direction[1], direction[0])) + 90) % 180 - 90)


def _read(name: str, imputer: MNARImputer) -> Fit:
    mean, covariance = imputer.linear_moments()[0]
    return Fit(name, mean, principal_angle(covariance))
