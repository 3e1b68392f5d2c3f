"""How far propensities can be trusted: clipping, overlap, calibration against the mask, balance of covariates."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from mnar_recsys.checks import as_finite
from mnar_recsys.data import FeatureTable, RatingLog
from mnar_recsys.errors import ConfigError, DataError
from mnar_recsys.propensity.base import PropensityModel
from mnar_recsys.propensity.checks import as_propensities, at_least
from mnar_recsys.propensity.mask import item_counts, sample_cells, user_counts
from mnar_recsys.rng import numpy_generator

# When a number about the weights is worth a sentence.
_MANY_BELOW = 0.05
_HEAVY_WEIGHT = 0.01
_FEW_EFFECTIVE = 0.2
_MASS_OFF = 0.2


@dataclass(frozen=True, eq=False)
class Clipped:
    """Propensities raised to a lower bound."""

    values: NDArray[np.float64]  # (n,)
    share: float
    """Share of the cells that were below the bound: each biases what is weighed, to lower its variance."""


def clip(propensities: ArrayLike, low: float) -> Clipped:
    """Return propensities, (n,), none below ``low``, and the share that was.

    Raises
    ------
    ConfigError
        If ``low`` is not above 0 and at most 1.
    DataError
        If a propensity is not above 0 and at most 1.
    """
    _check_bound("low", low)
    values = as_propensities(propensities)
    return Clipped(np.maximum(values, low), float((values < low).mean()) if len(values) else 0.0)


def effective_sample_size(weights: ArrayLike) -> float:
    """Return (sum w)^2 / sum w^2, the number of equal weights that would give as sure a mean (Kish, 1965).

    From 1, one weight decides, to n, all are equal.

    Raises
    ------
    DataError
        If a weight is negative, or none is above 0.
    """
    values = as_finite("weights", weights)
    if (values < 0.0).any() or not (values > 0.0).any():
        raise DataError("weights must be at least 0, and one above 0; found others. Give 1 / propensity")
    return float(values.sum() ** 2 / np.square(values).sum())


@dataclass(frozen=True)
class Overlap:
    """Whether the rated cells, weighed by 1 / propensity, can stand for all."""

    n_ratings: int
    bound: float
    share_below: float
    """Share of the ratings with a propensity below ``bound``."""
    largest_weight: float
    """Largest weight, as a share of the sum of all."""
    effective_sample_size: float
    """Of the weights; see ``effective_sample_size``."""
    mass: float
    """Sum of the weights over the number of all cells: 1 in expectation where the propensities are right, less where
    those of rated cells are too high, as after a fit that learnt these very ratings."""

    def warnings(self) -> tuple[str, ...]:
        """Return a sentence for each number that should worry, none if all is well."""
        share_effective = self.effective_sample_size / self.n_ratings
        found = (
            (
                self.share_below > _MANY_BELOW,
                f"{self.share_below:.0%} of the ratings have a propensity below {self.bound:g}: "
                "what is weighed by them rests on few ratings, so clip, or use a doubly robust method.",
            ),
            (
                self.largest_weight > max(_HEAVY_WEIGHT, 10.0 / self.n_ratings),
                f"One rating carries {self.largest_weight:.1%} of the weight of all {self.n_ratings:,}.",
            ),
            (
                share_effective < _FEW_EFFECTIVE,
                f"The weights leave {self.effective_sample_size:,.0f} effective ratings of {self.n_ratings:,} "
                f"({share_effective:.0%}).",
            ),
            (
                abs(self.mass - 1.0) > _MASS_OFF,
                f"The weights sum to {self.mass:.0%} of the number of cells instead of 100%: the propensities of rated "
                f"cells are too {'high' if self.mass < 1.0 else 'low'} on the whole.",
            ),
        )
        return tuple(sentence for is_worrying, sentence in found if is_worrying)


def overlap(log: RatingLog, propensities: ArrayLike, *, bound: float = 0.01) -> Overlap:
    """Return how the weights 1 / propensity of the ratings of ``log``, (n,), are spread.

    ``log`` is the one whose being rated the propensities are of: ``mnar_train`` for the models here.

    Raises
    ------
    ConfigError
        If ``bound`` is not above 0 and at most 1.
    DataError
        If the propensities are not one for each rating, above 0 and at most 1.
    """
    _check_bound("bound", bound)
    values = _one_each(log, propensities)
    weights = 1.0 / values
    return Overlap(
        n_ratings=log.n_ratings,
        bound=bound,
        share_below=float((values < bound).mean()),
        largest_weight=float(weights.max() / weights.sum()),
        effective_sample_size=effective_sample_size(weights),
        mass=float(weights.sum() / (log.n_users * log.n_items)),
    )


def calibration_table(
    model: PropensityModel, log: RatingLog, *, bins: int = 10, max_cells: int = 1_000_000, seed: int = 0
) -> pd.DataFrame:
    """Return predicted propensities beside the share of cells that are rated in ``log``, by quantile bins.

    Parameters
    ----------
    model
        Fitted. Where it learnt from ``log`` itself the table shows the fit, not how well it predicts.
    log
        Whose mask is the truth, with the users and items of the split fitted to.
    bins
        At most so many, of equal numbers of cells as far as ties allow.
    max_cells
        Of the N * P cells so many are drawn at random, or all taken: the cost does not grow with the rest.

    Returns
    -------
    DataFrame
        Columns ``low high predicted observed n``: the range and the mean of the propensities in a bin, the share of
        its cells that are rated, and their number. One row a bin, rising.

    Raises
    ------
    DataError
        If the model depends on the rating, which unrated cells do not have.
    ConfigError
        If ``bins`` or ``max_cells`` is below 1.
    """
    if model.depends_on_rating:
        raise DataError(
            f"calibration needs propensities of unrated cells; {type(model).__name__} depends on the rating. "
            "See overlap and balance"
        )
    at_least("bins", bins, 1)
    cells = sample_cells(log, at_least("max_cells", max_cells, 1), numpy_generator(seed, "calibration"))
    predicted = model.propensity(cells // log.n_items, cells % log.n_items)
    is_rated = np.isin(cells, log.cells, assume_unique=True)
    edges = np.unique(np.quantile(predicted, np.arange(1, bins) / bins))
    frame = pd.DataFrame({"bin": np.searchsorted(edges, predicted), "p": predicted, "rated": is_rated})
    table = frame.groupby("bin").agg(
        low=("p", "min"), high=("p", "max"), predicted=("p", "mean"), observed=("rated", "mean"), n=("p", "size")
    )
    return table.reset_index(drop=True)


def expected_calibration_error(table: pd.DataFrame) -> float:
    """Return the mean absolute gap between predicted and observed of ``calibration_table``, over cells; best is 0."""
    gaps = (table["predicted"] - table["observed"]).abs()
    return float((gaps * table["n"]).sum() / table["n"].sum())


def balance(log: RatingLog, propensities: ArrayLike) -> pd.DataFrame:
    """Return how far the rated cells differ from all cells, before and after weighing by 1 / propensity.

    With right propensities the weighted mean of whatever does not depend on being rated is that of all cells, but for
    chance; absolute differences above 0.1 are usually called imbalance (Austin, Statistics in Medicine 28, 2009).

    Parameters
    ----------
    log
        The ratings, with features or without.
    propensities
        Of its ratings, (n,).

    Returns
    -------
    DataFrame
        One row for the share of users who rated an item, the share of items that a user rated, and every feature.
        Columns ``covariate``; ``all``, ``rated`` and ``weighted``, its mean over all cells and over the rated ones
        without and with weights; ``rated_difference`` and ``weighted_difference``, these less ``all``, in standard
        deviations over all cells (0 for a constant).

    Raises
    ------
    DataError
        If the propensities are not one for each rating, above 0 and at most 1.
    """
    weights = 1.0 / _one_each(log, propensities)
    weights /= weights.sum()
    sides = (
        ("item popularity", item_counts(log) / log.n_users, log.items, "item", log.item_features),
        ("user activity", user_counts(log) / log.n_items, log.rows, "user", log.user_features),
    )
    rows = []
    for margin, shares, indices, kind, table in sides:
        for name, values in ((margin, shares), *_columns(kind, table)):
            mean, spread = float(values.mean()), float(values.std())
            rated, weighted = float(values[indices].mean()), float(weights @ values[indices])
            scale = spread if spread > 0.0 else np.inf
            rows.append((name, mean, rated, weighted, (rated - mean) / scale, (weighted - mean) / scale))
    names = ["covariate", "all", "rated", "weighted", "rated_difference", "weighted_difference"]
    return pd.DataFrame(rows, columns=names)


def _one_each(log: RatingLog, propensities: ArrayLike) -> NDArray[np.float64]:
    values = as_propensities(propensities)
    if len(values) != log.n_ratings or not len(values):
        raise DataError(
            f"propensities must be one for each rating, and one is needed; found {len(values)} for {log.n_ratings} "
            "ratings. Use model.of_log(log)"
        )
    return values


def _columns(kind: str, table: FeatureTable | None) -> list[tuple[str, NDArray[np.float64]]]:
    if table is None:
        return []
    return [
        (f"{kind} {name}", column.astype(np.float64)) for name, column in zip(table.names, table.values.T, strict=True)
    ]


def _check_bound(label: str, bound: float) -> None:
    if not 0.0 < bound <= 1.0:
        raise ConfigError(f"{label} must be above 0 and at most 1; found {bound}. Typical bounds are .01 to .2")
