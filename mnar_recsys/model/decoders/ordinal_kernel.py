"""The missing-entry term of cumulative logits: value, gradient, and second derivatives, each in one pass."""

from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from mnar_recsys.model.compiled import fused
from mnar_recsys.model.decoders.known_gradient import with_gradient
from mnar_recsys.model.decoders.level_math import odds, one_minus_pi_by_level, part_of, part_of_offset
from mnar_recsys.model.indexing import masked_sum


def sum_log_unrated_ordinal(
    score: Tensor, cuts: Tensor, table: Tensor, offset: Tensor | None, unrated: Tensor
) -> Tensor:
    """``sum_log_unrated_levels`` for cumulative logits.

    With u_r = 1 - pi_r, F_r = sigmoid(cut_r - score) and p_r = F_r - F_{r-1}, the derivative of sum_r p_r u_r by F_r is
    u_r - u_{r+1}, by table and offset -p_r u_r (1 - u_r). Worked level by level, so that temporaries are (S, B, I) and
    stay in cache.

    score (S, B, I), cuts (R - 1,), table (R, 1) or (R, I), offset (S, B), (S, B, I), (1, 1, I) or None, unrated (B, I)
    of 0 and 1 -> (S, B).
    """
    is_differentiable = torch.is_grad_enabled()
    with torch.no_grad():
        arguments = score, odds(-cuts), odds(table), offset, unrated
        if not is_differentiable:
            return _sums(*arguments)
        sums, by_score, by_cuts, by_table, by_offset = _with_gradients(*arguments)
    return with_gradient(sums, (score, by_score), (cuts, by_cuts), (table, by_table), (offset, by_offset))


@partial(fused, one_loop=True)
def _sums(score: Tensor, cut_odds: Tensor, table_odds: Tensor, offset: Tensor | None, unrated: Tensor) -> Tensor:
    total = _total(score, _below(score, cut_odds), one_minus_pi_by_level(table_odds, offset))
    return masked_sum(total.log_(), unrated)


@partial(fused, one_loop=True)
def _with_gradients(
    score: Tensor, cut_odds: Tensor, table_odds: Tensor, offset: Tensor | None, unrated: Tensor
) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor], Tensor]:
    """Return the sums and their derivatives by score, cuts, table and offset: see ``with_gradient``."""
    below, free = _below(score, cut_odds), one_minus_pi_by_level(table_odds, offset)
    total = _total(score, below, free)
    share = unrated / total
    by_score, by_offset = torch.zeros_like(share), torch.zeros_like(share)
    by_cuts, by_table = [], []
    lower: Tensor | float = 0.0  # F_{r - 1} share
    for r, u in enumerate(free):
        upper = below[r] * share if r < len(below) else share
        p = upper - lower
        level = torch.addcmul(p.neg(), p, u).mul_(u)  # p (u - 1) u share
        by_table.append(part_of(level, table_odds))
        by_offset += level
        if r < len(below):
            slope = torch.addcmul(upper, upper, below[r], value=-1).mul_(u - free[r + 1])
            by_score -= slope
            by_cuts.append(slope.sum(-1))
        lower = upper
    return masked_sum(total.log_(), unrated), by_score, by_cuts, by_table, part_of_offset(by_offset, offset)


def below_by_level(score: Tensor, cuts: Tensor) -> list[Tensor]:
    """Return F of each level but the last, (S, B, I) each, as 1 / (1 + e^score e^-cut): one exponential a cell."""
    return _below(score, odds(-cuts))


def _below(score: Tensor, cut_odds: Tensor) -> list[Tensor]:
    by_cell = odds(score)
    return [torch.mul(by_cell, cut).add_(1).reciprocal_() for cut in cut_odds.unbind()]


def _total(score: Tensor, below: list[Tensor], free: list[Tensor]) -> Tensor:
    """Return sum_r p_r u_r of each cell, (S, B, I)."""
    total = torch.full_like(score, torch.finfo(score.dtype).tiny)
    lower: Tensor | float = 0.0
    for upper, u in zip([*below, torch.ones_like(score)], free, strict=True):
        # Sums of p u have no negative term; u_R + sum_r F_r (u_r - u_{r+1}) could round to 0 or below.
        total.addcmul_((upper - lower).relu_(), u)
        lower = upper
    return total


def expand_log_unrated(
    score: Tensor, cuts: Tensor, table: Tensor, offset: Tensor | None, unrated: Tensor
) -> tuple[Tensor, Tensor]:
    """Return first and second derivatives of each cell's term by score and offset: (L, B, I) and (L, L, B, I).

    Arguments as of ``sum_log_unrated_ordinal`` with S = 1, an offset of each cell or none; L is 2, without an offset 1.
    With T = sum_r p_r u_r, the derivatives of F_r by the score are -f and f (1 - 2 F), f = F (1 - F), those of u_r by
    the offset -u (1 - u) and u (1 - u) (1 - 2 u).
    """
    return _expand(score, odds(-cuts), odds(table), offset, unrated)


@partial(fused, one_loop=True)
def _expand(
    score: Tensor, cut_odds: Tensor, table_odds: Tensor, offset: Tensor | None, unrated: Tensor
) -> tuple[Tensor, Tensor]:
    below, free = _below(score, cut_odds), one_minus_pi_by_level(table_odds, offset)
    total = _total(score, below, free)
    slopes = [torch.addcmul(upper, upper, upper, value=-1) for upper in below]  # f: minus the derivative by the score
    by_score, by_score_twice = torch.zeros_like(score), torch.zeros_like(score)
    for upper, slope, (u, above) in zip(below, slopes, pairwise(free), strict=True):
        step = slope * (u - above)
        by_score -= step
        by_score_twice += step * (1 - 2 * upper)
    by_score /= total
    bend_score = unrated * (by_score_twice / total - by_score.square())
    if offset is None:
        return unrated * by_score, bend_score[None]
    by_offset, by_both, by_offset_twice = (torch.zeros_like(score) for _ in range(3))
    drops = [u * (u - 1) for u in free]
    lower: Tensor | float = 0.0
    for upper, u, drop in zip([*below, torch.ones_like(score)], free, drops, strict=True):
        level = (upper - lower) * drop
        by_offset += level
        by_offset_twice += level * (2 * u - 1)
        lower = upper
    for slope, (drop, above) in zip(slopes, pairwise(drops), strict=True):
        by_both -= slope * (drop - above)
    by_offset /= total
    bend_both = unrated * (by_both / total - by_score * by_offset)
    bend_offset = unrated * (by_offset_twice / total - by_offset.square())
    bend = torch.stack([torch.cat([bend_score, bend_both]), torch.cat([bend_both, bend_offset])])
    return torch.cat([unrated * by_score, unrated * by_offset]), bend
