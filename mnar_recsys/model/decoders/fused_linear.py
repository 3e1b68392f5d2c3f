"""The missing-entry term of a density around a location and a linear logit, by quadrature or at a draw."""

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from mnar_recsys.model.compiled import fused
from mnar_recsys.model.decoders.known_gradient import with_gradient
from mnar_recsys.model.decoders.level_math import odds, part_of, part_of_offset
from mnar_recsys.model.indexing import lift, masked_sum


class _Given(NamedTuple):
    """The arguments of ``sum_log_unrated_linear``."""

    score: Tensor
    height: Tensor
    base: Tensor
    kappa: Tensor
    offset: Tensor | None
    unrated: Tensor
    nodes: Tensor
    weights: Tensor
    is_squashed: bool


def sum_log_unrated_linear(*arguments: Any) -> Tensor:
    """sum_j unrated_j log sum_q omega_q v_q with v_q = 1 - sigmoid(eta + kappa t_q).

    The nodes of the quadrature are t, their weights omega; eta = height * sigmoid(score) + base + offset is the logit
    of pi at the rating's location (with the score as it is if not ``is_squashed``), kappa the slope times its spread.
    Since v_q is 1 / (1 + e^eta e^(kappa t_q)), a cell needs one exponential, not one a node, and nothing the size of
    (S, B, Q, I) is made. The derivative of the sum over q by eta is -sum omega v (1 - v), by kappa
    -sum omega t v (1 - v), by a weight v_q.

    score (S, B, I); height, base, kappa (1,) or (I,); offset (S, B), (S, B, I), (1, 1, I) or None; unrated (B, I), how
    many unknown ratings each cell stands for; nodes and weights (Q,); is_squashed -> (S, B).
    """
    given = _Given(*arguments)
    is_differentiable = torch.is_grad_enabled()
    with torch.no_grad():
        factors = odds(given.nodes[:, None] * given.kappa)  # e^(kappa t) of each node, (Q, 1) or (Q, I)
        if not is_differentiable:
            return _sums(given, factors)
        sums, by_score, by_height, by_base, by_kappa, by_eta = _with_gradients(given, factors)
        by_weights = _by_weights(given, factors) if given.weights.requires_grad else []
    return with_gradient(
        sums, (given.score, by_score), (given.height, by_height), (given.base, by_base), (given.kappa, by_kappa),
        (given.offset, part_of_offset(by_eta, given.offset)), (given.weights, by_weights),
    )  # fmt: skip


@partial(fused, one_loop=True)
def _sums(given: _Given, factors: Tensor) -> Tensor:
    return masked_sum(_total(given, factors, _place(given)).log_(), given.unrated)


@partial(fused, one_loop=True)
def _with_gradients(given: _Given, factors: Tensor) -> tuple[Tensor, ...]:
    """Return the sums and their derivatives by score, height, base, kappa and eta: see ``with_gradient``."""
    place = _place(given)
    total = _tiny_like(place)
    by_eta, by_kappa = torch.zeros_like(place), torch.zeros_like(place)
    each = zip(_stays(given, factors, place), given.nodes.unbind(), given.weights.unbind(), strict=True)
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
def _by_weights(given: _Given, factors: Tensor) -> list[Tensor]:
    """Return the derivatives of the sums by the weight of each node, (S, B) each."""
    place = _place(given)
    share = given.unrated / _total(given, factors, place)
    return [stays.mul_(share).sum(-1) for stays in _stays(given, factors, place)]


class _Drawn(NamedTuple):
    """The arguments of ``sum_log_unrated_drawn``."""

    score: Tensor
    height: Tensor
    base: Tensor
    kappa: Tensor
    offset: Tensor | None
    unrated: Tensor
    noise: Tensor
    is_squashed: bool


def sum_log_unrated_drawn(*arguments: Any) -> Tensor:
    """sum_j unrated_j log(1 - sigmoid(eta + kappa noise)), with eta and arguments as of ``sum_log_unrated_linear``.

    noise (S, B, I). The derivative of a cell by eta is -sigmoid(eta + kappa noise).
    """
    given = _Drawn(*arguments)
    is_differentiable = torch.is_grad_enabled()
    with torch.no_grad():
        if not is_differentiable:
            return _drawn_sums(given)
        sums, by_score, by_height, by_base, by_kappa, by_eta = _drawn_with_gradients(given)
        by_noise = by_eta * given.kappa if given.noise.requires_grad else by_eta
    return with_gradient(
        sums, (given.score, by_score), (given.height, by_height), (given.base, by_base), (given.kappa, by_kappa),
        (given.offset, part_of_offset(by_eta, given.offset)), (given.noise, by_noise),
    )  # fmt: skip


@partial(fused, one_loop=True)
def _drawn_sums(given: _Drawn) -> Tensor:
    log_odds = torch.addcmul(_eta(given, _place(given)), given.kappa, given.noise)
    return masked_sum(logsigmoid(-log_odds), given.unrated)


@partial(fused, one_loop=True)
def _drawn_with_gradients(given: _Drawn) -> tuple[Tensor, ...]:
    """Return the sums and their derivatives by score, height, base, kappa and eta: see ``with_gradient``."""
    place = _place(given)
    log_odds = torch.addcmul(_eta(given, place), given.kappa, given.noise)
    by_eta = torch.sigmoid(log_odds).mul_(-given.unrated)
    by_kappa = part_of(by_eta * given.noise, given.kappa)
    return masked_sum(logsigmoid(-log_odds), given.unrated), *_parts(given, place, by_eta), by_kappa, by_eta


def _parts(given: _Given | _Drawn, place: Tensor, by_eta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the derivatives by score, height and base from those by eta."""
    by_score = by_eta * given.height
    if given.is_squashed:
        by_score = by_score.mul_(torch.addcmul(place, place, place, value=-1))
    return by_score, part_of(by_eta * place, given.height), part_of(by_eta, given.base)


def _place(given: _Given | _Drawn) -> Tensor:
    return torch.sigmoid(given.score) if given.is_squashed else given.score


def _eta(given: _Given | _Drawn, place: Tensor) -> Tensor:
    eta = torch.addcmul(given.base, given.height, place)
    return eta if given.offset is None else eta.add_(lift(given.offset))


def _total(given: _Given, factors: Tensor, place: Tensor) -> Tensor:
    """Return sum_q omega_q v_q of each cell, (S, B, I)."""
    total = _tiny_like(place)
    for stays, weight in zip(_stays(given, factors, place), given.weights.unbind(), strict=True):
        total.addcmul_(stays, weight)
    return total


def _stays(given: _Given, factors: Tensor, place: Tensor) -> Iterator[Tensor]:
    """Yield v of each node, (S, B, I), free to be changed."""
    by_cell = odds(_eta(given, place))
    for factor in factors.unbind():
        yield torch.mul(by_cell, factor).add_(1).reciprocal_()


def _tiny_like(cells: Tensor) -> Tensor:
    """Return the smallest normal number in every cell: it keeps the logarithm finite where pi rounds to 1."""
    return torch.full_like(cells, torch.finfo(cells.dtype).tiny)
