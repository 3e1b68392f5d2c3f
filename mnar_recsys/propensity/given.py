"""Propensities that are known, or were fitted elsewhere."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mnar_recsys.checks import check_same_length
from mnar_recsys.data import Split
from mnar_recsys.propensity.base import PropensityModel
from mnar_recsys.propensity.checks import as_propensities

GivenFunction = Callable[
    [NDArray[np.integer], NDArray[np.integer], NDArray[np.floating] | None],
    NDArray[np.floating],
]
"""Indices of users and items and perhaps ratings, each (n,) -> P(s = 1), (n,)."""


class GivenPropensity(PropensityModel):
    """A function behind the interface of a propensity model: a simulator's truth, or a fitted joint model.

    Parameters
    ----------
    function
        (rows, columns, ratings) -> P(s = 1), each (n,), by the indices of the split that ``fit`` gets; ``ratings`` is
        None unless ``depends_on_rating``.
    depends_on_rating
        Whether the function reads the ratings.
    """

    def __init__(self, function: GivenFunction, *, depends_on_rating: bool) -> None:
        self.function = function
        self.depends_on_rating = depends_on_rating

    def _fit(self, split: Split, seed: int) -> None:
        """Nothing is left to fit."""

    def _propensity(self, rows: NDArray[np.integer], columns: NDArray[np.integer]) -> NDArray[np.float64]:
        return self._checked(rows, columns, None)

    def _propensity_given(
        self, rows: NDArray[np.integer], columns: NDArray[np.integer], ratings: NDArray[np.floating]
    ) -> NDArray[np.float64]:
        return self._checked(rows, columns, ratings)

    def _checked(
        self, rows: NDArray[np.integer], columns: NDArray[np.integer], ratings: NDArray[np.floating] | None
    ) -> NDArray[np.float64]:
        values = as_propensities(self.function(rows, columns, ratings))
        check_same_length(rows=rows, propensities=values)
        return values
