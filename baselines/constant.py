"""The floor of every table: one number for all pairs."""

import numpy as np
from numpy.typing import NDArray

from baselines.base import Baseline, require_labels
from mnar_recsys.data import Split


class ConstantTrain(Baseline):
    """Predicts the mean of the self-selected ratings."""

    mean: float
    """In rating points."""

    def _fit(self, split: Split, seed: int) -> None:  # noqa: ARG002 - nothing is random here
        self.mean = float(split.mnar_train.ratings.mean(dtype=np.float64))

    def _predict(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float64]:  # noqa: ARG002
        return np.full(len(rows), self.mean)


class ConstantMcar(ConstantTrain):
    """Predicts the mean of the MCAR labels: beside ``ConstantTrain`` it shows what a mere shift of level is worth."""

    uses_labels = True

    def _fit(self, split: Split, seed: int) -> None:  # noqa: ARG002
        self.mean = float(require_labels(split, "constant_mcar").ratings.mean(dtype=np.float64))
