"""Ordinal decoder: cumulative logit (proportional odds, McCullagh 1980) with learned cut points."""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import logsigmoid, pad, softplus

from mnar_recsys.data import RatingScale
from mnar_recsys.model.compiled import fused
from mnar_recsys.model.decoders.base import Decoder, DrawnRatings, Grid, RatingDistribution
from mnar_recsys.model.decoders.level_math import (
    LARGEST_LOG_ODDS,
    gumbel,
    level_index,
    offset_gradient,
    one_minus_pi_by_level,
)
from mnar_recsys.model.decoders.levels import LevelRatings
from mnar_recsys.model.indexing import masked_sum, take

_LEAST_GAP = 1e-3
# A cut point that no score reaches.
_FAR = 1e4


class OrdinalRatings(RatingDistribution):
    """P(x <= level r | z) = sigmoid(cut_r - score); ``score`` (..., I), ``cuts`` (R - 1,), ``levels`` (R,)."""

    has_levels = True

    def __init__(self, score: Tensor, cuts: Tensor, levels: Tensor, temperature: float) -> None:
        self.score = score
        self.cuts = cuts
        self.levels = levels
        self._temperature = temperature

    @property
    def support(self) -> Tensor:
        """The levels: (R, 1), in rating points."""
        return self.levels[:, None]

    @property
    def support_weights(self) -> Tensor:
        """Probability of each level: (..., R, I)."""
        below = torch.sigmoid(self.cuts[:, None] - self.score.unsqueeze(-2))  # (..., R - 1, I)
        return torch.diff(pad(pad(below, (0, 0, 1, 0)), (0, 0, 0, 1), value=1.0), dim=-2)

    def log_prob(self, ratings: Tensor) -> Tensor:
        """Log probability of ratings (..., I) that stand on levels.

        log(sigmoid(b) - sigmoid(a)) = log sigmoid(b) + log sigmoid(-a) + log(1 - e^(a - b)): no cancellation far out.
        """
        index = level_index(ratings, self.levels)
        ends = torch.full_like(self.cuts[:1], _FAR)
        upper = _at(torch.cat([self.cuts, ends]), index) - self.score
        lower = _at(torch.cat([-ends, self.cuts]), index) - self.score
        gaps = _at(torch.cat([ends, torch.diff(self.cuts), ends]), index)
        return logsigmoid(upper) + logsigmoid(-lower) + torch.log(-torch.expm1(-gaps))

    def sum_log_unrated(self, logit: Tensor, offset: Tensor | None, unrated: Tensor) -> Tensor:
        """Value and gradient in one pass: see ``SumLogUnratedOrdinal``."""
        summed = SumLogUnratedOrdinal.apply(self.score, self.cuts, logit, offset, unrated)  # type: ignore[no-untyped-call]
        assert isinstance(summed, Tensor)  # noqa: S101
        return summed

    def mass(self, grid: Grid) -> Tensor:  # noqa: ARG002
        """Return the probability of each level: (..., R, I)."""
        return self.support_weights

    def masses(self, grid: Grid) -> list[Tensor]:  # noqa: ARG002
        """Return the probability of each level: R times (..., I)."""
        below = [torch.zeros_like(self.score), *_below(self.score, self.cuts), torch.ones_like(self.score)]
        return [upper - lower for lower, upper in pairwise(below)]

    def draw(self, noise: Tensor) -> DrawnRatings:
        """Gumbel-softmax draw at the decoder's temperature."""
        tiny = torch.finfo(self.score.dtype).tiny
        return LevelRatings(torch.log(self.support_weights + tiny), self.levels, self._temperature).draw(noise)


