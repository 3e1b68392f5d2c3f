"""The missing-entry term of a density around a location and a linear logit, by quadrature, with its gradient."""

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mnar_recsys.model.compiled import fused
from mnar_recsys.model.decoders.level_math import gradient_of, odds, offset_gradient, part_of
from mnar_recsys.model.indexing import masked_sum


class _Given(NamedTuple):
    """The arguments of ``SumLogUnratedLinear``."""

    score: Tensor
    height: Tensor
    kappa: Tensor
    offset: Tensor
    unrated: Tensor
    nodes: Tensor
    weights: Tensor
    is_squashed: bool


class SumLogUnratedLinear(torch.autograd.Function):
    """sum_j unrated_j log sum_q omega_q v_q with v_q = 1 - sigmoid(eta + kappa t_q).

    The nodes of the quadrature are t, their weights omega; eta = height * sigmoid(score) + offset is the logit of pi at
    the rating's location (height * score + offset if not ``is_squashed``), kappa the slope times its spread. Since v_q
    is 1 / (1 + e^eta e^(kappa t_q)), a cell needs one exponential, not one a node, and nothing the size of (S, B, Q, I)
    is made. The derivative of the sum over q by eta is -sum omega v (1 - v), by kappa -sum omega t v (1 - v), by a
    weight v_q. The backward pass computes v again: it takes less time than to store it.

    score (S, B, I); height, kappa (1,) or (I,); offset (S, B, I) or (1, 1, I); unrated (B, I) of 0 and 1; nodes and
    weights (Q,) -> (S, B).
    """

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        """Return the sums."""
        given = _Given(*arguments)
        ctx.save_for_backward(*given[:-1])
        ctx.is_squashed = given.is_squashed
        return _sums(given, _factors(given))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients."""
        given = _Given._make([*ctx.saved_tensors, ctx.is_squashed])
        by_score, by_offset, by_height, by_kappa = _gradients(given, _factors(given), grad)
        by_weights = _weight_gradients(given, _factors(given), grad) if ctx.needs_input_grad[6] else None
        return (
            by_score, gradient_of([by_height], given.height), gradient_of([by_kappa], given.kappa),
            offset_gradient(by_offset, given.offset.shape), None, None, by_weights, None,
        )  # fmt: skip


def _factors(given: _Given) -> Tensor:
    """Return e^(kappa t) of each node, (Q, 1) or (Q, I)."""
    return odds(given.nodes[:, None] * given.kappa)


@partial(fused, one_loop=True)
def _sums(given: _Given, factors: Tensor) -> Tensor:
    return masked_sum(_total(given, factors, _place(given)).log_(), given.unrated)


@partial(fused, one_loop=True)
def _gradients(given: _Given, factors: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of each cell's score and offset (S, B, I), and of height and kappa (``part_of``)."""
    place = _place(given)
    total = _tiny_like(place)
    by_eta, by_kappa = torch.zeros_like(place), torch.zeros_like(place)
    each = zip(_stays(given, factors, place), given.nodes.unbind(), given.weights.unbind(), strict=True)
    for stays, node, weight in each:
        total.addcmul_(stays, weight)
        slope = stays.addcmul_(stays, stays, value=-1)  # v (1 - v)
        by_eta.addcmul_(slope, weight, value=-1)
        by_kappa.addcmul_(slope, weight * node, value=-1)
    share = (grad[..., None] * given.unrated).div_(total)
    by_eta.mul_(share)
    by_score = by_eta * given.height
    if given.is_squashed:
        by_score = by_score.mul_(torch.addcmul(place, place, place, value=-1))
    return by_score, by_eta, part_of(by_eta * place, given.height), part_of(by_kappa.mul_(share), given.kappa)


@partial(fused, one_loop=True)
def _weight_gradients(given: _Given, factors: Tensor, grad: Tensor) -> Tensor:
    place = _place(given)
    share = (grad[..., None] * given.unrated).div_(_total(given, factors, place))
    return torch.stack([stays.mul_(share).sum() for stays in _stays(given, factors, place)])


def _place(given: _Given) -> Tensor:
    return torch.sigmoid(given.score) if given.is_squashed else given.score


def _total(given: _Given, factors: Tensor, place: Tensor) -> Tensor:
    """Return sum_q omega_q v_q of each cell, (S, B, I)."""
    total = _tiny_like(place)
    for stays, weight in zip(_stays(given, factors, place), given.weights.unbind(), strict=True):
        total.addcmul_(stays, weight)
    return total


def _stays(given: _Given, factors: Tensor, place: Tensor) -> Iterator[Tensor]:
    """Yield v of each node, (S, B, I), free to be changed."""
    by_cell = odds(torch.addcmul(given.offset, given.height, place))
    for factor in factors.unbind():
        yield torch.mul(by_cell, factor).add_(1).reciprocal_()


def _tiny_like(cells: Tensor) -> Tensor:
    """Return the smallest normal number in every cell: it keeps the logarithm finite where pi rounds to 1."""
    return torch.full_like(cells, torch.finfo(cells.dtype).tiny)
