"""Minimising a loss known only by noisy estimates, to convergence, without held-out ratings."""

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from mnar_recsys.errors import DivergedError

_ROUND = 100
_MAX_ROUNDS, _PATIENCE = 50, 2


def descend(
    loss: Callable[[], Tensor],
    parameters: Iterable[nn.Parameter],
    *,
    learning_rate: float,
    gain: float,
    slowing: int,
    who: str,
) -> None:
    """Minimise by Adam: steps of one size to a plateau, then ever smaller ones.

    A plateau is where, twice in a row, the mean loss of 100 steps was not lower by ``gain`` than that of the last 100
    that were; without one the step size starts to fall after 5000 steps.

    Parameters
    ----------
    loss
        Draws an unbiased estimate of the loss, a scalar.
    learning_rate
        Adam's step size.
    gain
        In the unit of the loss; well above the standard error of a mean of 100 estimates.
    slowing
        Number of steps after the plateau, at least 1, in which the step size falls linearly to 0.
    who
        The method, for the message of an error.

    Raises
    ------
    DivergedError
        If the loss stops being finite.
    """
    optimizer = torch.optim.Adam(parameters, lr=learning_rate, betas=(0.9, 0.99))

    def mean_loss(sizes: Sequence[float]) -> float:
        total = 0.0
        for size in sizes:
            optimizer.param_groups[0]["lr"] = size
            optimizer.zero_grad()
            value = loss()
            value.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += value.item()
        if not math.isfinite(total):
            raise DivergedError(f"{who}: the loss is not finite; lower learning_rate")
        return total / len(sizes)

    best, waited = math.inf, 0
    for _ in range(_MAX_ROUNDS):
        now = mean_loss([learning_rate] * _ROUND)
        best, waited = (now, 0) if now < best - gain else (best, waited + 1)
        if waited == _PATIENCE:
            break
    mean_loss([learning_rate * (1.0 - step / slowing) for step in range(slowing)])
