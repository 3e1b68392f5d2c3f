"""The shared loop of methods that learn in passes: stop on held-out ratings, then fit anew to all for training."""

import math
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mnar_recsys.data import RatingLog, Split
from mnar_recsys.errors import ConfigError, DivergedError
from mnar_recsys.rng import numpy_generator, torch_seed

HELD_OUT = 0.1
"""Share of the self-selected ratings on which the number of passes is chosen."""


class Learner(Protocol):
    """A model with its data, trained a pass at a time. Everything random follows from the seed it was made with."""

    def run_epoch(self, epoch: int) -> float:
        """Make one pass; return the mean training loss."""
        ...

    def validation_loss(self) -> float:
        """Return the loss on ``split.mnar_valid``, the method's own estimate of its target: lower is better."""
        ...


L = TypeVar("L", bound=Learner)
M = TypeVar("M", bound=nn.Module)


def with_validation(split: Split, seed: int) -> Split:
    """Return the split as it is where it has ``mnar_valid``, else with a random tenth of ``mnar_train`` as that."""
    return split if split.mnar_valid is not None else split.hold_out(HELD_OUT, seed=seed)


def fit_to_convergence(
    make: Callable[[Split, int], L], split: Split, seed: int, *, patience: int = 5, max_epochs: int = 1000
) -> L:
    """Choose the number of passes on held-out self-selected ratings, then fit anew to ``mnar_train`` for that many.

    The held-out ratings are those of ``with_validation``: a tenth of ``mnar_train``, which the second fit sees, or the
    split's own ``mnar_valid``, which neither fit sees. No MCAR rating decides when to stop.

    Parameters
    ----------
    make
        ``make(split, seed)`` returns an untrained learner; called twice.
    patience
        Passes in a row without a lower validation loss after which the first fit ends.
    max_epochs
        Passes after which it ends at the latest.

    Raises
    ------
    DivergedError
        If a training loss is not finite.
    """
    learner, best, best_epoch = make(with_validation(split, seed), seed), math.inf, 0
    for epoch in range(max_epochs):
        _run(learner, epoch)
        loss = learner.validation_loss()
        if loss < best:
            best, best_epoch = loss, epoch
        if epoch - best_epoch >= patience:
            break
    final = make(split, seed)
    for epoch in range(best_epoch + 1):
        _run(final, epoch)
    return final


def _run(learner: Learner, epoch: int) -> None:
    loss = learner.run_epoch(epoch)
    if not math.isfinite(loss):
        raise DivergedError(
            f"{type(learner).__name__}: the loss is not finite in pass {epoch + 1}; lower learning_rate"
        )


def squared_error(log: RatingLog, predicted: NDArray[np.floating]) -> float:
    """Return the mean squared error of predictions for the ratings of a log, (n,), clipped to its scale first."""
    return float(np.square(log.scale.clip(predicted) - log.ratings).mean())


def batches(n: int, size: int, seed: int, *name: str | int) -> Iterator[NDArray[np.int64]]:
    """Yield 0..n-1 in a random order, ``size`` at a time; the stream ``name`` of ``seed`` decides the order."""
    order = numpy_generator(seed, *name).permutation(n)
    for start in range(0, n, size):
        yield order[start : start + size]


def seeded(make: Callable[[], M], seed: int, *name: str | int) -> M:
    """Return a module whose starting weights come from the stream ``name`` of ``seed``, global generators untouched."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(torch_seed(seed, *name))
        return make()


def check_positive(**settings: float) -> None:
    """Raise ConfigError unless every setting is a finite number above 0."""
    for label, value in settings.items():
        if not 0.0 < value < math.inf:
            raise ConfigError(f"{label} must be a number above 0; found {value}. Give a positive one")
