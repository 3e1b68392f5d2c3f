"""What the autoencoders share: sparse rows of ratings, and training on batches of rows."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from baselines.base import Baseline, require_valid
from baselines.fitting import batches, check_positive, fit_to_convergence, seeded, squared_error
from baselines.heads import predict_pairs, zero_unused
from mnar_recsys.data import RatingLog, Split
from mnar_recsys.rng import torch_seed

_ROWS_AT_ONCE = 1000


@dataclass(frozen=True, eq=False)
class RowBatch:
    """The ratings of B rows, n of them, none stored for what is unrated.

    Attributes
    ----------
    starts
        Where each row's ratings begin, (B,).
    owners
        Position in the batch of each rating's row, (n,).
    columns
        Column of each rating, (n,).
    values
        Rating points, (n,).
    """

    starts: Tensor
    owners: Tensor
    columns: Tensor
    values: Tensor


@dataclass(frozen=True, eq=False)
class SparseRows:
    """Ratings in compressed rows: a row is a user and a column an item, or the other way round.

    Row M and column C stand for the unknown and have no rating.
    """

    indptr: NDArray[np.int64]  # (M + 2,)
    columns: NDArray[np.int64]  # (n,)
    values: NDArray[np.float32]  # (n,)
    n_columns: int

    @classmethod
    def of_log(cls, log: RatingLog, *, by_item: bool) -> Self:
        """Return the rows of a log's users, or of its items."""
        matrix = log.to_scipy()
        rows = (matrix.T if by_item else matrix).tocsr()
        indptr = np.append(rows.indptr, rows.indptr[-1]).astype(np.int64)
        return cls(indptr, rows.indices.astype(np.int64), rows.data, rows.shape[1])

    @property
    def rated(self) -> NDArray[np.int64]:
        """The rows with ratings."""
        return np.flatnonzero(np.diff(self.indptr))

    def batch(self, rows: NDArray[np.int64]) -> RowBatch:
        """Return the ratings of the given rows."""
        counts = np.diff(self.indptr)[rows]
        starts = np.cumsum(counts) - counts
        entries = np.arange(counts.sum()) + np.repeat(self.indptr[rows] - starts, counts)
        return RowBatch(
            torch.from_numpy(starts),
            torch.from_numpy(np.repeat(np.arange(len(rows)), counts)),
            torch.from_numpy(self.columns[entries]),
            torch.from_numpy(self.values[entries]),
        )


class Autoencoder(nn.Module, ABC):
    """A map from a row's ratings to a code, and from the code to the rating of any column.

    The output weights have a row of zeros for the unknown column, and all output biases start at the mean rating: an
    unknown column is predicted at the mean. A row without ratings is encoded as any other, from the biases alone.

    Parameters
    ----------
    n_columns
        Number of columns C.
    hidden
        Number of units next to the input and to the output.
    mean
        The mean rating, in rating points.
    """

    def __init__(self, n_columns: int, hidden: int, mean: float) -> None:
        super().__init__()
        self.first = nn.EmbeddingBag(n_columns + 1, hidden, mode="sum", padding_idx=n_columns)
        self.first_bias = nn.Parameter(torch.zeros(hidden))
        self.last = nn.Embedding(n_columns + 1, hidden, padding_idx=n_columns)
        self.last_bias = nn.Embedding(n_columns + 1, 1, padding_idx=n_columns)
        with torch.no_grad():
            for table, spread in ((self.first, 0.05), (self.last, 0.01)):
                table.weight.normal_(std=spread)
                table.weight[-1] = 0.0
            self.last_bias.weight.fill_(mean)

    @abstractmethod
    def encode(self, batch: RowBatch) -> Tensor:
        """Return the units next to the output, without noise, (B, H)."""

    @abstractmethod
    def loss(self, batch: RowBatch, epoch: int, noise: torch.Generator) -> Tensor:
        """Return what a step in pass ``epoch`` (from 0) minimises, a scalar. Only rated cells enter."""

    def decode(self, units: Tensor, owners: Tensor, columns: Tensor) -> Tensor:
        """Return ratings of (row, column) pairs: units (B, H), (n,), (n,) -> (n,)."""
        taste: Tensor = (units.index_select(0, owners) * self.last(columns)).sum(-1)
        bias: Tensor = self.last_bias(columns).squeeze(-1)
        return taste + bias


class AutoencoderBaseline(Baseline):
    """A method that reconstructs rows of ratings from themselves.

    Parameters
    ----------
    hidden
        Number of hidden units.
    learning_rate
        Adam's step size.
    batch_size
        Rows per step.
    patience
        Passes without a smaller held-out error before training stops.

    Raises
    ------
    ConfigError
        If a setting is not above 0.
    """

    by_item = False
    """Whether a row is an item with the ratings of its users, rather than a user with the ratings of items."""

    def __init__(self, *, hidden: int, learning_rate: float, batch_size: int, patience: int) -> None:
        check_positive(hidden=hidden, learning_rate=learning_rate, batch_size=batch_size, patience=patience)
        self.hidden = hidden
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.patience = patience

    @abstractmethod
    def make_module(self, rows: SparseRows) -> Autoencoder:
        """Return an untrained module for these rows; its weights may be drawn from torch's global generator."""

    def _fit(self, split: Split, seed: int) -> None:
        learner = fit_to_convergence(
            lambda part, seed: AutoencoderLearner(self, part, seed), split, seed, patience=self.patience
        )
        # Columns that no training rating is in were never trained.
        zero_unused(learner.module.last, torch.from_numpy(learner.rows.columns))
        self._learner = learner

    def _predict(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float64]:
        return self._learner.predict(rows, columns)


class AutoencoderLearner:
    """An autoencoder with the rows it is trained on. Time and memory follow the number of ratings."""

    def __init__(self, method: AutoencoderBaseline, split: Split, seed: int) -> None:
        self.method, self.split, self.seed = method, split, seed
        self.rows = SparseRows.of_log(split.mnar_train, by_item=method.by_item)
        self.module = seeded(lambda: method.make_module(self.rows), seed, "autoencoder", "start")
        self.optimizer = torch.optim.Adam(self.module.parameters(), lr=method.learning_rate)

    def run_epoch(self, epoch: int) -> float:
        """Make one pass over the rows with ratings, in a random order."""
        rated, total = self.rows.rated, 0.0
        noise = torch.Generator().manual_seed(torch_seed(self.seed, "autoencoder", "noise", epoch))
        for order in batches(len(rated), self.method.batch_size, self.seed, "autoencoder", "order", epoch):
            loss = self.module.loss(self.rows.batch(rated[order]), epoch, noise)
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            total += float(loss.detach()) * len(order)
        return total / len(rated)

    def validation_loss(self) -> float:
        """Return the squared error on the held-out ratings, each row encoded from its training ratings."""
        valid = require_valid(self.split)
        return squared_error(valid, self.predict(valid.rows.astype(np.int64), valid.items.astype(np.int64)))

    def predict(self, users: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return ratings of pairs of indices, (n,)."""
        rows, columns = (items, users) if self.method.by_item else (users, items)
        units = self._units()
        return predict_pairs(lambda owners, at: self.module.decode(units, owners, at), rows, columns)

    @torch.no_grad()
    def _units(self) -> Tensor:
        """Return the units next to the output of every row and of an unknown one, (M + 1, H)."""
        everyone = np.arange(len(self.rows.indptr) - 1)
        blocks = (everyone[start : start + _ROWS_AT_ONCE] for start in range(0, len(everyone), _ROWS_AT_ONCE))
        return torch.cat([self.module.encode(self.rows.batch(block)) for block in blocks])
