"""What methods with a model of who rates what share: the loss that tuning minimises, and checks of settings."""

from abc import abstractmethod

import numpy as np
from numpy.typing import NDArray

from baselines.base import Baseline, require_valid
from mnar_recsys.data import RatingLog, Split
from mnar_recsys.errors import ConfigError


class SelectionBaseline(Baseline):
    """A method that models ratings and their selection together."""

    def _validation_loss(self, split: Split) -> float:
        """Return the mean squared error of the ratings expected *given that they were rated*, in squared points.

        The held-out ratings were given by choice, and E[x | rated] under the fitted selection is what the model says of
        such ratings. Comparing the plain prediction with them would favour settings that find no selection.

        Raises
        ------
        DataError
            If the split has no ``mnar_valid``.
        """
        valid = require_valid(split)
        expected = self._expected_if_rated(valid.rows.astype(np.int64), valid.items.astype(np.int64))
        return float(np.square(expected - valid.values).mean())

    @abstractmethod
    def _expected_if_rated(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return E[x | rated] of pairs of known users and items, (n,), in rating points."""


def levels_of(log: RatingLog, who: str) -> NDArray[np.float64]:
    """Return the rating levels, (R,), in rating points; raise ConfigError if the scale has none."""
    if log.scale.levels is None:
        raise ConfigError(
            f"the scale for {who} must have rating levels; found {log.scale.describe()}. "
            "Give one with a step, such as 1,5,1"
        )
    return log.scale.levels
