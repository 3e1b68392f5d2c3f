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

    The nodes of the quadrature are t, their weights omega; eta is the logit of pi at the rating's location, kappa the
    slope times its spread. Since v_q is 1 / (1 + e^(eta + offset) e^(kappa t_q)), a cell needs one exponential,
    not one a node, and nothing the size of (S, B, Q, I) is made. The derivative of the sum over q by eta is
    -sum omega v (1 - v), by kappa -sum omega t v (1 - v), by a weight v_q. The backward pass computes v again: it
    takes less time than to store it.

    eta (S, B, I), kappa (1,) or (I,), offset (S, B), (S, B, I) or None, unrated (B, I) of 0 and 1,
    nodes and weights (Q,) -> (S, B).
    """

    @staticmethod
    def forward(  # noqa: PLR0917
        ctx: Any, eta: Tensor, kappa: Tensor, offset: Tensor | None, unrated: Tensor, nodes: Tensor, weights: Tensor
    ) -> Tensor:
        """Return the sums."""
        ctx.save_for_backward(eta, kappa, offset, unrated, nodes, weights)
        return _sums(eta, kappa, offset, unrated, nodes, weights)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None, None, Tensor | None]:
        """Return the gradients."""
        eta, kappa, offset, unrated, nodes, weights = ctx.saved_tensors
        by_eta, by_kappa = _gradients(eta, kappa, offset, unrated, nodes, weights, grad)
        by_kappa = by_kappa if kappa.numel() > 1 else by_kappa.sum().view_as(kappa)
        by_weights = None
        if ctx.needs_input_grad[5]:
            by_weights = _weight_gradients(eta, kappa, offset, unrated, nodes, weights, grad)
        axes = 0 if offset is None else offset.dim()
        return by_eta, by_kappa, offset_gradient(by_eta, axes), None, None, by_weights


@fused
def _sums(  # noqa: PLR0917
    eta: Tensor, kappa: Tensor, offset: Tensor | None, unrated: Tensor, nodes: Tensor, weights: Tensor
) -> Tensor:
    total = torch.full_like(eta, torch.finfo(eta.dtype).tiny)
    for stays, weight in zip(_stays(eta, kappa, offset, nodes), weights.unbind(), strict=True):
        total.addcmul_(stays, weight)
    return masked_sum(total.log_(), unrated)


@fused
def _gradients(  # noqa: PLR0917
    eta: Tensor, kappa: Tensor, offset: Tensor | None, unrated: Tensor, nodes: Tensor, weights: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the gradients of eta (S, B, I) and of each item's kappa (I,)."""
    total = torch.full_like(eta, torch.finfo(eta.dtype).tiny)
    by_eta, by_kappa = torch.zeros_like(eta), torch.zeros_like(eta)
    each = zip(_stays(eta, kappa, offset, nodes), nodes.unbind(), weights.unbind(), strict=True)
    for stays, node, weight in each:
        total.addcmul_(stays, weight)
        slope = stays.addcmul_(stays, stays, value=-1)  # v (1 - v)
        by_eta.addcmul_(slope, weight, value=-1)
        by_kappa.addcmul_(slope, weight * node, value=-1)
    share = (grad[..., None] * unrated).div_(total)
    return by_eta.mul_(share), by_kappa.mul_(share).sum((0, 1))


@fused
def _weight_gradients(  # noqa: PLR0917
    eta: Tensor, kappa: Tensor, offset: Tensor | None, unrated: Tensor, nodes: Tensor, weights: Tensor, grad: Tensor
) -> Tensor:
    total = torch.full_like(eta, torch.finfo(eta.dtype).tiny)
    for stays, weight in zip(_stays(eta, kappa, offset, nodes), weights.unbind(), strict=True):
        total.addcmul_(stays, weight)
    share = (grad[..., None] * unrated).div_(total)
    return torch.stack([stays.mul_(share).sum() for stays in _stays(eta, kappa, offset, nodes)])


def _stays(eta: Tensor, kappa: Tensor, offset: Tensor | None, nodes: Tensor) -> Iterator[Tensor]:
    """Yield v of each node, (S, B, I), free to be changed."""
    odds = torch.exp((eta if offset is None else eta + lift(offset)).clamp(max=_LARGEST))
    factors = torch.exp((nodes[:, None] * kappa).clamp(-_LARGEST, _LARGEST))  # (Q, 1) or (Q, I)
    for factor in factors.unbind():
        yield torch.mul(odds, factor).add_(1).reciprocal_()
