"""Ragged batches of users: the observed pairs only, no dense user x item array."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import embedding, pad

from mnar_recsys.data import RatingLog
from mnar_recsys.data.eligible import EligibleCells, row_entries

# Users with fewer ratings are padded to so many: small products cost a call each, whatever their size.
_SMALLEST_BUCKET = 16


@dataclass(frozen=True)
class _Buckets:
    """Users with about as many ratings, padded to the same number m: b users in each of several buckets."""

    sizes: list[tuple[int, int]]
    """(b, m) of each bucket"""
    users: Tensor
    """rows of the batch, one bucket after the other; users without ratings are in none"""
    pairs: Tensor
    """positions of their pairs, m for each user; padding repeats position 0"""
    place: Tensor
    """(n,) where each pair stands in ``pairs``"""


@dataclass(frozen=True)
class EligibleBatch:
    """The cells of B users that were on offer, sorted by row."""

    rows: Tensor
    """(m,) in 0..B-1"""
    items: Tensor
    """(m,) in 0..P-1"""
    counts: NDArray[np.int64]
    """(B,) on the CPU"""
    known: Tensor
    """(n,) 1 where the cell of a known rating is among them: of a survey's ratings, some may not be"""

    def among(self, items: Tensor) -> "EligibleBatch":
        """Return those of ``items`` only, which rise."""
        place = torch.searchsorted(items, self.items).clamp_max(len(items) - 1)
        kept = items[place] == self.items
        rows = self.rows[kept]
        return EligibleBatch(rows, place[kept], np.bincount(rows.cpu(), minlength=len(self.counts)), self.known)


@dataclass(frozen=True)
class UserBatch:
    """The ratings of B users as n pairs, sorted by row.

    ``rows`` (n,) in 0..B-1, ``items`` (n,) in 0..P-1, ``ratings`` (n,) in rating points, ``counts`` (B,) on the CPU;
    ``surveyed`` (n,) is 1 where a rating was collected at random, 0 where it was given by choice, as are all if None;
    ``eligible`` are the cells that were on offer, None where all were;
    ``user_features`` (B, F) as in the log, nan where a user's are not known, or None. Where the P items are some of a
    larger catalogue, ``item_weights`` (P,) says how many of its items each stands for, and ``drawn`` (M,) which stand
    for any: the others are there because they have been rated.
    """

    rows: Tensor
    items: Tensor
    ratings: Tensor
    counts: NDArray[np.int64]
    surveyed: Tensor | None = None
    eligible: EligibleBatch | None = None
    user_features: Tensor | None = None
    item_weights: Tensor | None = None
    drawn: Tensor | None = None

    @property
    def n_users(self) -> int:
        """Number of users B."""
        return len(self.counts)

    def block(self, start: int, stop: int) -> "UserBatch":
        """Return the users ``start`` to ``stop`` as a batch of their own."""
        pairs, eligible = _slice(self.counts, start, stop), self.eligible
        if eligible is not None:
            cells = _slice(eligible.counts, start, stop)
            eligible = EligibleBatch(
                eligible.rows[cells] - start, eligible.items[cells], eligible.counts[start:stop], eligible.known[pairs]
            )
        return UserBatch(
            self.rows[pairs] - start,
            self.items[pairs],
            self.ratings[pairs],
            self.counts[start:stop],
            None if self.surveyed is None else self.surveyed[pairs],
            eligible,
            None if self.user_features is None else self.user_features[start:stop],
            item_weights=self.item_weights,
            drawn=self.drawn,
        )

    def among(self, items: Tensor, item_weights: Tensor) -> "UserBatch":
        """Return the batch in a catalogue of ``items`` only: rising, all of the batch's among them."""
        return replace(
            self,
            items=torch.searchsorted(items, self.items),
            eligible=None if self.eligible is None else self.eligible.among(items),
            item_weights=item_weights,
            drawn=torch.nonzero(item_weights).squeeze(1),
        )

    def after_a_stranger(self) -> "UserBatch":
        """Return the batch with a first user of whom nothing is known."""
        features, eligible = self.user_features, self.eligible
        if eligible is not None:
            eligible = replace(eligible, rows=eligible.rows + 1, counts=np.append(0, eligible.counts))
        return replace(
            self,
            rows=self.rows + 1,
            counts=np.append(0, self.counts),
            eligible=eligible,
            user_features=None if features is None else pad(features, (0, 0, 1, 0), value=torch.nan),
        )

    def sum_by_user(self, values: Tensor) -> Tensor:
        """Sum values of pairs (..., n) over each user's pairs: (..., B)."""
        total = values.new_zeros((*values.shape[:-1], self.n_users))
        return total.scatter_add(-1, self.rows.expand_as(values), values)

    def unrated(self, n_items: int) -> Tensor:
        """Return 1 where a cell was on offer and its rating is unknown, else 0: (B, P). For blocks of users only.

        Of drawn items, how many unknown ratings a cell stands for: (B, M).
        """
        if self.eligible is None:
            mask = self.unknown(n_items)
        else:
            mask = torch.zeros(self.n_users, n_items, device=self.rows.device)
            mask[self.eligible.rows, self.eligible.items] = 1.0
            mask[self.rows, self.items] = 0.0
        if self.item_weights is None or self.drawn is None:
            return mask
        return mask.index_select(1, self.drawn) * self.item_weights.index_select(0, self.drawn)

    def unknown(self, n_items: int) -> Tensor:
        """Return 1 where a cell's rating is unknown, on offer or not, else 0: (B, P). For blocks of users only."""
        mask = torch.ones(self.n_users, n_items, device=self.rows.device)
        mask[self.rows, self.items] = 0.0
        return mask

    def pair_products(self, z: Tensor, weight: Tensor) -> Tensor:
        """Inner products of each pair's user and item: z (S, B, K), weight (C, P, K) -> (S, C, n).

        One matrix product a bucket of users. A gather of z for each pair would move S x K numbers a pair, and one
        small product a pair or a user drowns in call overhead; so do gathers for each bucket.
        """
        S, _, K = z.shape
        C, P, _ = weight.shape
        if not len(self.rows):
            return z.new_zeros(S, C, 0)
        buckets = self._buckets
        item_rows = embedding(self.items[buckets.pairs], weight.transpose(0, 1).reshape(P, C * K))
        by_user = z.permute(1, 2, 0).index_select(0, buckets.users)  # (users, K, S)
        parts = []
        for (b, m), rows, tastes in zip(
            buckets.sizes,
            torch.split(item_rows, [b * m for b, m in buckets.sizes]),
            torch.split(by_user, [b for b, _ in buckets.sizes]),
            strict=True,
        ):
            products = torch.bmm(rows.view(b, m * C, K), tastes)  # (b, m * C, S)
            parts.append(products.view(b * m, C, S))
        return torch.cat(parts).index_select(0, buckets.place).permute(2, 1, 0)

    @cached_property
    def _buckets(self) -> _Buckets:
        """Users grouped by the power of two above their count."""
        starts = np.cumsum(self.counts) - self.counts
        width = np.maximum(2 ** np.ceil(np.log2(np.maximum(self.counts, 1))).astype(np.int64), _SMALLEST_BUCKET)
        width[self.counts == 0] = 0
        sizes, users, padded = [], [], []
        place = np.empty(len(self.rows), dtype=np.int64)
        done = 0
        for m in np.unique(width[width > 0]):
            members = np.flatnonzero(width == m)
            is_pair = np.arange(m) < self.counts[members][:, None]
            pairs = np.where(is_pair, starts[members][:, None] + np.arange(m), 0)
            place[pairs[is_pair]] = done + np.flatnonzero(is_pair)
            sizes.append((len(members), int(m)))
            users.append(members)
            padded.append(pairs.ravel())
            done += pairs.size
        found = (np.concatenate(users), np.concatenate(padded), place)
        return _Buckets(sizes, *(_sent(array, self.rows.device) for array in found))


