"""Table 1 and table A1: imputation of self-masked tables, and how well the mask is told from complete data."""

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_iterative_imputer  # noqa: F401 - makes the next import possible
from sklearn.impute import IterativeImputer, SimpleImputer
from sklearn.linear_model import BayesianRidge

from baselines.low_rank_joint import LowRankJointImputer
from evaluation.paper.self_masked import SelfMasked
from mnar_recsys.tables import MNARImputer
from mnar_recsys.tables.complete_data import mask_accuracy

OnStep = Callable[[str, int, int], None]
"""Told the method, and how many of how many steps are done."""

# A.1: 100,000 iterations, batches of 16, 20 samples, tanh, 2 x 128 units, latent size P - 1, missing values drawn.
_PAPER: Mapping[str, Any] = {
    "mask_input": False, "estimator": "sampled", "batch_size": 16, "samples": 20, "standardise": False,
}  # fmt: skip
JOINT: Mapping[str, Mapping[str, Any]] = {
    "ppca": {"decoder": "linear", "missing": "ignorable"},
    "notmiwae_ppca_agnostic": {"decoder": "linear", "missing": "agnostic"},
    "notmiwae_ppca_self_masking": {"decoder": "linear"},
    "notmiwae_ppca_known_sign": {"decoder": "linear", "sign": "negative"},
    "miwae": {"missing": "ignorable"},
    "notmiwae_agnostic": {"missing": "agnostic"},
    "notmiwae_self_masking": {},
    "notmiwae_known_sign": {"sign": "negative"},
}
_COMPARATORS: Mapping[str, Callable[[int], Any]] = {
    "low_rank_joint": lambda seed: LowRankJointImputer(centre=False, random_state=seed),
    "missforest": lambda seed: IterativeImputer(
        RandomForestRegressor(100, random_state=seed), max_iter=10, random_state=seed, tol=1e-2
    ),
    "mice": lambda seed: IterativeImputer(BayesianRidge(), max_iter=100, random_state=seed),
    "mean": lambda seed: SimpleImputer(),  # noqa: ARG005
}
METHODS = (*JOINT, *_COMPARATORS)
ITERATIONS = 100_000
DRAWS = 10_000


@dataclass(frozen=True)
class Row:
    """One method on one table, over several runs; errors in standard deviations of a feature."""

    method: str
    rmse: tuple[float, ...]
    rmse_paper: tuple[float, ...] | None
    """by eq. 18, as the paper imputes; None where the method has no such choice"""
    accuracy: tuple[float, ...] | None
    """of the mask of complete rows, all features; None without a mask model"""
    seconds: float
    """all runs together"""


def compare(
    data: SelfMasked,
    methods: Sequence[str] = METHODS,
    *,
    runs: int = 5,
    iterations: int = ITERATIONS,
    draws: int = DRAWS,
    on_step: OnStep | None = None,
) -> Iterator[Row]:
    """Yield a row a method; the runs of a joint model train side by side."""
    for method in methods:
        start = time.perf_counter()
        if method in JOINT:
            rmse, paper, accuracy = _joint(data, method, runs=runs, iterations=iterations, draws=draws, on_step=on_step)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # a fixed number of rounds is their setting
                imputed = [_COMPARATORS[method](seed).fit_transform(data.incomplete) for seed in range(runs)]
            rmse, paper, accuracy = tuple(map(data.rmse, imputed)), None, None
        yield Row(method, rmse, paper, accuracy, time.perf_counter() - start)


def _joint(
    data: SelfMasked, method: str, *, runs: int, iterations: int, draws: int, on_step: OnStep | None
) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...] | None]:
    """Fit a joint model; return errors by our imputation and by the paper's, and the accuracy of the mask.

    Ours sums missing values out, and needs a tenth of the samples.
    """
    settings = {**_PAPER, **JOINT[method]}
    imputer = MNARImputer(**settings, max_iter=iterations, n_models=runs, random_state=0)

    def look(step: int, _: NDArray[np.float64]) -> None:
        if on_step is not None:
            on_step(method, step, iterations)

    imputer.set_params(n_draws=max(1, draws // 10)).fit(data.incomplete, on_step=look)
    ours = tuple(map(data.rmse, imputer.transform_each(data.incomplete)))
    imputer.set_params(estimand="paper", n_draws=draws)
    paper = tuple(map(data.rmse, imputer.transform_each(data.incomplete)))
    if settings.get("missing") == "ignorable":
        return ours, paper, None
    return ours, paper, tuple(mask_accuracy(imputer, data.complete, data.observed))
