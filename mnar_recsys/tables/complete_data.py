"""Judging a fitted model on complete rows: their likelihood, and how well it tells what is missing (section 4.1)."""

from copy import deepcopy

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from mnar_recsys.errors import DataError
from mnar_recsys.tables.imputer import MNARImputer
from mnar_recsys.tables.stacked import OnStep, train

_ENCODER = ("encoder.", "posterior.")


def mask_accuracy(imputer: MNARImputer, complete: ArrayLike, observed: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return how often each model's mask of complete rows is right, at probability 1/2: (n_models,) (table A1).

    ``complete`` and ``observed`` (n_rows, n_features); all features count.
    """
    values = imputer.rows(complete).values
    with torch.no_grad():
        predicted = [(model.missing.row_logit(values) > 0).expand(values.shape).numpy() for model in imputer.models]
    return np.array([np.mean(mask == observed) for mask in predicted])


def complete_log_likelihood(
    imputer: MNARImputer, complete: ArrayLike, *, max_iter: int | None = None, on_step: OnStep | None = None
) -> NDArray[np.float64]:
    """Return each model's bound on log p(x) of complete rows, in nats, in the table's units: (n_models, n_rows).

    The encoder knows rows with missing values; its likelihoods of complete ones would be judged by a proposal that was
    not made for them. So a copy of it is trained on, on these very rows, while p(x|z) is held (Mattei & Frellsen
    2018b); the likelihood is estimated with ``n_draws`` importance samples.

    Parameters
    ----------
    complete : array-like of shape (n_rows, n_features)
        Rows that were not fitted to.
    max_iter : int, optional
        Steps of the encoder; as many as in ``fit`` if left out.

    Raises
    ------
    DataError
        If a value is missing.
    """
    rows = imputer.rows(complete)
    if (rows.observed == 0).any():
        raise DataError("the likelihood of complete rows is asked for, but some values are missing")
    judged = deepcopy(imputer)
    if max_iter is not None:
        judged.set_params(max_iter=max_iter)
    models = judged.models
    for model in models:
        model.train()
    train(models, rows, judged.settings, judged.seeds_, only=_ENCODER, on_step=on_step)
    return judged.log_likelihoods(complete)
