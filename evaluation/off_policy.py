r"""What the error over all cells would be, judged from held-out self-selected ratings alone.

A cell is among the held-out ratings with probability :math:`q = p h`: :math:`p` its propensity, :math:`h` the share of
the log that was held out. A held-out rating therefore stands for :math:`w = 1 / q` cells, and with T cells in the
log, c a cell's contribution to the metric (``contributions``) and :math:`\hat c` a prediction of it,

.. math::
    \mathrm{IPS} = \frac1T \sum_{held} w c, \qquad
    \mathrm{SNIPS} = \frac{\sum_{held} w c}{\sum_{held} w}, \qquad
    \mathrm{DR} = \frac1T \sum_{all} \hat c + \frac1T \sum_{held} w (c - \hat c)

(Schnabel et al., Recommendations as treatments, ICML 2016; Wang et al., Doubly robust joint learning for recommendation
on data missing not at random, ICML 2019). IPS and DR are unbiased where the propensities are right; DR also where the
predicted contributions are. A predictor fitted on the rest of the log is judged by what it would do on every cell if
that cell had not been trained on.

**Intervals.** Weights are heavy-tailed: a sample that misses the few ratings with much of the sum is both too low and
too sure of itself, and the percentiles of a bootstrap with it. The standard error is the jackknife's, leaving out one
user at a time; the quantile is Student's with :math:`2 U / (\kappa - 1)` degrees of freedom, :math:`\kappa` the
kurtosis over the U users left out, because so well is a variance known from U such values (Satterthwaite, Biometrics
Bulletin 2, 1946). Where contributions are never negative, those of IPS and SNIPS are on the log scale. Still, most
misses are truths above the upper end. Propensities are taken as known: no interval holds their errors.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student_t

from evaluation.contributions import check_probabilities, require_scored
from evaluation.intervals import Interval
from mnar_recsys.checks import as_finite, check_same_length
from mnar_recsys.data import RatingLog
from mnar_recsys.errors import ConfigError, DataError
from mnar_recsys.propensity.checks import as_propensities, at_least
from mnar_recsys.propensity.diagnostics import clip as clip_propensities
from mnar_recsys.propensity.diagnostics import effective_sample_size
from mnar_recsys.propensity.mask import sample_cells as cells_at_random
from mnar_recsys.rng import numpy_generator

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """An estimate of a mean over all cells, and how far its weights can be trusted."""

    interval: Interval
    """``n`` is the number of held-out ratings."""
    effective_size: float
    """(sum w)^2 / sum w^2: held-out ratings of equal weight that would be worth as much, 1..n."""
    share_clipped: float
    """Share of the held-out ratings whose propensity was raised to the clipping value."""
    largest_weight: float
    """The most cells that one rating stands for."""
    largest_share: float
    """The largest weight over the sum of all."""
    cells_represented: float
    """Sum of the weights over the number of cells: near 1 where propensities are right and unclipped."""


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Held-out self-selected ratings with their weights; build it with ``weigh``."""

    log: RatingLog
    weights: Floats
    """Cells that each rating stands for, (n,)."""
    share_clipped: float

    @property
    def n_cells(self) -> int:
        """Cells of the log, users times items."""
        return self.log.n_users * self.log.n_items

    def sums(self, values: Floats) -> Floats:
        """Return the sum of a value per held-out rating, (n,), over each user of the log, (N,)."""
        return np.bincount(self.log.rows, weights=values, minlength=self.log.n_users).astype(np.float64)


