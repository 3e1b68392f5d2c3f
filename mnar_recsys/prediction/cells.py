"""What the posterior says of a cell: the cell's own missingness counts (DESIGN: "Imputation").

For an unrated cell p(x | z, s = 0) is proportional to p(x|z) (1 - pi(x)); for a rated one, whose stored rating is
never returned, to p(x|z) pi(x); for a person or item outside the log, or a cell that was not on offer, it is p(x|z).
Eq. 18 of the paper leaves the factor out, which is harmless where few cells are rated and wrong where many are.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import Enum
from functools import cached_property

import torch
from torch import Tensor

from mnar_recsys.model.decoders import Grid, RatingDistribution
from mnar_recsys.model.missing import MissingModel
from mnar_recsys.prediction.mixture import LEAST_TILT, Mixture, mix

UNRATED, RATED, UNTILTED = 0, 1, 2


class Estimand(Enum):
    """Which conditional expectation a prediction is."""

    CONDITIONAL = "conditional"
    """E[x | x_obs, s], the cell's own missingness included"""
    PAPER = "paper"
    """eq. 18: sum_k alpha_k E[x|z_k], with weights that contain drawn missing ratings"""


@dataclass(frozen=True)
class Moments:
    """Of each cell (..., I), in rating points (``propensity`` a probability)."""

    mean: Tensor
    sd: Tensor
    """of a rating"""
    mean_se: Tensor
    """of its expectation: how far E[x|z] varies over the posterior of z, and of the items' weights if they have one"""
    propensity: Tensor
    """probability that the person rates the item by choice"""

    def mixture(self, dim: int = -1) -> "Moments":
        """Return the moments of the equal mixture along an axis, which stays with length 1."""
        mean = self.mean.mean(dim, keepdim=True)
        between = (self.mean - mean).square()
        return Moments(
            mean=mean,
            sd=(self.sd.square() + between).mean(dim, keepdim=True).sqrt(),
            mean_se=(self.mean_se.square() + between).mean(dim, keepdim=True).sqrt(),
            propensity=self.propensity.mean(dim, keepdim=True),
        )

    @classmethod
    def mixed(cls, parts: "Sequence[Moments]") -> "Moments":
        """Return the moments of an equal mixture of so many posteriors of the same cells."""
        if len(parts) == 1:
            return parts[0]
        stacked = cls(*(torch.stack([getattr(part, field.name) for part in parts]) for field in fields(cls)))
        mixture = stacked.mixture(0)
        return cls(*(getattr(mixture, field.name).squeeze(0) for field in fields(cls)))


