"""What a log says of pairs before any model does: rated, unrated, not on offer, or of someone without ratings."""

import numpy as np
from numpy.typing import NDArray

from mnar_recsys.data import RatingLog
from mnar_recsys.prediction.cells import RATED, UNRATED, UNTILTED
from mnar_recsys.prediction.predictions import UNKNOWN


class KnownCells:
    """The cells of a log; pairs are indices into its users and catalogue, ``UNKNOWN`` outside, each (n,)."""

    def __init__(self, log: RatingLog) -> None:
        self._log = log
        self._n_ratings = np.diff(log.indptr)
        # One key a rated cell; sorted, because users and the items inside a user are.
        self._rated_keys = log.chosen.cells

    def status(self, users: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return what the mask says of each pair: RATED, UNRATED, or UNTILTED where it says nothing."""
        keys = users * self._log.n_items + items
        place = np.minimum(np.searchsorted(self._rated_keys, keys), len(self._rated_keys) - 1)
        rated = self._rated_keys[place] == keys
        is_silent = self._have_no_ratings(users)
        if self._log.eligible is not None:  # that a rating is missing which nobody could give says nothing
            is_silent |= ~self._log.eligible.contains(keys)
        return np.where(is_silent, UNTILTED, np.where(rated, RATED, UNRATED))

    def is_cold(
        self, users: NDArray[np.int64], items: NDArray[np.int64], trained_items: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """Return which pairs rest on the prior: of a user without ratings, or an item that none was learned from."""
        return np.asarray(self._have_no_ratings(users) | (items == UNKNOWN) | ~trained_items[items])

    def _have_no_ratings(self, users: NDArray[np.int64]) -> NDArray[np.bool_]:
        return np.asarray((users == UNKNOWN) | (self._n_ratings[users] == 0))
