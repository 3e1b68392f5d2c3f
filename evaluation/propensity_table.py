"""Every propensity model that the data allow, fitted to one log, with the numbers that say how far to trust it."""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from mnar_recsys.data import Split
from mnar_recsys.errors import MnarError
from mnar_recsys.propensity.diagnostics import (
    Overlap,
    balance,
    calibration_table,
    expected_calibration_error,
    overlap,
)  # fmt: skip
from mnar_recsys.propensity.registry import PROPENSITIES

_TYPICAL_BOUND = 0.1
"""Bound of ``Overlap.share_below``, as a share of the mean propensity."""


@dataclass(frozen=True, eq=False)
class PropensityFit:
    """One model's diagnostics."""

    overlap: Overlap
    worst_balance: float
    """Largest absolute difference of a covariate's weighted mean from that of all cells, in standard deviations."""
    calibration: pd.DataFrame | None
    """``diagnostics.calibration_table``; None for a model that speaks of rated cells only."""


def fit_propensities(split: Split, *, seed: int = 0) -> tuple[dict[str, PropensityFit], dict[str, str]]:
    """Fit every model of the registry to a split; its test plays no part.

    Returns
    -------
    fits, left_out
        Name to diagnostics, and name to the reason why a model could not be fitted.
    """
    seen = split.for_training()
    log = seen.mnar_train
    bound = min(1.0, _TYPICAL_BOUND * log.n_ratings / (log.n_users * log.n_items))
    fits: dict[str, PropensityFit] = {}
    left_out: dict[str, str] = {}
    for name, make in PROPENSITIES.items():
        try:
            model = make().fit(seen, seed=seed)
        except MnarError as error:
            left_out[name] = str(error)
            continue
        values = model.of_log(log)
        fits[name] = PropensityFit(
            overlap(log, values, bound=bound),
            float(balance(log, values)["weighted_difference"].abs().max()),
            None if model.depends_on_rating else calibration_table(model, log, seed=seed),
        )
    return fits, left_out


def propensity_summary(fits: Mapping[str, PropensityFit]) -> pd.DataFrame:
    """Return a line a model: effective ratings, mass, largest weight, imbalance and calibration error."""
    lines = []
    for name, fit in fits.items():
        error = "-" if fit.calibration is None else f"{expected_calibration_error(fit.calibration):.5f}"
        lines.append(
            {
                "propensities": name,
                "effective ratings": f"{fit.overlap.effective_sample_size:,.0f}",
                "sum of weights, % of cells": f"{fit.overlap.mass:.0%}",
                "largest weight, % of all": f"{fit.overlap.largest_weight:.2%}",
                "worst imbalance (sd)": f"{fit.worst_balance:.2f}",
                "calibration error": error,
            }
        )
    return pd.DataFrame(lines)
