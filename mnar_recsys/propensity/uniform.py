"""The same propensity for every cell."""

import numpy as np
from numpy.typing import NDArray

from mnar_recsys.data import Split
from mnar_recsys.propensity.base import PropensityModel
from mnar_recsys.propensity.mask import share_rated


class Uniform(PropensityModel):
    """P(s = 1) = n / (N P), the share of cells rated: weighing by it changes nothing but the scale."""

    share: float

    def _fit(self, split: Split, seed: int) -> None:  # noqa: ARG002
        self.share = share_rated(split.mnar_train)

    def _propensity(self, rows: NDArray[np.integer], columns: NDArray[np.integer]) -> NDArray[np.float64]:  # noqa: ARG002
        return np.full(len(rows), self.share)
