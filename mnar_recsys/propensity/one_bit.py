"""Propensities from 1-bit matrix completion of the mask."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg
from scipy.special import expit, logit
from threadpoolctl import threadpool_limits

from mnar_recsys.data import Split
from mnar_recsys.errors import ConfigError, DataError, DivergedError
from mnar_recsys.propensity.base import PropensityModel
from mnar_recsys.propensity.checks import at_least, positive
from mnar_recsys.propensity.mask import sample_places, share_rated
from mnar_recsys.rng import numpy_generator

BOUNDS = (0.5, 1.0, 2.0, 4.0)
"""Candidates for the bound on the nuclear norm: 0.5 leaves little but the intercept, 4 fits much of the noise."""
_HIDDEN = 0.1
_TRIAL_TOLERANCE = 1e-3  # log-odds; enough to rank the candidates
_MAX_STEPS = 2000
_NEWTON_STEPS = 3
_ADAPT_EVERY, _ADAPT_STEPS = 10, 200


class OneBitCompletion(PropensityModel):
    r"""The log-odds of the mask as a matrix of small nuclear norm.

    .. math:: \max_{c, L} \sum_{ui} \log p(s_{ui} | c + L_{ui}) \quad\text{subject to}\quad
              \|L\|_* \le \tau \sqrt{N P}, \; |c + L_{ui}| \le \gamma

    with p logistic (Davenport et al., 1-bit matrix completion, Information and Inference 3, 2014; for masks: Ma and
    Chen, Missing not at random in matrix completion, NeurIPS 2019, section 3). The papers have no intercept c. Without
    one the bound also shrinks the mean of the log-odds, which a sparse mask puts far from 0, so that propensities are
    too high; with it their mean is the share rated, wherever gamma does not bind. ``intercept=False`` is the papers'
    problem. It is solved to a tolerance by ADMM (Boyd et al., Foundations and Trends in Machine Learning 3, 2011): a
    step moves every cell towards its likelihood and a target, then projects exactly onto the ball. Rated cells are in
    the fit that gives their propensities, which a loose bound therefore lets come out too high.

    The method is dense in users x items, in memory and time: it is for logs of the size of Coat.

    Parameters
    ----------
    nuclear_bound
        tau, above 0: about the root mean square of L, times the root of its rank. Where it is not given, the
        candidates ``BOUNDS`` (raised, without an intercept, by the absolute log-odds of the share rated) are compared
        on a random tenth of the cells, hidden from the fits, and the smallest is taken whose likelihood is within one
        standard error of the highest (Breiman et al., Classification and regression trees, 1984).
    max_log_odds
        gamma, above 0; by default 3 more than the absolute log-odds of the share rated (the authors use 3 for
        everything, which the mean of a sparse mask already exceeds).
    intercept
        Whether there is c.
    tolerance
        Largest root mean square, in log-odds, of a step and of what is left of the constraints at the end.
    max_cells
        Largest number of users x items that is not refused.

    Raises
    ------
    ConfigError
        If a setting is out of range; in ``fit``, if there are more than ``max_cells`` cells.
    """

    log_odds: NDArray[np.float32]
    """c + L, (N, P)."""

    def __init__(
        self,
        *,
        nuclear_bound: float | None = None,
        max_log_odds: float | None = None,
        intercept: bool = True,
        tolerance: float = 1e-4,
        max_cells: int = 1_000_000,
    ) -> None:
        self.nuclear_bound = None if nuclear_bound is None else positive("nuclear_bound", nuclear_bound)
        self.max_log_odds = None if max_log_odds is None else positive("max_log_odds", max_log_odds)
        self.intercept = intercept
        self.tolerance = positive("tolerance", tolerance)
        self.max_cells = at_least("max_cells", max_cells, 1)
        self.chosen: float | None = None
        """The bound on the nuclear norm used in the last fit."""

    def _fit(self, split: Split, seed: int) -> None:
        log = split.mnar_train
        cells = log.n_users * log.n_items
        if cells > self.max_cells:
            raise ConfigError(
                f"one_bit works on all users x items at once, at most {self.max_cells:,} cells; found {cells:,}. "
                "Choose als or poisson, or raise max_cells"
            )
        share = share_rated(log)
        if share == 1.0:
            raise DataError(f"one_bit needs unrated cells; all {cells} are rated. Use uniform")
        limit = self.max_log_odds or abs(float(logit(share))) + 3.0
        mask = np.zeros((log.n_users, log.n_items))
        mask[log.rows, log.items] = 1.0
        # Matrices this small are decomposed faster by one thread than by several that wait for each other.
        with threadpool_limits(1, "blas"):
            self.chosen = self.nuclear_bound or self._choose(mask, limit, seed)
            found = self._solve(mask, np.ones_like(mask), limit, self.chosen, self.tolerance)
        self.log_odds = found.astype(np.float32)

    def _propensity(self, rows: NDArray[np.integer], columns: NDArray[np.integer]) -> NDArray[np.float64]:
        return np.asarray(expit(self.log_odds[rows, columns].astype(np.float64)))

    def _choose(self, mask: NDArray[np.float64], limit: float, seed: int) -> float:
        raised = 0.0 if self.intercept else abs(float(logit(mask.mean())))
        hidden = np.zeros(mask.shape, dtype=np.bool_)
        n_hidden = max(1, round(_HIDDEN * mask.size))
        hidden.flat[sample_places(mask.size, n_hidden, numpy_generator(seed, "one_bit", "hidden"))] = True
        seen = np.where(hidden, 0.0, 1.0)
        bounds, losses = [bound + raised for bound in BOUNDS], []
        for bound in bounds:
            found = self._solve(mask, seen, limit, bound, max(self.tolerance, _TRIAL_TOLERANCE))[hidden]
            losses.append(np.logaddexp(0.0, found) - mask[hidden] * found)
        best = min(losses, key=np.mean)
        errors = [(loss - best).std() / np.sqrt(len(best)) for loss in losses]
        return next(
            bound for bound, loss, error in zip(bounds, losses, errors, strict=True) if (loss - best).mean() <= error
        )

    def _solve(
        self, mask: NDArray[np.float64], seen: NDArray[np.float64], limit: float, bound: float, tolerance: float
    ) -> NDArray[np.float64]:
        ball = Ball(bound * float(np.sqrt(mask.size)), limit)
        return complete(mask, seen, ball, intercept=self.intercept, tolerance=tolerance)


@dataclass(frozen=True)
class Ball:
    """What the log-odds are constrained to."""

    radius: float
    """Bound on the nuclear norm of the log-odds less the intercept."""
    limit: float
    """Bound on the absolute log-odds of a cell."""


def complete(
    mask: NDArray[np.float64],
    seen: NDArray[np.float64],
    ball: Ball,
    *,
    intercept: bool,
    tolerance: float,
) -> NDArray[np.float64]:
    """Return the log-odds, (N, P), that maximise the likelihood of the seen cells; see ``OneBitCompletion``.

    Parameters
    ----------
    mask
        1 where rated, else 0, (N, P).
    seen
        1 where the cell counts, else 0, (N, P).
    tolerance
        Of the root mean squares of a step and of the violated constraints, in log-odds.

    Raises
    ------
    DivergedError
        If the steps do not settle.
    """
    # Half a rating more and half a cell more on either side: all that is seen may be unrated.
    centre = float(logit(((mask * seen).sum() + 0.5) / (seen.sum() + 1.0))) if intercept else 0.0
    found = np.full(mask.shape, np.clip(centre, -ball.limit, ball.limit))
    low, dual, stiffness = np.zeros(mask.shape), np.zeros(mask.shape), 0.1
    for step in range(_MAX_STEPS):
        target = centre + low - dual
        for _ in range(_NEWTON_STEPS):
            found = _newton_step(found, mask, seen, target, stiffness).clip(-ball.limit, ball.limit)
        wanted = found + dual
        if intercept:
            centre = float((wanted - low).mean())
        before, low = low, project_nuclear(wanted - centre, ball.radius)
        dual = wanted - centre - low
        gap, move = _root_mean_square(found - centre - low), _root_mean_square(low - before)
        if max(gap, move) <= tolerance:
            return found
        # Boyd et al., section 3.4.1: neither the constraint nor the steps should lag far behind the other.
        if step < _ADAPT_STEPS and step % _ADAPT_EVERY == _ADAPT_EVERY - 1:
            factor = 2.0 if gap > 10 * stiffness * move else 0.5 if stiffness * move > 10 * gap else 1.0
            stiffness, dual = stiffness * factor, dual / factor
    raise DivergedError(f"one_bit did not settle in {_MAX_STEPS} steps; raise tolerance")


def _newton_step(
    x: NDArray[np.float64],
    mask: NDArray[np.float64],
    seen: NDArray[np.float64],
    target: NDArray[np.float64],
    stiffness: float,
) -> NDArray[np.float64]:
    """Return x after a step towards the least -log p(mask | x) + stiffness (x - target)^2 / 2, cell by cell."""
    p = expit(x)
    slope = seen * (p - mask) + stiffness * (x - target)
    return np.asarray(x - slope / (seen * p * (1.0 - p) + stiffness))


def project_nuclear(matrix: NDArray[np.float64], radius: float) -> NDArray[np.float64]:
    """Return the matrix nearest to ``matrix`` whose singular values sum to ``radius`` at most."""
    if matrix.shape[0] < matrix.shape[1]:
        return project_nuclear(matrix.T, radius).T
    # The eigenvectors of the smaller Gram matrix cost a third of a singular value decomposition.
    squares, vectors = linalg.eigh(matrix.T @ matrix, check_finite=False)
    values = np.sqrt(np.maximum(squares[::-1], 0.0))
    if values.sum() <= radius:
        return matrix
    # Onto a simplex: all values are lowered by one amount, those below it vanish.
    lowered = (np.cumsum(values) - radius) / np.arange(1, len(values) + 1)
    kept = int(np.flatnonzero(values > lowered)[-1]) + 1
    right = vectors[:, ::-1][:, :kept]
    return np.asarray((matrix @ right) * (1.0 - lowered[kept - 1] / values[:kept]) @ right.T)


def _root_mean_square(matrix: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.square(matrix).mean()))
