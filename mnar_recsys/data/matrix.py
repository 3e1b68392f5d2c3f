"""Ratings in compressed rows, with their ids: the immutable core of a rating log."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from mnar_recsys.checks import check_same_length
from mnar_recsys.data.eligible import EligibleCells, row_entries
from mnar_recsys.data.features import FeatureTable
from mnar_recsys.data.scale import RatingScale
from mnar_recsys.data.vocab import Vocabulary
from mnar_recsys.errors import DataError


@dataclass(frozen=True, eq=False)
class RatingMatrix:
    """Ratings in compressed rows, one row a user; immutable. `RatingLog` adds the ways to build one.

    Attributes
    ----------
    indptr : int64 array, (N + 1,)
        User i's ratings are entries ``indptr[i]:indptr[i + 1]``.
    items : int32 array, (n,)
        Item indices, rising within each user.
    ratings : float32 array, (n,)
        In rating points.
    users, catalogue : Vocabulary
        The original ids of the N users and the P items.
    scale : RatingScale
    timestamps : float64 array, (n,), or None
    surveyed : bool array, (n,), or None
        Where a rating was collected at random instead of given by choice (see ``add_survey``); None where none was.
    eligible : EligibleCells or None
        The cells that were on offer, all rated by choice among them; None where every cell was.
    user_features, item_features : FeatureTable or None
        Rows in the order of ``users`` and of ``catalogue``.
    notes : tuple of str
        What the reader noted: ignored columns, the inferred scale, merged duplicates.
    """

    indptr: NDArray[np.int64]
    items: NDArray[np.int32]
    ratings: NDArray[np.float32]
    users: Vocabulary
    catalogue: Vocabulary
    scale: RatingScale
    timestamps: NDArray[np.float64] | None = None
    surveyed: NDArray[np.bool_] | None = None
    eligible: EligibleCells | None = None
    user_features: FeatureTable | None = None
    item_features: FeatureTable | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._freeze("indptr", np.int64)
        self._freeze("items", np.int32)
        self._freeze("ratings", np.float32)
        self._freeze("timestamps", np.float64)
        self._freeze("surveyed", np.bool_)
        object.__setattr__(self, "notes", tuple(self.notes))
        self._check_rows()
        self._check_features()
        self._check_eligible()

    def _freeze(self, name: str, dtype: type[np.generic]) -> None:
        value = getattr(self, name)
        if value is not None:
            # A view, so that freezing it does not freeze the caller's own array.
            array = np.ascontiguousarray(value, dtype=dtype).view()
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    def _check_rows(self) -> None:
        n_ratings = len(self.ratings)
        if len(self.indptr) != len(self.users) + 1 or self.indptr[0] != 0 or self.indptr[-1] != n_ratings:
            raise DataError(f"indptr must have {len(self.users) + 1} entries from 0 to {n_ratings}")
        parallel = (self.items, self.timestamps, self.surveyed)
        if any(values is not None and len(values) != n_ratings for values in parallel):
            raise DataError(f"items, timestamps and surveyed must have one entry for each of {n_ratings} ratings")
        if n_ratings and (self.items.min() < 0 or self.items.max() >= len(self.catalogue)):
            raise DataError(f"items must be from 0 to {len(self.catalogue) - 1}")
        rises = np.diff(self.items) > 0
        rises[self.indptr[1:-1][(self.indptr[1:-1] > 0) & (self.indptr[1:-1] < n_ratings)] - 1] = True
        if (np.diff(self.indptr) < 0).any() or not rises.all():
            raise DataError("each user's items must be rising, without repeats; use RatingLog.from_arrays to sort them")

    def _check_features(self) -> None:
        for label, table, count in (
            ("user", self.user_features, self.n_users),
            ("item", self.item_features, self.n_items),
        ):
            if table is not None and len(table) != count:
                raise DataError(f"{label} features must have {count} rows, one a {label}; found {len(table)}")

    def _check_eligible(self) -> None:
        if self.eligible is None:
            return
        if (self.eligible.n_users, self.eligible.n_items) != (self.n_users, self.n_items):
            raise DataError(
                f"eligible cells must be of {self.n_users} users and {self.n_items} items; found "
                f"{self.eligible.n_users} and {self.eligible.n_items}"
            )
        outside = ~self.eligible.contains(self.cells)
        if self.surveyed is not None:
            outside &= ~self.surveyed
        if outside.any():
            first = int(np.argmax(outside))
            user, item = self.users.ids[self.rows[first]], self.catalogue.ids[self.items[first]]
            raise DataError(
                f"every rated cell must be among the eligible ones; {int(outside.sum()):,} of {self.n_ratings:,} "
                f"ratings are not, for example user {user}, item {item}. Add these pairs, or remove the ratings"
            )

    @property
    def n_users(self) -> int:
        """The number of users, with or without ratings."""
        return len(self.users)

    @property
    def n_items(self) -> int:
        """The number of items in the catalogue, with or without ratings."""
        return len(self.catalogue)

    @property
    def n_ratings(self) -> int:
        """The number of ratings."""
        return len(self.ratings)

    @cached_property
    def rows(self) -> NDArray[np.int32]:
        """The user index of each rating, (n,)."""
        rows = np.repeat(np.arange(self.n_users, dtype=np.int32), np.diff(self.indptr))
        rows.flags.writeable = False
        return rows

    @property
    def cells(self) -> NDArray[np.int64]:
        """Each rating's cell number, user index * P + item index, (n,), rising."""
        return self.rows.astype(np.int64) * self.n_items + self.items

    @property
    def chosen(self) -> Self:
        """The log of the ratings given by choice: without those of a survey."""
        return self if self.surveyed is None else replace(self.select_ratings(~self.surveyed), surveyed=None)

    def __repr__(self) -> str:
        counts = f"{self.n_ratings} ratings, {self.n_users} users, {self.n_items} items"
        return f"{type(self).__name__}({counts}, {self.scale.describe()})"

    @property
    def values(self) -> NDArray[np.float64]:
        """The ratings as float64, (n,): exact levels where the scale has them (a float32 0.1 is not 0.1)."""
        return self.ratings.astype(np.float64) if self.scale.step is None else self.scale.nearest_level(self.ratings)

    def to_pandas(self) -> pd.DataFrame:
        """Return the columns user, item, rating and, where known, timestamp, sorted by user, then item."""
        columns: dict[str, Any] = {
            "user": self.users.ids[self.rows],
            "item": self.catalogue.ids[self.items],
            "rating": self.values,
        }
        if self.timestamps is not None:
            columns["timestamp"] = self.timestamps.copy()
        return pd.DataFrame(columns)

    def to_scipy(self) -> "sparse.csr_array[Any, tuple[int, int]]":
        """Return the ratings as a matrix, (N, P); a rating of 0 is a stored zero."""
        parts = (self.ratings.copy(), self.items.copy(), self.indptr.copy())
        return sparse.csr_array(parts, shape=(self.n_users, self.n_items))

    def select_users(self, indices: ArrayLike) -> Self:
        """Return the log of the users with the given indices, in the order of their ids; the catalogue stays.

        Raises
        ------
        DataError
            If an index is out of range or repeated.
        """
        wanted = np.sort(np.asarray(indices, dtype=np.int64))
        if len(wanted) and (wanted[0] < 0 or wanted[-1] >= self.n_users or (np.diff(wanted) == 0).any()):
            raise DataError(f"user indices must be distinct and from 0 to {self.n_users - 1}; check them")
        return self._with_entries(
            *row_entries(self.indptr, wanted),
            users=Vocabulary(self.users.ids[wanted], self.users.label),
            eligible=None if self.eligible is None else self.eligible.take_users(wanted),
            user_features=None if self.user_features is None else self.user_features.take(wanted),
        )

    def select_ratings(self, keep: NDArray[np.bool_]) -> Self:
        """Return the log of the ratings where ``keep``, (n,), is true; users and catalogue stay."""
        if keep.dtype != np.bool_ or keep.shape != self.ratings.shape:
            raise DataError(f"keep must be {self.n_ratings} truth values; found {keep.dtype} {keep.shape}")
        indptr = np.concatenate([[0], np.cumsum(keep)])[self.indptr].astype(np.int64)
        return self._with_entries(indptr, np.flatnonzero(keep))

    def _with_entries(self, indptr: NDArray[np.int64], entries: NDArray[np.int64], **changes: Any) -> Self:
        return replace(
            self,
            indptr=indptr,
            items=self.items[entries],
            ratings=self.ratings[entries],
            timestamps=None if self.timestamps is None else self.timestamps[entries],
            surveyed=None if self.surveyed is None else self.surveyed[entries],
            **changes,
        )

    def with_features(
        self, *, user_features: FeatureTable | None = None, item_features: FeatureTable | None = None
    ) -> Self:
        """Return the log with features attached; what is not given stays as it is."""
        return replace(
            self,
            user_features=self.user_features if user_features is None else user_features,
            item_features=self.item_features if item_features is None else item_features,
        )

    def with_eligible(self, user_ids: Any, item_ids: Any) -> Self:
        """Return the log in which only the given pairs of ids, (n,), (n,), were on offer; new ids are added to it.

        A cell outside was neither rated nor left unrated by choice: the likelihood does not look at its mask. Users and
        items added later, as by a survey, have nothing on offer.

        Raises
        ------
        DataError
            If a rating given by choice is not among the pairs, with their number and the first.
        """
        wider = replace(self, eligible=None).reindex(
            self.users.union(Vocabulary.from_ids(user_ids, "user")),
            self.catalogue.union(Vocabulary.from_ids(item_ids, "item")),
        )
        rows, columns = wider.users.index(user_ids), wider.catalogue.index(item_ids)
        check_same_length(users=rows, items=columns)
        cells = rows * wider.n_items + columns
        return replace(wider, eligible=EligibleCells.from_cells(cells, wider.n_users, wider.n_items))

    def with_catalogue(self, item_ids: Any) -> Self:
        """Return the log with more items in its catalogue, unrated; known ones stay as they are."""
        return self.reindex(self.users, self.catalogue.union(Vocabulary.from_ids(item_ids, "item")))

    def reindex(self, users: Vocabulary, catalogue: Vocabulary) -> Self:
        """Return the same ratings under other vocabularies, which must hold all users and items with ratings.

        Users and items that are new get zeros for features, and a note says so.

        Raises
        ------
        DataError
            If a rating's user or item is missing from the new vocabulary: no rating is dropped silently.
        """
        if users == self.users and catalogue == self.catalogue:
            return self
        new_users, new_items = users.index(self.users.ids), catalogue.index(self.catalogue.ids)
        user_codes, item_codes = new_users[self.rows], new_items[self.items]
        for label, codes, old, indices in (
            ("user", user_codes, self.users, self.rows),
            ("item", item_codes, self.catalogue, self.items),
        ):
            if (codes < 0).any():
                lost = old.ids[indices[int(np.argmax(codes < 0))]]
                raise DataError(f"{label} {lost} has ratings but is not in the new {label} ids; add it to them")
        # Both vocabularies are sorted, so the order of users, and of items within a user, does not change.
        counts = np.bincount(user_codes, minlength=len(users))
        user_features, user_notes = _realign("user", self.user_features, self.users, users)
        item_features, item_notes = _realign("item", self.item_features, self.catalogue, catalogue)
        eligible = self.eligible
        if eligible is not None:
            eligible = eligible.reindex(new_users, len(users), new_items, len(catalogue))
        return replace(
            self,
            indptr=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            items=item_codes.astype(np.int32),
            users=users,
            catalogue=catalogue,
            eligible=eligible,
            user_features=user_features,
            item_features=item_features,
            notes=(*self.notes, *user_notes, *item_notes),
        )


def _realign(
    label: str, table: FeatureTable | None, old: Vocabulary, new: Vocabulary
) -> tuple[FeatureTable | None, tuple[str, ...]]:
    if table is None:
        return None, ()
    rows = old.index(new.ids)
    n_new = int((rows < 0).sum())
    return table.take(rows), ((f"{n_new} {label}s without features: zeros",) if n_new else ())