class CellPosterior:
    """Mixture over draws of the conditional distributions of cells (S, ..., I).

    Parameters
    ----------
    cells : RatingDistribution
        p(x|z) of each draw and cell.
    grid : Grid
        The decoder's.
    missing : MissingModel or None
        For the items in ``items``; None where ``offset`` says all that is to be said of the log-odds.
    items : slice or Tensor
        The items of the last axis.
    offset : Tensor or None
        Shift of the log-odds of rating, broadcastable to (S, ..., I).
    share : Tensor
        Weights of the draws, broadcastable to (S, ..., I), summing to 1 over S.
    status : Tensor
        (..., I) UNRATED, RATED or UNTILTED.
    """

    def __init__(
        self,
        cells: RatingDistribution,
        grid: Grid,
        missing: MissingModel | None,
        items: slice | Tensor,
        *,
        offset: Tensor | None,
        share: Tensor,
        status: Tensor,
    ) -> None:
        self.cells = cells
        self.grid = grid
        self.missing = missing
        self.items = items
        self.offset = offset
        self.share = share
        self.status = status

    def moments(self) -> Moments:
        """Mean, standard deviations and propensity of each cell: (..., I)."""
        if self.cells.has_levels:  # the grid is all there is
            mixture, ratings = self._mixture, self.grid.centre[:, None]
            mean = (mixture.masses * ratings).sum(-2)
            variance = (mixture.masses * (ratings - mean.unsqueeze(-2)).square()).sum(-2)
            return Moments(mean, variance.sqrt(), mixture.mean_se, mixture.propensity)
        support = self.cells.support
        weights = self.cells.support_weights
        rated = self._rated(support)
        tilted = weights * self._tilt(rated)
        tilted = tilted / tilted.sum(-2, keepdim=True)  # (S, ..., Q, I)
        mean_given_z = (tilted * support).sum(-2)
        square_given_z = (tilted * support.square()).sum(-2)
        mean = (self.share * mean_given_z).sum(0)
        variance = (self.share * square_given_z).sum(0) - mean.square()
        variance_of_mean = (self.share * (mean_given_z - mean).square()).sum(0)
        propensity = (self.share * (weights * rated).sum(-2)).sum(0)
        return Moments(mean, variance.clamp_min(0).sqrt(), variance_of_mean.sqrt(), propensity)

    def masses(self) -> Tensor:
        """Probability of each bin of the decoder's grid: (..., G, I)."""
        return self._mixture.masses

    @cached_property
    def _mixture(self) -> Mixture:
        logit = self._logit(self.grid.centre[:, None])
        keeps = torch.stack([self.status == UNTILTED, self.status == UNRATED, self.status == RATED]).to(logit.dtype)
        return mix(self.cells, self.grid, logit, self.offset, self.share, keeps)

    def _logit(self, ratings: Tensor) -> Tensor:
        """Log-odds of rating the cell, but for the offset, given ratings broadcastable to (S, ..., Q, I)."""
        return torch.zeros_like(ratings) if self.missing is None else self.missing.logit(ratings, self.items)

    def _rated(self, ratings: Tensor) -> Tensor:
        logit = self._logit(ratings)
        return torch.sigmoid(logit if self.offset is None else logit + self.offset.unsqueeze(-2))

    def _tilt(self, rated: Tensor) -> Tensor:
        """Return the factor of p(s|x), by the status of the cell, from the probability of rating it."""
        status = self.status.unsqueeze(-2)
        tilt = torch.where(status == RATED, rated, 1 - rated)
        return torch.where(status == UNTILTED, 1.0, tilt.clamp_min(LEAST_TILT))


def quantiles(masses: Tensor, grid: Grid, probabilities: Tensor) -> Tensor:
    """Quantiles of binned distributions: masses (..., G, I), probabilities (q,) -> (q, ..., I), in rating points.

    On levels, the lowest level with at least that much probability at or below it. In a bin of some width, linear.
    """
    masses = masses.movedim(-2, -1)  # (..., I, G)
    below = masses.cumsum(-1)
    wanted = probabilities.view(-1, *[1] * (below.ndim - 1)).expand(-1, *below.shape[:-1])  # (q, ..., I)
    # A rounding error must not push a quantile to the next level.
    reached = below.unsqueeze(0) >= wanted.unsqueeze(-1) - 1e-6
    index = torch.where(reached.any(-1), reached.int().argmax(-1), masses.shape[-1] - 1)  # (q, ..., I)
    mass = masses.expand(len(probabilities), *masses.shape).gather(-1, index.unsqueeze(-1)).squeeze(-1)
    total = below.expand(len(probabilities), *below.shape).gather(-1, index.unsqueeze(-1)).squeeze(-1)
    inside = ((wanted - (total - mass)) / mass.clamp_min(1e-12)).clamp(0, 1)
    return grid.lower[index] + inside * (grid.upper - grid.lower)[index]


def level_masses(masses: Tensor, grid: Grid, levels: Tensor) -> Tensor:
    """Sum bins to levels, each bin to the nearest, open ends: (..., G, I) -> (..., R, I)."""
    middle = (levels[:-1] + levels[1:]) / 2
    owner = torch.bucketize(grid.centre.contiguous(), middle)  # (G,)
    total = masses.new_zeros((*masses.shape[:-2], len(levels), masses.shape[-1]))
    return total.index_add(-2, owner, masses)