def make_batch(log: RatingLog, users: NDArray[np.integer], device: torch.device | None = None) -> UserBatch:
    """Gather the ratings of ``users`` (indices into ``log``, any order) in one vectorised pass."""
    users = np.asarray(users, dtype=np.int64)
    indptr, pairs = row_entries(log.indptr, users)
    counts, features = np.diff(indptr), log.user_features
    rows = np.repeat(np.arange(len(users)), counts)
    items = log.items[pairs].astype(np.int64)
    return UserBatch(
        rows=_sent(rows, device),
        items=_sent(items, device),
        ratings=_sent(log.ratings[pairs].astype(np.float32), device),
        counts=counts,
        surveyed=None if log.surveyed is None else _sent(log.surveyed[pairs].astype(np.float32), device),
        eligible=None if log.eligible is None else _eligible(log.eligible.take_users(users), rows, items, device),
        user_features=None if features is None else _sent(features.values[users], device),
    )


def _sent(array: NDArray[Any], device: torch.device | None) -> Tensor:
    """Return an array as a tensor on the device; a graphics card fetches it while the processor goes on."""
    tensor = torch.from_numpy(array)
    if device is None or device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def _eligible(
    cells: EligibleCells, rows: NDArray[np.int64], items: NDArray[np.int64], device: torch.device | None
) -> EligibleBatch:
    """Put the cells on offer to the users of a batch beside its pairs."""
    counts = np.diff(cells.indptr)
    known = cells.contains(rows * cells.n_items + items).astype(np.float32)
    return EligibleBatch(
        rows=_sent(np.repeat(np.arange(cells.n_users), counts), device),
        items=_sent(cells.items.astype(np.int64), device),
        counts=counts,
        known=_sent(known, device),
    )


def _slice(counts: NDArray[np.int64], start: int, stop: int) -> slice:
    """Return where the entries of the users ``start`` to ``stop`` stand."""
    first = int(counts[:start].sum())
    return slice(first, first + int(counts[start:stop].sum()))


def iterate_batches(
    log: RatingLog, users: NDArray[np.integer], size: int, device: torch.device | None = None
) -> Iterator[tuple[NDArray[np.integer], UserBatch]]:
    """Yield ``(user indices, batch)`` for ``users`` in order, ``size`` users at a time."""
    for start in range(0, len(users), size):
        chosen = users[start : start + size]
        yield chosen, make_batch(log, chosen, device)


@dataclass(frozen=True)
class DenseBatch(UserBatch):
    """The same for one sample of all users of a small log: it is faster to work out every cell and pick the pairs."""

    def pair_products(self, z: Tensor, weight: Tensor) -> Tensor:
        """Inner products of each pair's user and item: z (S, B, K), weight (C, P, K) -> (S, C, n)."""
        cells = torch.einsum("sbk,cpk->scbp", z, weight)
        return cells.flatten(2).index_select(2, self.rows * weight.shape[1] + self.items)
