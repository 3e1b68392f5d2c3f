"""Ordinal decoder: cumulative logit (proportional odds, McCullagh 1980) with learned cut points."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import logsigmoid, pad, softplus

from mnar_recsys.data import RatingScale
from mnar_recsys.model.decoders.base import Decoder, DrawnRatings, Grid, RatingDistribution
from mnar_recsys.model.decoders.level_math import gumbel, level_index, one_minus_pi
from mnar_recsys.model.decoders.levels import LevelRatings
from mnar_recsys.model.indexing import masked_sum, take

_LEAST_GAP = 1e-3
# A cut point that no score reaches.
_FAR = 1e4


class OrdinalRatings(RatingDistribution):
    """P(x <= level r | z) = sigmoid(cut_r - score); ``score`` (..., I), ``cuts`` (R - 1,), ``levels`` (R,)."""

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

    With u_r = 1 - pi_r, F_r = sigmoid(cut_r - score) and p_r = F_r - F_{r-1}, the derivative of sum_r p_r u_r by
    F_r is u_r - u_{r+1}.

    score (S, B, I), cuts (R - 1,), table (R, I), offset (S, B) or None, unrated (B, I) of 0 and 1 -> (S, B).
    """

    @staticmethod
    def forward(  # noqa: PLR0917
        ctx: Any, score: Tensor, cuts: Tensor, table: Tensor, offset: Tensor | None, unrated: Tensor
    ) -> Tensor:
        """Return the sums; keep the cells' gradients if the backward pass will want them."""
        free = one_minus_pi(table, offset)  # u: (R, I) or (S, B, R, I)
        below = torch.sigmoid(cuts[:, None] - score.unsqueeze(-2))  # F: (S, B, R - 1, I)
        # Sums of p u have no negative term; u_R + sum_r F_r (u_r - u_{r+1}) could round to 0 or below.
        p = torch.diff(pad(pad(below, (0, 0, 1, 0)), (0, 0, 0, 1), value=1.0), dim=-2).relu_()
        q = p.mul_(free)
        total = q.sum(-2).add_(torch.finfo(score.dtype).tiny)  # (S, B, I)
        value = masked_sum(torch.log(total), unrated)
        if any(ctx.needs_input_grad):
            share = (unrated / total).unsqueeze(-2)  # d value / d total
            by_table = q.mul_(share).mul_(free - 1)  # p du/dtable = -p u (1 - u)
            drop = torch.diff(free, dim=-2).neg_()  # u_r - u_{r+1}
            by_cut = drop * below.mul_(1 - below).mul_(share)  # (S, B, R - 1, I)
            ctx.save_for_backward(by_table, by_cut)
            ctx.has_offset = offset is not None
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None, None]:
        """Scale the cells' gradients by the users' and sum."""
        by_table, by_cut = ctx.saved_tensors
        S, B, R, I = by_table.shape  # noqa: E741
        grad_table = (grad.reshape(1, S * B) @ by_table.view(S * B, R * I)).view(R, I)
        grad_offset = grad * by_table.sum((-2, -1)) if ctx.has_offset else None
        grad_score = by_cut.sum(-2).mul_(-grad[..., None])
        grad_cuts = torch.einsum("sb,sbr->r", grad, by_cut.sum(-1))
        return grad_score, grad_cuts, grad_table, grad_offset, None