class OrdinalDecoder(Decoder):
    """P(x_ij <= level r | z) = sigmoid(cut_r - w_j . z - c_j), cut points shared by the items.

    One weight vector an item, where the categorical decoder has one a level: far less to learn from few ratings.

    Parameters
    ----------
    item_scores : Tensor
        (P,) starting scores of the items, in log-odds.
    level_shares : Tensor
        (R,) starting probabilities of the levels at score 0.
    temperature : float
        Of the Gumbel-softmax draws of the sampled estimator.
    """

    def __init__(
        self, item_scores: Tensor, level_shares: Tensor, scale: RatingScale, *, latent_size: int, temperature: float
    ) -> None:
        super().__init__(item_scores[None, :], latent_size)
        self.temperature = temperature
        self.levels: Tensor
        self.register_buffer("levels", torch.tensor(scale.levels, dtype=torch.float32), persistent=False)
        cuts = torch.logit(torch.cumsum(level_shares, 0)[:-1].clamp(1e-4, 1 - 1e-4))
        gaps = torch.diff(cuts).clamp_min(2 * _LEAST_GAP) - _LEAST_GAP
        self.first_cut = nn.Parameter(cuts[:1].clone())
        self.raw_gaps = nn.Parameter(torch.log(torch.expm1(gaps)))

    def cuts(self) -> Tensor:
        """Return the cut points (R - 1,), rising."""
        gaps = softplus(self.raw_gaps) + _LEAST_GAP
        return torch.cat([self.first_cut, self.first_cut + torch.cumsum(gaps, 0)])

    def log_density(self) -> Tensor:
        """Log density of first cut and raw gaps that makes the shares of the levels at score 0 uniform a priori.

        The shares are differences of sigmoid(cut_r), so the density of the cuts is the product of the sigmoid's
        derivatives (the induced Dirichlet prior; Betancourt 2019); the gaps' softplus adds its own.
        """
        cuts = self.cuts()
        return (logsigmoid(cuts) + logsigmoid(-cuts)).sum() + logsigmoid(self.raw_gaps).sum()

    def distribution(self, natural: Tensor, items: slice | Tensor) -> OrdinalRatings:  # noqa: ARG002
        """Return the levels' distribution of each cell from scores (..., 1, I)."""
        return OrdinalRatings(natural.squeeze(-2), self.cuts(), self.levels, self.temperature)

    def grid(self) -> Grid:
        """Return the levels themselves."""
        return Grid(self.levels, self.levels, self.levels)

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Return standard Gumbel noise (S, B, R, I)."""
        return gumbel((*shape[:-1], len(self.levels), shape[-1]), generator)


def _at(values: Tensor, index: Tensor) -> Tensor:
    return take(values, index.flatten()).view(index.shape)


class SumLogUnratedOrdinal(torch.autograd.Function):
    """``SumLogUnrated`` for cumulative logits.

    With u_r = 1 - pi_r, F_r = sigmoid(cut_r - score) and p_r = F_r - F_{r-1}, the derivative of sum_r p_r u_r by F_r is
    u_r - u_{r+1}. Worked level by level, so that temporaries are (S, B, I) and stay in cache; the backward pass
    computes them again.

    score (S, B, I), cuts (R - 1,), table (R, I), offset (S, B), (S, B, I) or None, unrated (B, I) of 0 and 1 -> (S, B).
    """

    @staticmethod
    def forward(  # noqa: PLR0917
        ctx: Any, score: Tensor, cuts: Tensor, table: Tensor, offset: Tensor | None, unrated: Tensor
    ) -> Tensor:
        """Return the sums."""
        ctx.save_for_backward(score, cuts, table, offset, unrated)
        return _sums(score, cuts, table, offset, unrated)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None, None]:
        """Return the gradients; of a cell, -p_r u_r (1 - u_r) / total for the table and offset."""
        score, cuts, table, offset, unrated = ctx.saved_tensors
        by_score, by_cuts, by_table, by_offset = _gradients(score, cuts, table, offset, unrated, grad)
        axes = 0 if offset is None else offset.dim()
        return by_score, by_cuts, by_table, offset_gradient(by_offset, axes), None


@fused
def _sums(score: Tensor, cuts: Tensor, table: Tensor, offset: Tensor | None, unrated: Tensor) -> Tensor:
    total = _total(score, _below(score, cuts), one_minus_pi_by_level(table, offset))
    return masked_sum(total.log_(), unrated)


@fused
def _gradients(  # noqa: PLR0917
    score: Tensor, cuts: Tensor, table: Tensor, offset: Tensor | None, unrated: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of score (S, B, I), cuts (R - 1,), table (R, I) and each cell's offset (S, B, I)."""
    below, free = _below(score, cuts), one_minus_pi_by_level(table, offset)
    share = (grad[..., None] * unrated).div_(_total(score, below, free))  # the gradient of the totals
    by_score, by_offset = torch.zeros_like(share), torch.zeros_like(share)
    by_cuts, by_table = [], []
    lower: Tensor | float = 0.0  # F_{r - 1} share
    for r, u in enumerate(free):
        upper = below[r] * share if r < len(below) else share
        p = upper - lower
        level = torch.addcmul(p.neg(), p, u).mul_(u)  # p (u - 1) u share
        by_table.append(level.sum((0, 1)))
        by_offset += level
        if r < len(below):
            slope = torch.addcmul(upper, upper, below[r], value=-1).mul_(u - free[r + 1])
            by_score -= slope
            by_cuts.append(slope.sum((0, 1)).sum())
        lower = upper
    return by_score, torch.stack(by_cuts), torch.stack(by_table), by_offset


def _below(score: Tensor, cuts: Tensor) -> list[Tensor]:
    """Return F of each level but the last, (S, B, I) each, as 1 / (1 + e^score e^-cut): one exponential a cell."""
    odds = torch.exp(score.clamp(-LARGEST_LOG_ODDS, LARGEST_LOG_ODDS))
    factors = torch.exp(-cuts.clamp(-LARGEST_LOG_ODDS, LARGEST_LOG_ODDS)).unbind()
    return [torch.mul(odds, factor).add_(1).reciprocal_() for factor in factors]


def _total(score: Tensor, below: list[Tensor], free: list[Tensor]) -> Tensor:
    """Return sum_r p_r u_r of each cell, (S, B, I)."""
    total = torch.full_like(score, torch.finfo(score.dtype).tiny)
    lower: Tensor | float = 0.0
    for upper, u in zip([*below, torch.ones_like(score)], free, strict=True):
        # Sums of p u have no negative term; u_R + sum_r F_r (u_r - u_{r+1}) could round to 0 or below.
        total.addcmul_((upper - lower).relu_(), u)
        lower = upper
    return total
