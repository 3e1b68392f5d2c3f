"""The missing-entry term on levels, exact or at a drawn rating, value and gradient in one pass over a block.

Autograd would store and re-read about ten arrays of S x B x R x I; here each gradient is formed in place while its
inputs are in cache. ``RatingDistribution.log_unrated`` and ``DrawnRatings.sum_log_unrated`` are the
plain forms that the tests hold this to.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import logsigmoid

from mnar_recsys.model.compiled import fused
from mnar_recsys.model.decoders.known_gradient import with_gradient
from mnar_recsys.model.decoders.level_math import (
    odds,
    offset_gradient,
    one_minus_pi_by_level,
    part_of,
    part_of_offset,
)
from mnar_recsys.model.indexing import lift, masked_sum


def sum_log_unrated_levels(logits: Tensor, table: Tensor, offset: Tensor | None, unrated: Tensor) -> Tensor:
    """sum_j unrated_j log sum_r p_r(j) (1 - pi_r(j)), with p = softmax(logits) and pi = sigmoid(table + offset).

    logits (S, B, R, I), table (R, 1) or (R, I), offset (S, B), (S, B, I), (1, 1, I) or None, unrated (B, I) of 0 and 1
    -> (S, B). With q_r = p_r (1 - pi_r) / sum_r p_r (1 - pi_r), the derivatives of a cell are q - p by its logits and
    -q pi by table and offset.
    """
    is_differentiable = torch.is_grad_enabled()
    with torch.no_grad():
        table_odds = odds(table)
        if not is_differentiable:
            return _sums(logits, table_odds, offset, unrated)
        sums, by_logits, by_table, by_offset = _with_gradients(logits, table_odds, offset, unrated)
    return with_gradient(sums, (logits, by_logits), (table, by_table), (offset, by_offset))


@partial(fused, one_loop=True)
def _sums(logits: Tensor, table_odds: Tensor, offset: Tensor | None, unrated: Tensor) -> Tensor:
    p = torch.softmax(logits, dim=-2).unbind(-2)
    return masked_sum(_total(p, one_minus_pi_by_level(table_odds, offset)).log_(), unrated)


@partial(fused, one_loop=True)
def _with_gradients(
    logits: Tensor, table_odds: Tensor, offset: Tensor | None, unrated: Tensor
) -> tuple[Tensor, Tensor, list[Tensor], Tensor]:
    """Return the sums and their derivatives by logits, table and offset: see ``with_gradient``."""
    p, free = torch.softmax(logits, dim=-2), one_minus_pi_by_level(table_odds, offset)
    total = _total(p.unbind(-2), free)
    share = unrated / total
    by_logits, by_table, by_offset = [], [], torch.zeros_like(share)
    for level, u in zip(p.unbind(-2), free, strict=True):
        q = (level * u).mul_(share)
        by_logits.append(torch.addcmul(q, level, unrated, value=-1))
        pulled = q.mul_(u - 1)  # -q pi
        by_table.append(part_of(pulled, table_odds))
        by_offset += pulled
    sums = masked_sum(total.log_(), unrated)
    return sums, torch.stack(by_logits, dim=-2), by_table, part_of_offset(by_offset, offset)


def _total(p: tuple[Tensor, ...], free: list[Tensor]) -> Tensor:
    """Return sum_r p_r u_r of each cell, (S, B, I)."""
    total = torch.full_like(p[0], torch.finfo(p[0].dtype).tiny)
    for level, u in zip(p, free, strict=True):
        total.addcmul_(level, u)
    return total


class SumLogUnratedDrawn(torch.autograd.Function):
    """sum_j unrated_j log(1 - sigmoid(sum_r y_r table_r + offset)), y = softmax((logits + noise) / temperature).

    The derivative of a cell by its log-odds is -pi; by logit r, -pi y_r (table_r - sum_r y_r table_r) / temperature.

    logits, noise (S, B, R, I), table (R, I), offset (S, B), (S, B, I) or None, unrated (B, I) of 0 and 1 -> (S, B).
    """

    @staticmethod
    def forward(  # noqa: PLR0917
        ctx: Any,
        logits: Tensor,
        noise: Tensor,
        temperature: float,
        table: Tensor,
        offset: Tensor | None,
        unrated: Tensor,
    ) -> Tensor:
        """Return the sums."""
        y = torch.softmax((logits + noise).mul_(1 / temperature), dim=-2)
        drawn = _weighted_sum(y, table)
        log_odds = drawn if offset is None else drawn + lift(offset)
        ctx.save_for_backward(y, drawn, log_odds, table, unrated)
        ctx.temperature = temperature
        ctx.offset_shape = None if offset is None else offset.shape
        return masked_sum(logsigmoid(-log_odds), unrated)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, Tensor, Tensor | None, None]:
        """Return the gradients."""
        y, drawn, log_odds, table, unrated = ctx.saved_tensors
        by_cell = torch.sigmoid(log_odds).mul_(unrated).mul_(grad.neg().unsqueeze(-1))  # (S, B, I)
        by_table, by_logits = [], torch.empty_like(y)
        for r in range(len(table)):
            share = y[..., r, :] * by_cell
            by_table.append(share.sum((0, 1)))
            torch.mul(share, (table[r] - drawn).mul_(1 / ctx.temperature), out=by_logits[..., r, :])
        by_offset = offset_gradient(by_cell, ctx.offset_shape)
        return by_logits, None, None, torch.stack(by_table), by_offset, None


def _weighted_sum(weights: Tensor, table: Tensor) -> Tensor:
    """sum_r weights_r table_r without an array of the products: (..., R, I), (R, I) -> (..., I)."""
    total = weights[..., 0, :] * table[0]
    for r in range(1, len(table)):
        total.addcmul_(weights[..., r, :], table[r])
    return total
