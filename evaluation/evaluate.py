"""One call from predictions on test cells to a table of metrics with intervals."""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from evaluation import calibration, contributions
from evaluation.intervals import bootstrap
from mnar_recsys.data.log import RatingLog
from mnar_recsys.errors import DataError

COLUMNS = ("cells", "metric", "value", "lower", "upper", "n")


def evaluate(
    test: RatingLog,
    mean: ArrayLike,
    *,
    quantiles: tuple[ArrayLike, ArrayLike] | None = None,
    level_probabilities: ArrayLike | None = None,
    unseen: NDArray[np.bool_] | None = None,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Score predictions for every cell of ``test``, in the order in which the log stores them.

    Parameters
    ----------
    test
        Randomly collected ratings, n of them.
    mean
        Predicted mean rating per cell, (n,), in rating points.
    quantiles
        Predicted 5 % and 95 % quantiles per cell, each (n,).
    level_probabilities
        Predicted probability of each rating level per cell, (n, R); needs a log with levels.
    unseen
        True where the cell is not in the training log, (n,) (``Split.unseen``). With it, and where it leaves
        any cell, each metric has a row for ``unseen`` cells before that for ``all``.
    level, resamples, seed
        Of the user-cluster bootstrap.

    Returns
    -------
    DataFrame
        Columns ``cells metric value lower upper n``. Metrics: ``mse rmse mae bias`` (prediction - truth);
        with quantiles ``coverage_90``; with probabilities ``log_likelihood`` (nats, higher is better),
        ``pit_coverage_90``, and the distances ``marginal_tv`` and ``marginal_wasserstein`` between predicted
        and true marginal, whose bounds are NaN because a resampled distance is never 0; with both,
        ``coverage_90_model`` (what the model itself says the coverage should be) and ``coverage_90_gap``
        (coverage_90 minus that).

    Raises
    ------
    DataError
        If an array does not fit the test, or leaves a cell unscored: nothing is dropped in silence.
    """
    columns = _point_columns(test, mean)
    if quantiles is not None:
        columns["coverage_90"] = calibration.covered(test.ratings, *quantiles)
    probabilities = None
    if level_probabilities is not None:
        probabilities = check_levels(test, level_probabilities)
        columns |= _level_columns(test, probabilities, quantiles, seed)
    masks = cell_masks(test, unseen)
    tables = []
    for cells, mask in masks.items():
        kept = {name: values[mask] for name, values in columns.items()}
        rows = _bootstrap_rows(kept, test.rows[mask], level, resamples, seed)
        if probabilities is not None:
            rows += _distance_rows(test, probabilities, mask)
        tables.append(pd.DataFrame(rows, columns=list(COLUMNS[1:-1])).assign(cells=cells, n=int(mask.sum())))
    return pd.concat(tables, ignore_index=True)[list(COLUMNS)]


def _point_columns(test: RatingLog, mean: ArrayLike) -> dict[str, NDArray[np.float64]]:
    return {
        "mse": contributions.squared_error(test.ratings, mean),
        "mae": contributions.absolute_error(test.ratings, mean),
        "bias": contributions.signed_error(test.ratings, mean),
    }


def _level_columns(
    test: RatingLog,
    probabilities: NDArray[np.float64],
    quantiles: tuple[ArrayLike, ArrayLike] | None,
    seed: int,
) -> dict[str, NDArray[np.float64]]:
    index = test.scale.level_index(test.ratings)
    columns = {
        "log_likelihood": contributions.log_likelihood(index, probabilities),
        "pit_coverage_90": calibration.pit_covered(calibration.randomised_pit(index, probabilities, seed=seed)),
    }
    if quantiles is not None:
        expected = calibration.interval_probability(_levels(test), probabilities, *quantiles)
        columns["coverage_90_model"] = expected
        columns["coverage_90_gap"] = calibration.covered(test.ratings, *quantiles) - expected
    return columns


def _bootstrap_rows(
    columns: dict[str, NDArray[np.float64]],
    users: NDArray[np.generic],
    level: float,
    resamples: int,
    seed: int,
) -> list[tuple[str, float, float, float]]:
    """Return (metric, value, lower, upper) of each column's mean, and of the RMSE."""
    finite = [name for name, values in columns.items() if np.isfinite(values).all()]

    def with_rmse(means: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.concatenate([means[..., :1], np.sqrt(means[..., :1]), means[..., 1:]], axis=-1)

    table = np.stack([columns[name] for name in finite], axis=1)
    intervals = bootstrap(table, users, statistic=with_rmse, level=level, resamples=resamples, seed=seed)
    names = [finite[0], "rmse", *finite[1:]]
    rows = [(name, i.value, i.low, i.high) for name, i in zip(names, intervals, strict=True)]
    # Only a log-likelihood can be infinite: the model ruled out a rating that was given.
    infinite = [(name, -np.inf, -np.inf, -np.inf) for name in columns if name not in finite]
    return rows + infinite


def _distance_rows(
    test: RatingLog, probabilities: NDArray[np.float64], mask: NDArray[np.bool_]
) -> list[tuple[str, float, float, float]]:
    table = calibration.level_frequencies(
        _levels(test), test.scale.level_index(test.ratings[mask]), probabilities[mask]
    )
    expected, observed = table["expected"].to_numpy(), table["observed"].to_numpy()
    distances = {
        "marginal_tv": calibration.total_variation(expected, observed),
        "marginal_wasserstein": calibration.wasserstein(_levels(test), expected, observed),
    }
    return [(name, float(value), np.nan, np.nan) for name, value in distances.items()]


def cell_masks(test: RatingLog, unseen: NDArray[np.bool_] | None) -> dict[str, NDArray[np.bool_]]:
    """Return the test cells of each group of rows, ``unseen`` (where there are any) and ``all``, each (n,).

    Raises
    ------
    DataError
        If ``unseen`` is not one boolean per test cell.
    """
    everything = np.ones(test.n_ratings, dtype=np.bool_)
    if unseen is None:
        return {"all": everything}
    mask = np.asarray(unseen)
    if mask.shape != everything.shape or mask.dtype != np.bool_:
        raise DataError(
            f"unseen must be one boolean per test cell, ({test.n_ratings},); found {mask.dtype} {mask.shape}"
        )
    return {"unseen": mask, "all": everything} if mask.any() else {"all": everything}


def check_levels(test: RatingLog, level_probabilities: ArrayLike) -> NDArray[np.float64]:
    """Return the level probabilities of a test log's cells, (n, R), each row summing to one.

    Raises
    ------
    DataError
        If they are not a distribution over the levels for every cell, or the log's scale has no levels.
    """
    probabilities = contributions.check_probabilities(level_probabilities)
    expected = (test.n_ratings, len(_levels(test)))
    if probabilities.shape != expected:
        raise DataError(
            f"level probabilities must have shape (cells, levels) = {expected}; found {probabilities.shape}"
        )
    return probabilities


def _levels(test: RatingLog) -> NDArray[np.float64]:
    levels = test.scale.levels
    if levels is None:
        raise DataError(f"level probabilities need a test log with rating levels; its scale is {test.scale.describe()}")
    return levels
