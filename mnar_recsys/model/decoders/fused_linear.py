"""The missing-entry term of a density around a location and a linear logit, by quadrature, with its gradient."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mnar_recsys.model.compiled import fused
from mnar_recsys.model.decoders.level_math import offset_gradient
from mnar_recsys.model.indexing import lift, masked_sum

# Beyond e^40 the product with a node's factor could overflow, and pi is 1 to single precision long before.
_LARGEST = 40.0


class SumLogUnratedLinear(torch.autograd.Function):
    """sum_j unrated_j log sum_q omega_q v_q with v_q = 1 - sigmoid(eta + offset + kappa t_q).

    The nodes of the quadrature are t, their weights omega; eta = height * sigmoid(score) + base is the logit of pi at
    the rating's location (height * score + base if not ``is_squashed``), kappa the slope times its spread. Since v_q is
    1 / (1 + e^(eta + offset) e^(kappa t_q)), a cell needs one exponential, not one a node, and nothing the size of
    (S, B, Q, I) is made. The derivative of the sum over q by eta is -sum omega v (1 - v), by kappa
    -sum omega t v (1 - v), by a weight v_q. The backward pass computes v again: it takes less time than to store it.

    score (S, B, I); height, kappa (1,) or (I,); base (I,); offset (S, B), (S, B, I) or None; unrated (B, I) of 0 and 1;
    nodes and weights (Q,) -> (S, B).
    """

    @staticmethod
    def forward(  # noqa: PLR0917
        ctx: Any,
        score: Tensor,
        height: Tensor,
        base: Tensor,
        kappa: Tensor,
        offset: Tensor | None,
        unrated: Tensor,
        nodes: Tensor,
        weights: Tensor,
        is_squashed: bool,
    ) -> Tensor:
        """Return the sums."""
        ctx.save_for_backward(score, height, base, kappa, offset, unrated, nodes, weights)
        ctx.is_squashed = is_squashed
        return _sums(score, height, base, kappa, offset, unrated, nodes, weights, is_squashed)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients."""
        score, height, base, kappa, offset, unrated, nodes, weights = ctx.saved_tensors
        given = (score, height, base, kappa, offset, unrated, nodes, weights, ctx.is_squashed, grad)
        by_eta, by_score, *by_item = _gradients(*given)
        # An item's derivative where the parameter is the items', their sum where it is shared.
        shared = [
            part if parameter.numel() > 1 else part.sum().view_as(parameter)
            for part, parameter in zip(by_item, (height, base, kappa), strict=True)
        ]
        by_weights = None
        if ctx.needs_input_grad[7]:
            by_weights = _weight_gradients(*given)
        by_offset = offset_gradient(by_eta, 0 if offset is None else offset.dim())
        return by_score, *shared, by_offset, None, None, by_weights, None


@fused
def _sums(  # noqa: PLR0917
    score: Tensor,
    height: Tensor,
    base: Tensor,
    kappa: Tensor,
    offset: Tensor | None,
    unrated: Tensor,
    nodes: Tensor,
    weights: Tensor,
    is_squashed: bool,
) -> Tensor:
    place = torch.sigmoid(score) if is_squashed else score
    total = torch.full_like(score, torch.finfo(score.dtype).tiny)
    for stays, weight in zip(_stays(place, height, base, kappa, offset, nodes), weights.unbind(), strict=True):
        total.addcmul_(stays, weight)
    return masked_sum(total.log_(), unrated)


@fused
def _gradients(  # noqa: PLR0917
    score: Tensor,
    height: Tensor,
    base: Tensor,
    kappa: Tensor,
    offset: Tensor | None,
    unrated: Tensor,
    nodes: Tensor,
    weights: Tensor,
    is_squashed: bool,
    grad: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of each cell's eta and score (S, B, I) and of each item's height, base and kappa (I,)."""
    place = torch.sigmoid(score) if is_squashed else score
    total = torch.full_like(score, torch.finfo(score.dtype).tiny)
    by_eta, by_kappa = torch.zeros_like(score), torch.zeros_like(score)
    each = zip(_stays(place, height, base, kappa, offset, nodes), nodes.unbind(), weights.unbind(), strict=True)
    for stays, node, weight in each:
        total.addcmul_(stays, weight)
        slope = stays.addcmul_(stays, stays, value=-1)  # v (1 - v)
        by_eta.addcmul_(slope, weight, value=-1)
        by_kappa.addcmul_(slope, weight * node, value=-1)
    share = (grad[..., None] * unrated).div_(total)
    by_eta.mul_(share)
    by_score = by_eta * height
    if is_squashed:
        by_score = by_score.mul_(torch.addcmul(place, place, place, value=-1))
    by_height = (by_eta * place).sum((0, 1))
    return by_eta, by_score, by_height, by_eta.sum((0, 1)), by_kappa.mul_(share).sum((0, 1))


@fused
def _weight_gradients(  # noqa: PLR0917
    score: Tensor,
    height: Tensor,
    base: Tensor,
    kappa: Tensor,
    offset: Tensor | None,
    unrated: Tensor,
    nodes: Tensor,
    weights: Tensor,
    is_squashed: bool,
    grad: Tensor,
) -> Tensor:
    place = torch.sigmoid(score) if is_squashed else score
    total = torch.full_like(score, torch.finfo(score.dtype).tiny)
    for stays, weight in zip(_stays(place, height, base, kappa, offset, nodes), weights.unbind(), strict=True):
        total.addcmul_(stays, weight)
    share = (grad[..., None] * unrated).div_(total)
    return torch.stack([stays.mul_(share).sum() for stays in _stays(place, height, base, kappa, offset, nodes)])


def _stays(  # noqa: PLR0917
    place: Tensor, height: Tensor, base: Tensor, kappa: Tensor, offset: Tensor | None, nodes: Tensor
) -> Iterator[Tensor]:
    """Yield v of each node, (S, B, I), free to be changed."""
    eta = torch.addcmul(base, height, place)
    odds = torch.exp((eta if offset is None else eta + lift(offset)).clamp(max=_LARGEST))
    factors = torch.exp((nodes[:, None] * kappa).clamp(-_LARGEST, _LARGEST))  # (Q, 1) or (Q, I)
    for factor in factors.unbind():
        yield torch.mul(odds, factor).add_(1).reciprocal_()
