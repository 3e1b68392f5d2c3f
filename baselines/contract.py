"""What every baseline offers."""

from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from mnar_recsys.data.log import RatingLog


class Baseline(Protocol):
    """A rating predictor: a log in, arrays out.

    ``seed`` decides everything random in a fit. Users and items are given by their original ids; ids that the
    training log does not know are predicted too, from what the method knows without them.
    """

    def fit(self, log: RatingLog, *, seed: int) -> Self:
        """Fit to self-selected ratings and return the fitted baseline itself."""
        ...

    def predict(self, users: NDArray[np.generic], items: NDArray[np.generic]) -> NDArray[np.float64]:
        """Return the predicted rating of each (user, item) pair, (n,), in rating points.

        Raises
        ------
        NotFittedError
            If ``fit`` was not called.
        DataError
            If users and items are not equally long.
        """
        ...
