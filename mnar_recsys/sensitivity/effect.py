"""What another selection changes for those who use the predictions."""

import numpy as np
from numpy.typing import NDArray

from mnar_recsys.model.mnar_vae import MnarVae
from mnar_recsys.model_folder import FittedModel
from mnar_recsys.prediction import Predictor
from mnar_recsys.sensitivity.verdict import TOP_N


class Effect:
    """The mean, the marginal, and the best items of some users, against those of the fitted model.

    Parameters
    ----------
    users : ndarray
        Whose cells are predicted.
    """

    def __init__(self, fitted: FittedModel, users: NDArray[np.int64]) -> None:
        self._log = fitted.log
        rows, items = (part.ravel() for part in np.meshgrid(users, np.arange(self._log.n_items), indexing="ij"))
        self._rows, self._items = rows, items
        self._unrated = ~np.isin(rows * self._log.n_items + items, self._log.cells)
        self._best, *_ = self._predict(fitted.model)

    def of(self, model: MnarVae) -> tuple[float, tuple[float, ...] | None, float]:
        """Return mean and marginal of the unrated cells, and the share of the best items that stay."""
        best, mean, marginal = self._predict(model)
        shared = [len(np.intersect1d(one, other)) for one, other in zip(best, self._best, strict=True)]
        return mean, marginal, float(np.sum(shared)) / best.size

    def _predict(self, model: MnarVae) -> tuple[NDArray[np.int64], float, tuple[float, ...] | None]:
        has_levels = self._log.scale.levels is not None
        found = Predictor(model, self._log, draws=32).predict(self._rows, self._items, levels=has_levels)
        unrated = self._unrated
        scores = np.where(unrated, found.mean, -np.inf).reshape(-1, self._log.n_items)
        best = np.argsort(-scores, axis=1, kind="stable")[:, :TOP_N]
        marginal = None if found.levels is None else tuple(map(float, found.levels[unrated].mean(0)))
        return best, float(found.mean[unrated].mean()), marginal
