"""CPT-v: a mixture of users, and a chance to rate that depends on the level alone."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from scipy.special import expit, logit

from baselines.fitting import check_positive
from baselines.multinomial_mixture import Array, LevelCells, MixtureBaseline


@dataclass(frozen=True, eq=False)
class LevelSelection:
    r"""P(s_ij = 1 | x_ij = r) = mu_r, the same for all users and items, under a Beta(1 + smoothing) prior."""

    mu: Array  # (R,)
    n_items: int
    smoothing: float

    def probabilities(self) -> Array:
        """Return mu for every item, (P, R)."""
        return np.broadcast_to(self.mu, (self.n_items, len(self.mu)))

    def log_prior(self) -> float:
        """Return the log prior density of mu, up to a constant."""
        return float(self.smoothing * (np.log(self.mu) + np.log1p(-self.mu)).sum())

    def update(self, rated: Array, unrated: Array) -> Self:
        """Return the closed-form M-step: the rated share of each level."""
        yes, no = rated.sum(axis=0) + self.smoothing, unrated.sum(axis=0) + self.smoothing
        return replace(self, mu=yes / (yes + no))

    def coordinates(self) -> Array:
        """Return the log-odds, (R,)."""
        return np.asarray(logit(self.mu))

    def at(self, coordinates: Array) -> Self:
        """Return the selection with these log-odds."""
        return replace(self, mu=expit(coordinates))


class CptV(MixtureBaseline):
    r"""CPT-v: a mixture of users with a conditional probability table of being rated, by rating value.

    Marlin, Zemel, Roweis and Slaney, Collaborative filtering and the missing at random assumption, UAI 2007. A user
    belongs to cluster k with probability :math:`\pi_k`, would give item j level r with :math:`\theta_{jrk}`, and a
    rating of level r is in the log with :math:`\mu_r`. Fitted by EM with closed-form M-steps under Dirichlet and Beta
    priors; squared extrapolation of the steps is the one addition, and changes how soon EM gets there, not where it can
    stop. See `MixtureBaseline` for the prediction and the errors.

    Parameters
    ----------
    n_clusters, smoothing
        See `MixtureBaseline`.
    selection_smoothing
        Pseudo-count of rated and of unrated cells of each level: the prior of mu is Beta(1 + it, 1 + it).
    """

    def __init__(self, *, n_clusters: int = 5, smoothing: float = 1.0, selection_smoothing: float = 1.0) -> None:
        super().__init__(n_clusters=n_clusters, smoothing=smoothing)
        check_positive(selection_smoothing=selection_smoothing)
        self.selection_smoothing = selection_smoothing

    def _start_selection(self, cells: LevelCells) -> LevelSelection:
        rated, smoothing = cells.counts.sum(), self.selection_smoothing
        share = (rated + smoothing) / (cells.given.shape[0] * cells.n_items + 2.0 * smoothing)
        return LevelSelection(np.full(cells.n_levels, share), cells.n_items, smoothing)