def weigh(held_out: RatingLog, propensity: ArrayLike, *, share: float, clip: float | None = None) -> HeldOut:
    """Return held-out ratings with the number of cells each stands for.

    Parameters
    ----------
    held_out
        Ratings drawn at random from the self-selected log (``split.mnar_valid``), n of them.
    propensity
        P(s = 1) of each, (n,): of being rated at all, held out or not (``PropensityModel.of_log``). A model fitted to
        what is left of the log gives 1 - share times that: divide first.
    share
        The share of the self-selected ratings that was held out, for example .1.
    clip
        Propensities below this are raised to it: less variance, but the cells they stand for count too little.
        Default: none is.

    Raises
    ------
    DataError
        If a propensity is not in (0, 1], there is not one for every rating, or fewer than two users have held-out
        ratings: an interval needs two.
    ConfigError
        If the share or the clipping value is not in (0, 1].
    """
    if not 0.0 < share <= 1.0:
        raise ConfigError(f"the share held out must be above 0 and at most 1; found {share}")
    p, share_clipped = as_propensities(propensity), 0.0
    check_same_length(ratings=held_out.ratings, propensities=p)
    if clip is not None:
        clipped = clip_propensities(p, clip)
        p, share_clipped = clipped.values, clipped.share
    if len(np.unique(held_out.rows)) < 2:
        raise DataError(
            f"off-policy estimates need held-out ratings of two users or more; found {held_out.n_ratings} ratings of "
            f"{len(np.unique(held_out.rows))}. Hold out more"
        )
    return HeldOut(held_out, 1.0 / (p * share), share_clipped)


def ips(held_out: HeldOut, contributions: ArrayLike, *, level: float = 0.95) -> Estimate:
    """Estimate the mean contribution over all cells by inverse propensities.

    Parameters
    ----------
    contributions
        Of each held-out rating, (n,), for example ``contributions.squared_error``.
    level
        Nominal coverage of the interval.

    Raises
    ------
    DataError
        If a contribution is not finite, or there is not one for every held-out rating.
    ConfigError
        If the level is not inside (0, 1).
    """
    c = _checked(held_out, "contributions", contributions)
    sums = held_out.sums(held_out.weights * c)
    total, n_users = sums.sum(), held_out.log.n_users
    without = (total - sums) * n_users / (n_users - 1)
    n_cells = held_out.n_cells
    return _estimate(held_out, total / n_cells, without / n_cells, level, log_scale=bool((c >= 0.0).all()))


def snips(held_out: HeldOut, contributions: ArrayLike, *, level: float = 0.95) -> Estimate:
    """Estimate the mean contribution over all cells by normalised inverse propensities.

    Never outside the range of the contributions, indifferent to a constant factor in the propensities, and biased by
    something of the order of 1 / effective size. Parameters and errors as ``ips``.
    """
    c = _checked(held_out, "contributions", contributions)
    sums, weights = held_out.sums(held_out.weights * c), held_out.sums(held_out.weights)
    without = (sums.sum() - sums) / (weights.sum() - weights)
    return _estimate(held_out, sums.sum() / weights.sum(), without, level, log_scale=bool((c >= 0.0).all()))


def doubly_robust(
    held_out: HeldOut,
    contributions: ArrayLike,
    predicted: ArrayLike,
    *,
    cell_users: NDArray[np.integer],
    cell_predicted: ArrayLike,
    level: float = 0.95,
) -> Estimate:
    """Estimate the mean contribution over all cells by predicted contributions, corrected where ratings are known.

    Parameters
    ----------
    contributions
        Of each held-out rating, (n,).
    predicted
        Predicted contribution of each held-out rating, (n,), for example ``expected_squared_error`` by a model of the
        ratings that was not fitted to them.
    cell_users
        User index of each cell of the direct part, (m,): every cell of the log, or ``sample_cells`` of them.
    cell_predicted
        Predicted contribution of these cells, (m,), by the same model. If they are a sample, what the choice of cells
        adds to the variance is in the interval.
    level
        Nominal coverage of the interval.

    Raises
    ------
    DataError
        As ``ips``, or if the cells' arrays are empty, differ in length, or come from a single user.
    """
    c, guess = _checked(held_out, "contributions", contributions), _checked(held_out, "predicted", predicted)
    rows, direct = np.asarray(cell_users), as_finite("cell_predicted", cell_predicted)
    check_same_length(cell_users=rows, cell_predicted=direct)
    n_users, n_cells = held_out.log.n_users, held_out.n_cells
    if len(np.unique(rows)) < 2 or rows.min() < 0 or rows.max() >= n_users:
        raise DataError(f"cells of the direct part must be of two users or more with index 0..{n_users - 1}")
    counts = np.bincount(rows, minlength=n_users).astype(np.float64)
    sums = np.bincount(rows, weights=direct, minlength=n_users).astype(np.float64)
    correction = held_out.sums(held_out.weights * (c - guess))
    value = sums.sum() / counts.sum() + correction.sum() / n_cells
    without = (sums.sum() - sums) / (counts.sum() - counts)
    without = without + (correction.sum() - correction) * n_users / (n_users - 1) / n_cells
    return _estimate(held_out, value, without, level, log_scale=False)


