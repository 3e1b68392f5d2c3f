"""The missing-entry term on levels, exact or at a drawn rating, value and gradient in one pass over a block.

Autograd would store and re-read about ten arrays of S x B x R x I; here each gradient is formed in place while its
inputs are in cache. ``RatingDistribution.log_unrated`` and ``DrawnRatings.sum_log_unrated`` are the
plain forms that the tests hold this to.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import logsigmoid

from mnar_recsys.model.decoders.level_math import offset_gradient, one_minus_pi
from mnar_recsys.model.indexing import lift, masked_sum


class SumLogUnrated(torch.autograd.Function):
    """sum_j unrated_j log sum_r p_r(j) (1 - pi_r(j)), with p = softmax(logits) and pi = sigmoid(table + offset).

    logits (S, B, R, I), table (R, I), offset (S, B), (S, B, I) or None, unrated (B, I) of 0 and 1 -> (S, B).
    With q_r = p_r (1 - pi_r) / sum_r p_r (1 - pi_r), the gradients of a cell are q - p for its logits and -q pi for
    table and offset.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, table: Tensor, offset: Tensor | None, unrated: Tensor) -> Tensor:
        """Return the sums; keep the cells' gradients if the backward pass will want them."""
        p = torch.softmax(logits, dim=-2)
        free = one_minus_pi(table, offset)  # (R, I) or (S, B, R, I)
        q = p * free
        total = q.sum(-2).add_(torch.finfo(q.dtype).tiny)  # (S, B, I)
        value = masked_sum(torch.log(total), unrated)
        if any(ctx.needs_input_grad):
            q.mul_((unrated / total).unsqueeze(-2))
            by_logits = p.mul_(unrated.unsqueeze(-2)).neg_().add_(q)
            by_table = q.mul_(free.sub_(1))  # -q pi
            ctx.save_for_backward(by_logits, by_table)
            ctx.offset_axes = 0 if offset is None else offset.dim()
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None]:
        """Scale the cells' gradients by the users' and sum."""
        by_logits, by_table = ctx.saved_tensors
        S, B, R, I = by_table.shape  # noqa: E741
        grad_table = (grad.reshape(1, S * B) @ by_table.view(S * B, R * I)).view(R, I)
        grad_offset = None
        if ctx.offset_axes:
            grad_offset = offset_gradient(by_table.sum(-2).mul_(grad[..., None]), ctx.offset_axes)
        return by_logits.mul_(grad[..., None, None]), grad_table, grad_offset, None


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
        ctx.offset_axes = 0 if offset is None else offset.dim()
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
        return by_logits, None, None, torch.stack(by_table), offset_gradient(by_cell, ctx.offset_axes), None


def _weighted_sum(weights: Tensor, table: Tensor) -> Tensor:
    """sum_r weights_r table_r without an array of the products: (..., R, I), (R, I) -> (..., I)."""
    total = weights[..., 0, :] * table[0]
    for r in range(1, len(table)):
        total.addcmul_(weights[..., r, :], table[r])
    return total
