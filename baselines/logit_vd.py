"""Logit-vd: a mixture of users, and a chance to rate that depends on the level and on the item."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from scipy.special import expit, log_expit, logit

from baselines.fitting import check_positive
from baselines.multinomial_mixture import Array, LevelCells, MixtureBaseline

_SHORTEST_STEP = 1e-6
"""Where a Newton step is halved down to this and still does not gain, the parameters are at the maximum to rounding."""


@dataclass(frozen=True, eq=False)
class LogisticSelection:
    r"""P(s_ij = 1 | x_ij = r) = sigmoid(sigma_r + omega_j), with independent N(0, variance) priors."""

    sigma: Array  # (R,), log-odds
    omega: Array  # (P,), log-odds
    variance: float

    def probabilities(self) -> Array:
        """Return the probabilities, (P, R)."""
        return np.asarray(expit(self._log_odds()))

    def log_prior(self) -> float:
        """Return the log prior density of sigma and omega, up to a constant."""
        return float(-0.5 * np.square(self.coordinates()).sum() / self.variance)

    def value(self, rated: Array, unrated: Array) -> float:
        """Return what the M-step maximises, in nats: the log-likelihood of the counts, (P, R), and the log prior."""
        log_odds = self._log_odds()
        return float((rated * log_expit(log_odds) + unrated * log_expit(-log_odds)).sum() + self.log_prior())

    def gradient(self, rated: Array, unrated: Array) -> Array:
        """Return the gradient of ``value`` in the ``coordinates``, (R + P,)."""
        residual = rated - (rated + unrated) * self.probabilities()
        return np.concatenate([residual.sum(axis=0), residual.sum(axis=1)]) - self.coordinates() / self.variance

    def newton_step(self, rated: Array, unrated: Array) -> Array:
        """Return the Newton step towards the maximum of ``value`` in the ``coordinates``, (R + P,).

        The Hessian is diagonal in omega, so it is solved through its Schur complement in sigma: O(P R^2).
        """
        probabilities = self.probabilities()
        weight = (rated + unrated) * probabilities * (1.0 - probabilities)
        by_item = weight.sum(axis=1) + 1.0 / self.variance
        schur = np.diag(weight.sum(axis=0) + 1.0 / self.variance) - (weight / by_item[:, None]).T @ weight
        of_sigma, of_omega = np.split(self.gradient(rated, unrated), [len(self.sigma)])
        sigma = np.linalg.solve(schur, of_sigma - weight.T @ (of_omega / by_item))
        return np.concatenate([sigma, (of_omega - weight @ sigma) / by_item])

    def update(self, rated: Array, unrated: Array) -> Self:
        """Return one Newton step on, halved until ``value`` does not fall: a generalised M-step."""
        now, here, step = self.value(rated, unrated), self.coordinates(), self.newton_step(rated, unrated)
        length = 1.0
        while length > _SHORTEST_STEP:
            there = self.at(here + length * step)
            if there.value(rated, unrated) >= now:
                return there
            length *= 0.5
        return self

    def coordinates(self) -> Array:
        """Return sigma and omega, (R + P,)."""
        return np.concatenate([self.sigma, self.omega])

    def at(self, coordinates: Array) -> Self:
        """Return the selection with these sigma and omega."""
        sigma, omega = np.split(coordinates, [len(self.sigma)])
        return replace(self, sigma=sigma, omega=omega)

    def _log_odds(self) -> Array:
        return np.asarray(self.omega[:, None] + self.sigma)


class LogitVd(MixtureBaseline):
    r"""Logit-vd: a mixture of users with a logit model of being rated, by rating value and item.

    Marlin and Zemel, Collaborative prediction and ranking with non-random missing data, RecSys 2009. The mixture of
    `CptV` where a rating of level r is in the log with probability :math:`\text{sigmoid}(\sigma_r + \omega_j)`. Fitted
    by generalised EM: one Newton step for sigma and omega in each M-step, the rest in closed form. omega starts at the
    items' log-odds of being rated and sigma at 0. See `MixtureBaseline` for the prediction and the errors.

    Parameters
    ----------
    n_clusters, smoothing
        See `MixtureBaseline`.
    logit_variance
        Variance of the Gaussian priors of sigma and omega, in squared log-odds.
    """

    def __init__(self, *, n_clusters: int = 5, smoothing: float = 1.0, logit_variance: float = 10.0) -> None:
        super().__init__(n_clusters=n_clusters, smoothing=smoothing)
        check_positive(logit_variance=logit_variance)
        self.logit_variance = logit_variance

    def _start_selection(self, cells: LevelCells) -> LogisticSelection:
        share = (cells.counts.sum(axis=1) + 0.5) / (cells.given.shape[0] + 1.0)
        return LogisticSelection(np.zeros(cells.n_levels), np.asarray(logit(share)), self.logit_variance)
