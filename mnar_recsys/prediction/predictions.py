"""What is predicted of pairs of users and items."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

UNKNOWN = -1
"""Index of a user or item outside the log."""


@dataclass(frozen=True)
class Predictions:
    """Of n pairs, in the order asked for; rating points unless said otherwise."""

    mean: NDArray[np.float32]
    sd: NDArray[np.float32]
    """of a rating"""
    mean_se: NDArray[np.float32]
    """of its expectation: what more ratings of this person, and on small logs of the items, would settle"""
    quantiles: NDArray[np.float32]
    """(q, n)"""
    levels: NDArray[np.float32] | None
    """(n, R) probability of each rating level"""
    propensity: NDArray[np.float32]
    """probability that the person rates the item by choice, if it is on offer"""
    cold: NDArray[np.bool_]
    """the user or the item was not in the log, or had no rating: the prediction rests on the prior"""
    ess: NDArray[np.float32]
    """effective sample size of the user's draws"""

    @classmethod
    def of_no_pairs(cls, n_quantiles: int, n_levels: int | None) -> Self:
        """Return the predictions of nothing, for so many quantiles and levels (None: no level probabilities)."""
        none = np.zeros(0, dtype=np.float32)
        return cls(
            mean=none,
            sd=none,
            mean_se=none,
            quantiles=np.zeros((n_quantiles, 0), dtype=np.float32),
            levels=None if n_levels is None else np.zeros((0, n_levels), dtype=np.float32),
            propensity=none,
            cold=np.zeros(0, dtype=np.bool_),
            ess=none,
        )
