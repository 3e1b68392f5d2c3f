"""The missing-entry term of a density around a location and a linear logit, by quadrature, with its gradient."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mnar_recsys.model.decoders.level_math import offset_gradient
from mnar_recsys.model.indexing import lift, masked_sum

# Beyond e^40 the product with a node's factor could overflow, and pi is 1 to single precision long before.
_LARGEST = 40.0


class SumLogUnratedLinear(torch.autograd.Function):
    """sum_j unrated_j log sum_q omega_q v_q with v_q = 1 - sigmoid(eta + offset + kappa t_q).

    The nodes of the quadrature are t, their weights omega; eta is the logit of pi at the rating's location, kappa the
    slope times its spread. Since v_q is 1 / (1 + e^(eta + offset) e^(kappa t_q)), a cell needs one exponential,
    not one a node, and nothing the size of (S, B, Q, I) is made. The derivative of the sum over q by eta is
    -sum omega v (1 - v), by kappa -sum omega t v (1 - v), by a
    weight v_q.

    eta (S, B, I), kappa (1,) or (I,), offset (S, B), (S, B, I) or None, unrated (B, I) of 0 and 1,
    nodes and weights (Q,) -> (S, B).
    """

    @staticmethod
    def forward(  # noqa: PLR0917
        ctx: Any, eta: Tensor, kappa: Tensor, offset: Tensor | None, unrated: Tensor, nodes: Tensor, weights: Tensor
    ) -> Tensor:
        """Return the sums."""
        odds = torch.exp((eta if offset is None else eta + lift(offset)).clamp_max_(_LARGEST))
        factors = _factors(kappa, nodes)
        total = torch.full_like(odds, torch.finfo(odds.dtype).tiny)
        for factor, weight in zip(factors, weights.tolist(), strict=True):
            total.add_(_stays(odds, factor), alpha=weight)
        ctx.save_for_backward(odds, kappa, unrated, total, nodes, weights)
        ctx.offset_axes = 0 if offset is None else offset.dim()
        return masked_sum(torch.log(total), unrated)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None, None, Tensor | None]:
        """Return the gradients, v computed again."""
        odds, kappa, unrated, total, nodes, weights = ctx.saved_tensors
        share = (grad[..., None] * unrated).div_(total)
        by_eta, by_kappa, by_weights = torch.zeros_like(odds), torch.zeros_like(odds), []
        for factor, node, weight in zip(_factors(kappa, nodes), nodes.tolist(), weights.tolist(), strict=True):
            stays = _stays(odds, factor)
            if ctx.needs_input_grad[5]:
                by_weights.append((share * stays).sum())
            slope = stays.addcmul_(stays, stays, value=-1)  # v (1 - v)
            by_eta.add_(slope, alpha=-weight)
            by_kappa.add_(slope, alpha=-weight * node)
        by_eta.mul_(share)
        kappa_sums = by_kappa.mul_(share).sum((0, 1))
        by_kappa = kappa_sums if kappa.numel() > 1 else kappa_sums.sum().view_as(kappa)
        grad_weights = torch.stack(by_weights) if by_weights else None
        return by_eta, by_kappa, offset_gradient(by_eta, ctx.offset_axes), None, None, grad_weights


def _factors(kappa: Tensor, nodes: Tensor) -> Tensor:
    """e^(kappa t_q) of each node: (Q, 1) or (Q, I)."""
    return torch.exp((nodes[:, None] * kappa).clamp(-_LARGEST, _LARGEST))


def _stays(odds: Tensor, factor: Tensor) -> Tensor:
    return torch.mul(odds, factor).add_(1).reciprocal_()
