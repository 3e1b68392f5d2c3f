"""The cells that were on offer: which user could have rated which item."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mnar_recsys.errors import DataError


@dataclass(frozen=True, eq=False)
class EligibleCells:
    """Pairs of user and item that were on offer, in compressed rows, one row a user; immutable.

    Attributes
    ----------
    indptr : int64 array, (N + 1,)
        User i's items are entries ``indptr[i]:indptr[i + 1]``.
    items : int32 array, (m,)
        Item indices, rising within each user.
    n_items : int
        Items P of the catalogue.
    """

    indptr: NDArray[np.int64]
    items: NDArray[np.int32]
    n_items: int

    def __post_init__(self) -> None:
        for name in ("indptr", "items"):
            array: NDArray[np.int64] | NDArray[np.int32] = getattr(self, name).view()
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    @classmethod
    def from_cells(cls, cells: NDArray[np.int64], n_users: int, n_items: int) -> "EligibleCells":
        """Return the set of cell numbers, user index * P + item index, in any order; repeats count once."""
        cells = np.unique(cells)
        if len(cells) and (cells[0] < 0 or cells[-1] >= n_users * n_items):
            raise DataError(f"eligible cells must be from 0 to {n_users * n_items - 1}; found {cells[0]}..{cells[-1]}")
        rows, items = np.divmod(cells, n_items)
        indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=n_users))]).astype(np.int64)
        return cls(indptr, items.astype(np.int32), n_items)

    @property
    def n_users(self) -> int:
        """The number of users N."""
        return len(self.indptr) - 1

    def __len__(self) -> int:
        return len(self.items)

    @cached_property
    def cells(self) -> NDArray[np.int64]:
        """Each pair's cell number, user index * P + item index, (m,), rising."""
        rows = np.repeat(np.arange(self.n_users), np.diff(self.indptr))
        cells: NDArray[np.int64] = rows * self.n_items + self.items
        cells.flags.writeable = False
        return cells

    def contains(self, cells: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return where cell numbers, any shape, are in the set."""
        if not len(self):
            return np.zeros(cells.shape, dtype=bool)
        place = np.minimum(np.searchsorted(self.cells, cells), len(self) - 1)
        return np.asarray(self.cells[place] == cells)

    def users_by_item(self) -> NDArray[np.int64]:
        """Return to how many users each item was on offer, (P,)."""
        return np.bincount(self.items, minlength=self.n_items)

    def take_users(self, users: NDArray[np.integer]) -> "EligibleCells":
        """Return the rows of the given users, in that order."""
        indptr, entries = row_entries(self.indptr, users)
        return EligibleCells(indptr, self.items[entries], self.n_items)

    def reindex(
        self, users: NDArray[np.int64], n_users: int, items: NDArray[np.int64], n_items: int
    ) -> "EligibleCells":
        """Return the set under other vocabularies: new index of each user (N,) and item (P,), -1 where it is gone.

        New users and items have nothing on offer until they are listed.
        """
        rows, columns = np.divmod(self.cells, self.n_items)
        rows, columns = users[rows], items[columns]
        kept = (rows >= 0) & (columns >= 0)
        return self.from_cells(rows[kept] * n_items + columns[kept], n_users, n_items)


def row_entries(indptr: NDArray[np.int64], rows: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the ``indptr`` of chosen rows put below each other, and which entries of the old ones they hold."""
    counts = np.diff(indptr)[rows]
    chosen = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    # Entry t of the selection is entry t - chosen[k] of its row's old place.
    return chosen, np.arange(chosen[-1]) + np.repeat(indptr[rows] - chosen[:-1], counts)
