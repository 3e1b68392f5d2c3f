"""The missing-entry term of a density around a location and a linear logit, by quadrature or at a draw."""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from mnar_recsys.model.compiled import fused
from mnar_recsys.model.decoders.known_gradient import with_gradient
from mnar_recsys.model.decoders.level_math import odds, part_of, part_of_offset
from mnar_recsys.model.indexing import lift, masked_sum


class LinearCells(NamedTuple):
    """Cells whose logit of pi is eta + kappa * noise, noise the distance of the rating from its location, in sds.

    eta = height * sigmoid(score) + base + offset, or height * score + base + offset if not ``is_squashed``.
    """

    score: Tensor
    """(S, B, I)"""
    is_squashed: bool
    height: Tensor
    """(1,) or (I,), as are base and kappa"""
    base: Tensor
    kappa: Tensor
    offset: Tensor | None
    """(S, B), (S, B, I) or (1, 1, I)"""
    unrated: Tensor
    """(B, I): how many unknown ratings each stands for"""


def sum_log_unrated_linear(given: LinearCells, nodes: Tensor, weights: Tensor) -> Tensor:
    """sum_j unrated_j log sum_q omega_q v_q with v_q = 1 - sigmoid(eta + kappa t_q): (S, B).

    The nodes of the quadrature over the noise are t, their weights omega, (Q,) each. Since v_q is
    1 / (1 + e^eta e^(kappa t_q)), a cell needs one exponential, not one a node, and nothing the size of (S, B, Q, I) is
    made. The derivative of the sum over q by eta is -sum omega v (1 - v), by kappa -sum omega t v (1 - v), by a weight
    v_q.
    """
    is_differentiable = torch.is_grad_enabled()
    with torch.no_grad():
        factors = odds(nodes[:, None] * given.kappa)  # e^(kappa t) of each node, (Q, 1) or (Q, I)
        if not is_differentiable:
            return _sums(given, factors, weights)
        sums, *parts, by_eta = _with_gradients(given, factors, nodes, weights)
        by_weights = _by_weights(given, factors, weights) if weights.requires_grad else []
    return with_gradient(sums, *_of_given(given, parts, by_eta), (weights, by_weights))


@partial(fused, one_loop=True)
def _sums(given: LinearCells, factors: Tensor, weights: Tensor) -> Tensor:
    return masked_sum(_total(given, factors, weights, _place(given)).log_(), given.unrated)


@partial(fused, one_loop=True)
def _with_gradients(given: LinearCells, factors: Tensor, nodes: Tensor, weights: Tensor) -> tuple[Tensor, ...]:
    """Return the sums and their derivatives by score, height, base, kappa and eta: see ``with_gradient``."""
    place = _place(given)
    total = _tiny_like(place)
    by_eta, by_kappa = torch.zeros_like(place), torch.zeros_like(place)
    each = zip(_stays(given, factors, place), nodes.unbind(), weights.unbind(), strict=True)
    for stays, node, weight in each:
        total.addcmul_(stays, weight)
        slope = stays.addcmul_(stays, stays, value=-1)  # v (1 - v)
        by_eta.addcmul_(slope, weight, value=-1)
        by_kappa.addcmul_(slope, weight * node, value=-1)
    share = given.unrated / total
    by_eta.mul_(share)
    sums, by_kappa = masked_sum(total.log_(), given.unrated), part_of(by_kappa.mul_(share), given.kappa)
    return sums, *_parts(given, place, by_eta), by_kappa, by_eta


@partial(fused, one_loop=True)
def _by_weights(given: LinearCells, factors: Tensor, weights: Tensor) -> list[Tensor]:
    """Return the derivatives of the sums by the weight of each node, (S, B) each."""
    place = _place(given)
    share = given.unrated / _total(given, factors, weights, place)
    return [stays.mul_(share).sum(-1) for stays in _stays(given, factors, place)]


def sum_log_unrated_drawn(given: LinearCells, noise: Tensor) -> Tensor:
    """sum_j unrated_j log(1 - sigmoid(eta + kappa noise)), noise (S, B, I): (S, B).

    The derivative of a cell by eta is -sigmoid(eta + kappa noise).
    """
    is_differentiable = torch.is_grad_enabled()
    with torch.no_grad():
        if not is_differentiable:
            return _drawn_sums(given, noise)
        sums, *parts, by_eta = _drawn_with_gradients(given, noise)
        by_noise = by_eta * given.kappa if noise.requires_grad else by_eta
    return with_gradient(sums, *_of_given(given, parts, by_eta), (noise, by_noise))


@partial(fused, one_loop=True)
def _drawn_sums(given: LinearCells, noise: Tensor) -> Tensor:
    log_odds = torch.addcmul(_eta(given, _place(given)), given.kappa, noise)
    return masked_sum(logsigmoid(-log_odds), given.unrated)


@partial(fused, one_loop=True)
def _drawn_with_gradients(given: LinearCells, noise: Tensor) -> tuple[Tensor, ...]:
    """Return the sums and their derivatives by score, height, base, kappa and eta: see ``with_gradient``."""
    place = _place(given)
    log_odds = torch.addcmul(_eta(given, place), given.kappa, noise)
    by_eta = torch.sigmoid(log_odds).mul_(-given.unrated)
    by_kappa = part_of(by_eta * noise, given.kappa)
    return masked_sum(logsigmoid(-log_odds), given.unrated), *_parts(given, place, by_eta), by_kappa, by_eta


def _of_given(given: LinearCells, parts: list[Tensor], by_eta: Tensor) -> list[tuple[Tensor | None, Tensor]]:
    """Pair tensors with the derivatives by score, height, base and kappa, and by eta: see ``with_gradient``."""
    tensors = given.score, given.height, given.base, given.kappa
    return [*zip(tensors, parts, strict=True), (given.offset, part_of_offset(by_eta, given.offset))]


def _parts(given: LinearCells, place: Tensor, by_eta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the derivatives by score, height and base from those by eta."""
    by_score = by_eta * given.height
    if given.is_squashed:
        by_score = by_score.mul_(torch.addcmul(place, place, place, value=-1))
    return by_score, part_of(by_eta * place, given.height), part_of(by_eta, given.base)


def _place(given: LinearCells) -> Tensor:
    return torch.sigmoid(given.score) if given.is_squashed else given.score


def _eta(given: LinearCells, place: Tensor) -> Tensor:
    eta = torch.addcmul(given.base, given.height, place)
    return eta if given.offset is None else eta.add_(lift(given.offset))


def _total(given: LinearCells, factors: Tensor, weights: Tensor, place: Tensor) -> Tensor:
    """Return sum_q omega_q v_q of each cell, (S, B, I)."""
    total = _tiny_like(place)
    for stays, weight in zip(_stays(given, factors, place), weights.unbind(), strict=True):
        total.addcmul_(stays, weight)
    return total


def _stays(given: LinearCells, factors: Tensor, place: Tensor) -> Iterator[Tensor]:
    """Yield v of each node, (S, B, I), free to be changed."""
    by_cell = odds(_eta(given, place))
    for factor in factors.unbind():
        yield torch.mul(by_cell, factor).add_(1).reciprocal_()


def _tiny_like(cells: Tensor) -> Tensor:
    """Return the smallest normal number in every cell: it keeps the logarithm finite where pi rounds to 1."""
    return torch.full_like(cells, torch.finfo(cells.dtype).tiny)