def sample_cells(log: RatingLog, n: int, *, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return user and item indices of n distinct cells drawn at random from all, each (n,); all if n is no less.

    Raises
    ------
    ConfigError
        If n is below 1.
    """
    cells = cells_at_random(log, at_least("cells to draw", n, 1), numpy_generator(seed, "cells"))
    rows, columns = np.divmod(cells, log.n_items)
    return rows, columns


def expected_squared_error(levels: Floats, probabilities: ArrayLike, prediction: ArrayLike) -> Floats:
    """Return sum_r P(r) (r - prediction)^2 per pair, (n,): a predicted contribution to the MSE.

    Parameters
    ----------
    levels
        Rating levels, (R,), in rating points.
    probabilities
        Of each level, (n, R), by the model that predicts contributions, which need not be the method that is judged.
    prediction
        Of the method that is judged, (n,), in rating points.

    Raises
    ------
    DataError
        If an array leaves a pair unscored, or does not fit the others.
    """
    table, gaps = _levels_and_gaps(levels, probabilities, prediction)
    return np.asarray((table * np.square(gaps)).sum(axis=1))


def expected_absolute_error(levels: Floats, probabilities: ArrayLike, prediction: ArrayLike) -> Floats:
    """Return sum_r P(r) abs(r - prediction) per pair, (n,): a predicted contribution to the MAE.

    Parameters and errors as ``expected_squared_error``.
    """
    table, gaps = _levels_and_gaps(levels, probabilities, prediction)
    return np.asarray((table * np.abs(gaps)).sum(axis=1))


def _levels_and_gaps(levels: Floats, probabilities: ArrayLike, prediction: ArrayLike) -> tuple[Floats, Floats]:
    table, mean = check_probabilities(probabilities), require_scored("predictions", prediction)
    check_same_length(probabilities=table[:, 0], predictions=mean)
    check_same_length(levels=levels, probabilities=table[0])
    return table, levels - mean[:, None]


def _checked(held_out: HeldOut, label: str, values: ArrayLike) -> Floats:
    array = as_finite(label, values)
    check_same_length(**{"ratings": held_out.weights, label: array})
    return array


def _estimate(held_out: HeldOut, value: float, without: Floats, level: float, *, log_scale: bool) -> Estimate:
    """Return the estimate, its interval by the jackknife.

    Parameters
    ----------
    value
        On all users.
    without
        With one user left out, (N,).
    log_scale
        Whether the interval is symmetric in log(value).
    """
    if not 0.0 < level < 1.0:
        raise ConfigError(f"the level of an interval must be between 0 and 1; found {level}")
    n_users = len(without)
    deviation = (n_users - 1) * (without.mean() - without)
    second, fourth = float(np.square(deviation).mean()), float((deviation**4).mean())
    half = 0.0
    if second > 0.0:
        # Kurtosis is above 1 unless all deviations are equally large, which leaves nothing to learn about their size.
        excess = max(fourth / second**2 - 1.0, 1e-12)
        quantile = student_t.ppf(0.5 + level / 2, max(2.0 * n_users / excess, 1.0))
        half = float(quantile * np.sqrt(second / (n_users - 1)))
    ends = value - half, value + half
    if log_scale and value > 0.0:
        ends = value * np.exp(-half / value), value * np.exp(half / value)
    weights = held_out.weights
    return Estimate(
        interval=Interval(float(value), float(ends[0]), float(ends[1]), level, len(weights)),
        effective_size=effective_sample_size(weights),
        share_clipped=held_out.share_clipped,
        largest_weight=float(weights.max()),
        largest_share=float(weights.max() / weights.sum()),
        cells_represented=float(weights.sum() / held_out.n_cells),
    )
