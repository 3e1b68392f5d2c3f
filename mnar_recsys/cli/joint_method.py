"""The joint model as methods of the benchmark: the paper's rows of its Table 3, and our default."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from baselines.base import Baseline, require_labels
from mnar_recsys.data import Split
from mnar_recsys.errors import DataError
from mnar_recsys.prediction import UNKNOWN, Predictions
from mnar_recsys.recommender import MNARRecommender


class JointMethod(Baseline):
    """not-MIWAE, or with ``missing="ignorable"`` MIWAE (Mattei & Frellsen 2019), behind the contract of the baselines.

    Parameters
    ----------
    preset
        ``"default"`` or ``"yahoo-r3"``.
    labels
        Whether to train on the split's MCAR labels as well.
    features
        Whether to use the features of the split's users and items.
    **changes
        Settings that differ, as of ``MNARRecommender``.
    """

    has_level_probabilities = True

    def __init__(
        self, preset: str = "default", *, labels: bool = False, features: bool = False, **changes: Any
    ) -> None:
        self.recommender = MNARRecommender(preset, side_information=features, **changes)
        self.labels = labels
        self.features = features

    @property
    def needs_labels(self) -> bool:
        """Whether the labels are in the likelihood."""
        return self.labels

    def _fit(self, split: Split, seed: int) -> None:
        log = split.mnar_train
        if self.features and log.user_features is None and log.item_features is None:
            raise DataError("mnar_features needs features of users or items; the log has none. Give some")
        labels = require_labels(split, "mnar_labels") if self.labels else None
        self.recommender.fit(split.mnar_train, labels=labels, seed=seed)

    def _predict(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float64]:
        return self._predictions(rows, columns).mean.astype(np.float64)

    def _level_probabilities(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float64]:
        levels = self._predictions(rows, columns, levels=True).levels
        return np.asarray(levels, dtype=np.float64)

    def _predictions(self, rows: NDArray[np.int64], columns: NDArray[np.int64], *, levels: bool = False) -> Predictions:
        log = self.recommender.fitted.log
        users = np.where(rows == log.n_users, UNKNOWN, rows)
        items = np.where(columns == log.n_items, UNKNOWN, columns)
        return self.recommender.predictor.predict(users, items, levels=levels)


# The paper's model and sizes (appendix A.3), but stopped on held-out users instead of after 10,000 iterations, which
# Adam at 1e-2 needs a tenth of; the sign of the selection is left free, as there.
_PAPER = {"preset": "yahoo-r3", "learning_rate": 1e-2, "stop": "held-out", "max_steps": 20_000, "evaluate_every": 50}

JOINT_METHODS: Mapping[str, Mapping[str, Any]] = {
    "miwae_gaussian": _PAPER | {"missing": "ignorable"},
    "miwae_categorical": _PAPER | {"decoder": "categorical", "missing": "ignorable"},
    "notmiwae_gaussian": _PAPER,
    "notmiwae_categorical": _PAPER | {"decoder": "categorical"},
    "mnar": {},
    "mnar_features": {"features": True},
    "mnar_labels": {"labels": True},
}
"""Name of a row to the settings of its ``JointMethod``."""
