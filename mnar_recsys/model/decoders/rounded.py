"""A rating with a density, rounded to the nearest level: how a density is scored beside decoders on levels."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from mnar_recsys.model.decoders.base import DrawnRatings, Grid, RatingDistribution
from mnar_recsys.model.decoders.level_math import level_index
from mnar_recsys.model.decoders.levels import LevelRatings
from mnar_recsys.model.indexing import take


class RoundedRatings(RatingDistribution):
    """P(x = level r | z) = F((e_r - mean) / sd) - F((e_{r-1} - mean) / sd), e_r half-way to the next level.

    The ends are open. ``mean`` (..., I), ``sd`` broadcastable to it, ``levels`` (R,), in rating points. F is ``cdf``,
    or the standard normal's.
    """

    has_levels = True

    def __init__(self, mean: Tensor, sd: Tensor, levels: Tensor, cdf: Callable[[Tensor], Tensor] | None = None) -> None:
        self._mean = mean
        self._sd = sd
        self.levels = levels
        self._cdf = cdf

    @property
    def support(self) -> Tensor:
        """The levels: (R, 1), in rating points."""
        return self.levels[:, None]

    @property
    def support_weights(self) -> Tensor:
        """Probability of each level: (..., R, I)."""
        standard = (self._edges[:, None] - self._mean.unsqueeze(-2)) / self._sd  # (..., R - 1, I)
        below = 0.5 * (1 + torch.erf(standard / math.sqrt(2))) if self._cdf is None else self._cdf(standard)
        ends = below[..., :1, :]
        return torch.diff(below, dim=-2, prepend=torch.zeros_like(ends), append=torch.ones_like(ends))

    def log_prob(self, ratings: Tensor) -> Tensor:
        """Log probability of ratings (..., I) that stand on levels."""
        if self._cdf is not None:  # of heavy tails, in which nothing cancels
            return self._log_at(ratings)
        index = level_index(ratings, self.levels)
        end = torch.full_like(self.levels[:1], torch.inf)
        a, b = (
            (take(edges, index.flatten()).view(index.shape) - self._mean) / self._sd
            for edges in (torch.cat([-end, self._edges]), torch.cat([self._edges, end]))
        )
        # log(Phi(b) - Phi(a)), taken in the left tail, where neither is close to 1: no cancellation far out.
        mirrored = a + b > 0
        a, b = torch.where(mirrored, -b, a), torch.where(mirrored, -a, b)
        below: Tensor = torch.special.log_ndtr(a)
        above: Tensor = torch.special.log_ndtr(b)
        return above + torch.log(-torch.expm1(below - above))

    def mass(self, grid: Grid) -> Tensor:  # noqa: ARG002
        """Return the probability of each level: (..., R, I)."""
        return self.support_weights

    def draw(self, noise: Tensor) -> DrawnRatings:
        """Gumbel-softmax draw at temperature 1."""
        tiny = torch.finfo(self._mean.dtype).tiny
        return LevelRatings(torch.log(self.support_weights + tiny), self.levels, 1.0).draw(noise)

    def _log_at(self, ratings: Tensor) -> Tensor:
        weights = self.support_weights
        index = level_index(ratings, self.levels).expand(self._mean.shape).unsqueeze(-2)
        return torch.log(weights.gather(-2, index).squeeze(-2) + torch.finfo(weights.dtype).tiny)

    @property
    def _edges(self) -> Tensor:
        return (self.levels[1:] + self.levels[:-1]) / 2
