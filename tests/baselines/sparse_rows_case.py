"""A small log with gaps for the autoencoders, sparse and dense, and networks with weights of order one."""

from typing import TypeVar

import numpy as np
import torch
from factories import log_of, random_matrix
from numpy.typing import NDArray
from torch import Tensor

from baselines.autoencoders import Autoencoder, AutoencoderBaseline, RowBatch, SparseRows
from mnar_recsys.data import RatingLog, RatingScale

A = TypeVar("A", bound=Autoencoder)

MATRIX: NDArray[np.float64] = random_matrix(7, 5, density=0.5, levels=5)
MATRIX[:, 4] = np.nan  # item 4 and user 0 have no ratings
RATED = torch.tensor(~np.isnan(MATRIX))
DENSE = torch.tensor(np.nan_to_num(MATRIX), dtype=torch.float32)


def gap_log() -> RatingLog:
    return log_of(MATRIX, RatingScale(1, 5, 1))


def whole_batch() -> RowBatch:
    """All users of the log as one batch."""
    return SparseRows.of_log(gap_log(), by_item=False).batch(np.arange(7))


def drawn(method: AutoencoderBaseline) -> Autoencoder:
    """The method's network on the log, its weights drawn anew except for the rows of the unknown column."""
    net = method.make_module(SparseRows.of_log(gap_log(), by_item=False))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
        for table in (net.first, net.last, net.last_bias):
            table.weight[-1] = 0.0
    return net


def two_tastes(seed: int = 0) -> tuple[RatingLog, NDArray[np.float64]]:
    """A log in which two kinds of users rate two kinds of items 1.5 or 4.5, and the complete ratings, (80, 40)."""
    rng = np.random.default_rng(seed)
    complete = 3.0 + 1.5 * np.outer(rng.choice([-1, 1], 80), rng.choice([-1, 1], 40))
    rows, columns = np.nonzero(rng.random(complete.shape) < 0.4)
    log = RatingLog.from_arrays(
        rows, columns, complete[rows, columns], scale="1,5,real", user_ids=np.arange(80), catalogue=np.arange(40)
    )
    return log, complete


def gradients_at(tables: list[Tensor], column: int) -> float:
    """The largest gradient in a column's row of the tables."""
    return max(float(table.grad[column].abs().max()) for table in tables if table.grad is not None)
