"""The floor of every table: one number for all pairs."""

from typing import Self

import numpy as np
from numpy.typing import NDArray

from mnar_recsys.checks import check_same_length
from mnar_recsys.data.log import RatingLog
from mnar_recsys.errors import NotFittedError


class ConstantBaseline:
    """Predicts the mean of the ratings it was fitted to.

    Fitted to the self-selected log it is ``constant_train``; fitted to random-exposure labels,
    ``constant_mcar``: between the two lies what a mere shift of the level is worth.
    """

    mean: float | None = None
    """Mean of the training ratings, in rating points."""

    def fit(self, log: RatingLog, *, seed: int) -> Self:  # noqa: ARG002 - nothing is random here
        """Take the mean of the ratings."""
        self.mean = float(log.ratings.mean(dtype=np.float64))
        return self

    def predict(self, users: NDArray[np.generic], items: NDArray[np.generic]) -> NDArray[np.float64]:
        """Return that mean for each pair, (n,), in rating points."""
        if self.mean is None:
            raise NotFittedError("ConstantBaseline must be fitted before it predicts; call fit(log, seed=...)")
        check_same_length(users=np.asarray(users), items=np.asarray(items))
        return np.full(len(users), self.mean)
