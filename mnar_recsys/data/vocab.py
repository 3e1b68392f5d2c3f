"""Original ids and their indices."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from mnar_recsys.data.ids import IdArray, IdKind, Place, array_position, as_id_array
from mnar_recsys.errors import DataError


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The distinct ids of users or items, sorted; an id's index is its position.

    Attributes
    ----------
    ids : int64 array, or object array of str, (V,)
        Sorted, unique, read-only. Build one with `from_ids`; the constructor expects this form.
    label : str
        What the ids are of (``user``, ``item``); used in messages only.
    """

    ids: IdArray
    label: str = "id"

    def __post_init__(self) -> None:
        kind = self.ids.dtype.kind
        if self.ids.ndim != 1 or kind not in "iO" or not bool(np.all(self.ids[1:] > self.ids[:-1])):
            raise DataError(
                f"{self.label} ids must be sorted and unique int64 or str; build them with Vocabulary.from_ids"
            )
        ids = self.ids.view() if kind == "O" else self.ids.astype(np.int64).view()
        ids.flags.writeable = False
        object.__setattr__(self, "ids", ids)

    @classmethod
    def from_ids(cls, values: Any, label: str = "id") -> "Vocabulary":
        """Return the vocabulary of the distinct entries of ``values``, which must be whole numbers or text.

        Raises
        ------
        DataError
            If there is no id, or one is empty, missing or a float, or whole numbers and text are mixed.
        """
        return cls.encode(values, label)[0]

    @classmethod
    def encode(
        cls, values: Any, label: str = "id", place: Place = array_position
    ) -> tuple["Vocabulary", NDArray[np.int64]]:
        """Return the vocabulary of ``values`` and the index of each entry, (n,)."""
        ids = as_id_array(values, label, place)
        if ids.size == 0:
            raise DataError(f"at least one {label} id is needed; found none")
        codes, distinct = pd.factorize(ids)
        return cls.from_distinct(np.asarray(distinct), codes, label)

    @classmethod
    def from_distinct(
        cls, distinct: IdArray, codes: NDArray[np.integer[Any]], label: str = "id"
    ) -> tuple["Vocabulary", NDArray[np.int64]]:
        """Sort ``distinct`` unique ids and renumber ``codes``, which point into them."""
        order = np.argsort(distinct, kind="stable")
        rank = np.empty(len(order), dtype=np.int64)
        rank[order] = np.arange(len(order))
        return cls(distinct[order], label), rank[codes]

    def __len__(self) -> int:
        return len(self.ids)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.is_text == other.is_text and np.array_equal(self.ids, other.ids)

    def __hash__(self) -> int:
        return hash((self.is_text, len(self), self.ids[:1].tolist()[0] if len(self) else None))

    @property
    def is_text(self) -> bool:
        """Whether the ids are text rather than whole numbers."""
        return self.ids.dtype.kind == "O"

    @property
    def kind(self) -> IdKind:
        """``text`` or ``integer``."""
        return "text" if self.is_text else "integer"

    @cached_property
    def _text_index(self) -> "pd.Index[Any]":
        return pd.Index(self.ids, dtype=object)

    def index(self, ids: Any) -> NDArray[np.int64]:
        """Return the index of each id, (n,); -1 where an id is not in the vocabulary.

        Raises
        ------
        DataError
            If the ids are of the other kind: text for whole numbers would otherwise all be unknown without a
            word.
        """
        wanted = as_id_array(ids, self.label)
        if wanted.size == 0:
            return np.empty(0, dtype=np.int64)
        self._check_kind(wanted)
        if self.is_text:
            return self._text_index.get_indexer(pd.Index(wanted, dtype=object)).astype(np.int64)
        places = np.searchsorted(self.ids, wanted)
        places[places == len(self)] = 0
        return np.where(self.ids[places] == wanted, places, -1)

    def _check_kind(self, wanted: IdArray) -> None:
        if (wanted.dtype.kind == "O") == self.is_text:
            return
        found = "text" if wanted.dtype.kind == "O" else "whole numbers"
        expected = "text" if self.is_text else "whole numbers"
        remedy = "convert them with str()" if self.is_text else "convert them with int()"
        raise DataError(
            f"{self.label} ids must be {expected}, such as {self.ids.tolist()[0]!r}; found {found}, such as"
            f" {wanted.tolist()[0]!r}."
            f" They would all be unknown: {remedy}"
        )

    def take(self, indices: ArrayLike) -> IdArray:
        """Return the ids at ``indices``; an index outside 0..V-1 is an error, not a wrapped-around id."""
        places = np.asarray(indices, dtype=np.int64)
        outside = (places < 0) | (places >= len(self))
        if outside.any():
            found = int(places[outside][0])
            raise DataError(f"{self.label} index must be from 0 to {len(self) - 1}; found {found}")
        return self.ids[places]

    def union(self, other: "Vocabulary") -> "Vocabulary":
        """Return the vocabulary of the ids of both, which must be of one kind."""
        if self == other:
            return self
        self._check_kind(other.ids)
        return Vocabulary(np.unique(np.concatenate([self.ids, other.ids])), self.label)
