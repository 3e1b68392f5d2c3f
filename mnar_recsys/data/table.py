"""Ratings as a reader found them, one row each, before they become a log."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnar_recsys.checks import as_finite, check_same_length
from mnar_recsys.data.features import FeatureTable
from mnar_recsys.data.ids import Place, array_position
from mnar_recsys.data.scale import RatingScale
from mnar_recsys.data.vocab import Vocabulary
from mnar_recsys.errors import DataError


@dataclass(frozen=True, eq=False)
class RatingTable:
    """The columns of a rating file or frame, n rows in the order of the source.

    Attributes
    ----------
    users, items : Vocabulary
    user_codes, item_codes : int64 array, (n,)
        Indices into ``users`` and ``items``.
    ratings : float64 array, (n,)
        In rating points, finite.
    timestamps : float64 array, (n,), or None
        Seconds, or any other number that grows with time.
    place : callable
        Names where a row stands in the source, for messages.
    scale : RatingScale or None
        The scale that the layout prescribes.
    source : str
        Prefix for messages about the whole source: ``ratings.csv:`` and a space for a file, empty for arrays.
    notes : tuple of str
        What the reader has to say about the source.
    """

    users: Vocabulary
    items: Vocabulary
    user_codes: NDArray[np.int64]
    item_codes: NDArray[np.int64]
    ratings: NDArray[np.float64]
    timestamps: NDArray[np.float64] | None = None
    place: Place = array_position
    scale: RatingScale | None = None
    source: str = ""
    notes: tuple[str, ...] = ()
    user_features: FeatureTable | None = None
    item_features: FeatureTable | None = None

    @classmethod
    def from_arrays(
        cls,
        users: Any,
        items: Any,
        ratings: Any,
        timestamps: Any = None,
        *,
        user_ids: Any = None,
        catalogue: Any = None,
    ) -> "RatingTable":
        """Check and encode parallel arrays; ``user_ids`` and ``catalogue`` are the whole vocabularies."""
        values = as_finite("ratings", ratings)
        times = None if timestamps is None else as_finite("timestamps", timestamps)
        user_vocabulary, user_codes = _encode(users, "user", user_ids)
        item_vocabulary, item_codes = _encode(items, "item", catalogue)
        columns = {"users": user_codes, "items": item_codes, "ratings": values}
        check_same_length(**columns, **({} if times is None else {"timestamps": times}))
        return cls(user_vocabulary, item_vocabulary, user_codes, item_codes, values, times)

    def take(self, rows: NDArray[np.int64]) -> "RatingTable":
        """Return the table with only the given rows, in that order; places are then no longer meaningful."""
        return replace(
            self,
            user_codes=self.user_codes[rows],
            item_codes=self.item_codes[rows],
            ratings=self.ratings[rows],
            timestamps=None if self.timestamps is None else self.timestamps[rows],
        )

    def with_notes(self, notes: tuple[str, ...]) -> "RatingTable":
        """Return the table with other notes."""
        return replace(self, notes=notes)

    def with_ratings(self, ratings: NDArray[np.float64]) -> "RatingTable":
        """Return the table with other ratings for the same rows."""
        return replace(self, ratings=ratings)

    def check_size(self, *, users_given: bool = False, items_given: bool = False) -> None:
        """Raise DataError unless there are a rating, two users and two items: fewer show no selection.

        Where the caller gave all users or all items, a single one of them is meant.
        """
        if not len(self.ratings):
            raise DataError(f"{self.source}there is no rating; at least one is needed")
        for label, vocabulary, is_given in (
            ("user", self.users, users_given),
            ("item", self.items, items_given),
        ):
            if len(vocabulary) < 2 and not is_given:
                raise DataError(
                    f"{self.source}all ratings are of one {label}, {vocabulary.ids.tolist()[0]!r};"
                    f" at least two {label}s are needed. Check that the {label} column is the right one"
                )

    def resolve_scale(self, scale: RatingScale | str | None) -> tuple[RatingScale, str]:
        """Return the scale given, else the layout's, else the one inferred, and a note that says which.

        Raises
        ------
        DataError
            If a rating is not on it, naming the first, or if none can be inferred.
        """
        if isinstance(scale, RatingScale):
            chosen, origin = scale, "given"
        elif scale is not None:
            chosen, origin = RatingScale.parse(scale, self.ratings), "given"
        elif self.scale is not None:
            chosen, origin = self.scale, "of this layout"
        else:
            chosen, origin = self._infer_scale(), "inferred from the ratings; give the scale if it is another"
        chosen.check(self.ratings, place=self.place)
        return chosen, f"scale: {chosen.describe()} ({origin})"

    def _infer_scale(self) -> RatingScale:
        try:
            return RatingScale.infer(self.ratings)
        except DataError as error:
            raise DataError(f"{self.source}{error}") from error


def _encode(values: Any, label: str, whole: Any) -> tuple[Vocabulary, NDArray[np.int64]]:
    if whole is None:
        return Vocabulary.encode(values, label)
    vocabulary = whole if isinstance(whole, Vocabulary) else Vocabulary.from_ids(whole, label)
    codes = vocabulary.index(values)
    if (codes < 0).any():
        row = int(np.argmax(codes < 0))
        raise DataError(
            f"{array_position(row)}: the {label} is not among the {len(vocabulary)} {label} ids given. Add it to them"
        )
    return vocabulary, codes
