"""What each method's error on all cells would be, as someone without randomly collected ratings could estimate it.

A tenth of the self-selected ratings is held out, every method is fitted once to the rest, and its squared errors on the
held-out ratings are weighed by propensities that were fitted to the rest as well (``off_policy``). Beside the error on
the test it shows which method such a person would have chosen.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import spearmanr

from evaluation.benchmark import CellFit, Entry, Failure, run_benchmark
from evaluation.contributions import squared_error
from evaluation.off_policy import (
    Estimate,
    HeldOut,
    doubly_robust,
    expected_squared_error,
    ips,
    sample_cells,
    snips,
    weigh,
)  # fmt: skip
from mnar_recsys.data import RatingLog, Split
from mnar_recsys.propensity.base import PropensityModel
from mnar_recsys.propensity.registry import find_propensity

HELD_OUT = 0.1
_DIRECT_CELLS = 50_000
# Pseudo-ratings of the overall distribution that an item's shares start with.
_SHRINKAGE = 5.0

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class OffPolicyRow:
    """The estimates of one method's mean squared error, in squared rating points."""

    model: str
    naive: float
    """Mean over the held-out ratings as they are."""
    ips: Estimate
    snips: Estimate
    doubly_robust: Estimate | None
    """None on a scale without levels."""


@dataclass(frozen=True)
class OffPolicy:
    """Estimates for every method that could be fitted."""

    propensity: str
    rows: Sequence[OffPolicyRow]
    failures: Sequence[Failure]

    def table(self, errors: Mapping[str, float]) -> pd.DataFrame:
        """Return a line a method, in the order of ``errors`` (model to MSE on the test), as text ready to print."""
        known = {row.model: row for row in self.rows}
        lines = []
        for model in (name for name in errors if name in known):
            row = known[model]
            line = {"model": model, "MSE, test": f"{errors[model]:.3f}", "held out, as it is": f"{row.naive:.3f}"}
            line |= {"IPS": str(row.ips.interval), "SNIPS": str(row.snips.interval)}
            line["DR"] = str(row.doubly_robust.interval) if row.doubly_robust else "-"
            lines.append(line)
        return pd.DataFrame(lines)

    def rank_correlations(self, errors: Mapping[str, float]) -> dict[str, float]:
        """Return Spearman's correlation of each estimate with the error on the test, over the methods in both."""
        rows = [row for row in self.rows if row.model in errors]
        truth = [errors[row.model] for row in rows]
        found = {
            "held out, as it is": [row.naive for row in rows],
            "IPS": [row.ips.interval.value for row in rows],
            "SNIPS": [row.snips.interval.value for row in rows],
        }
        if all(row.doubly_robust for row in rows):
            found["DR"] = [row.doubly_robust.interval.value for row in rows if row.doubly_robust]
        return {name: float(spearmanr(values, truth).statistic) for name, values in found.items() if len(rows) > 2}


def estimate_errors(
    entries: Sequence[Entry],
    split: Split,
    folder: Path,
    propensity: str,
    *,
    jobs: int | str = 1,
    seed: int = 0,
    on_cell: Callable[[str, int, bool], None] | None = None,
) -> OffPolicy:
    """Fit every method once to nine tenths of the self-selected ratings and estimate its error on all cells.

    Parameters
    ----------
    entries
        The methods.
    split
        Its test plays no part.
    folder
        Where fits are kept, as ``run_benchmark`` does.
    propensity
        A name of ``propensity.registry``.
    seed
        Of the ratings held out, the cells of the direct part, and the fits.

    Raises
    ------
    ConfigError
        If there is no such propensity model.
    DataError
        If it needs labels or features that the split lacks, or too few ratings can be held out.
    """
    held = _set_aside(split, seed)
    model = find_propensity(propensity)().fit(replace(held, mnar_valid=None), seed=seed)
    weighed = weigh_held_out(held, model)
    log = weighed.log
    rows, columns = sample_cells(log, _DIRECT_CELLS, seed=seed)
    pairs = (
        log.users.take(np.concatenate([log.rows, rows])),
        log.catalogue.take(np.concatenate([log.items, columns])),
    )
    fits, failures = run_benchmark(
        entries, replace(held, mnar_valid=None), [seed], folder, jobs=jobs, pairs=pairs, on_cell=on_cell
    )
    shares = _level_shares(held.mnar_train, model)
    cells = np.concatenate([log.items, columns])
    rated = [fit for fit in fits if fit.predicts_ratings]
    return OffPolicy(
        propensity, [_row(fit, weighed, rows, None if shares is None else shares[cells]) for fit in rated], failures
    )


def weigh_held_out(split: Split, model: PropensityModel) -> HeldOut:
    """Return ``split.mnar_valid``, a tenth of the ratings, weighed by propensities fitted to ``split.mnar_train``."""
    valid = split.mnar_valid
    assert valid is not None  # noqa: S101
    rest = model.of_log(valid)  # of being rated and not held out
    return weigh(valid, np.minimum(rest / (1.0 - HELD_OUT), 1.0), share=HELD_OUT)


def _set_aside(split: Split, seed: int) -> Split:
    """Return the split without a test, a tenth held out, and no label for a cell that is held out."""
    whole = replace(split.for_training(), mnar_valid=None)
    held = whole.hold_out(HELD_OUT, seed=seed)
    labels, valid = held.mcar_labels, held.mnar_valid
    if labels is None or valid is None:
        return held
    kept = labels.select_ratings(~np.isin(labels.cells, valid.cells))
    return replace(held, mcar_labels=kept if kept.n_ratings else None)


def _level_shares(log: RatingLog, model: PropensityModel) -> Floats | None:
    """Return each item's level shares among all cells, (P, R), by inverse propensities, drawn to those of all items."""
    levels = log.scale.levels
    if levels is None:
        return None
    weights = 1.0 / model.of_log(log)
    weights /= weights.mean()
    table = np.zeros((log.n_items, len(levels)))
    np.add.at(table, (log.items, log.scale.level_index(log.ratings)), weights)
    overall = table.sum(0) / table.sum()
    table += _SHRINKAGE * overall
    return np.asarray(table / table.sum(1, keepdims=True))


def _row(fit: CellFit, weighed: HeldOut, direct_rows: NDArray[np.int64], shares: Floats | None) -> OffPolicyRow:
    n, levels = weighed.log.n_ratings, weighed.log.scale.levels
    errors = squared_error(weighed.log.ratings, fit.mean[:n])
    robust = None
    if shares is not None and levels is not None:
        expected = expected_squared_error(levels, shares, fit.mean)
        robust = doubly_robust(weighed, errors, expected[:n], cell_users=direct_rows, cell_predicted=expected[n:])
    return OffPolicyRow(fit.model, float(errors.mean()), ips(weighed, errors), snips(weighed, errors), robust)
