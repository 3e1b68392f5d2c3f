"""Whether chains have mixed: rank-normalised split R-hat and bulk effective sample size (Vehtari et al. 2021)."""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import rankdata

from mnar_recsys.model.posterior_draws import Monitored

Array = NDArray[np.float64]


def monitor(name: str, draws: Array) -> Monitored:
    """Describe a quantity from its draws, (chains, draws)."""
    lower, upper = np.quantile(draws, [0.05, 0.95])
    spread = float(draws.std(ddof=1))
    return Monitored(name, float(draws.mean()), spread, float(lower), float(upper), split_r_hat(draws), bulk_ess(draws))


def split_r_hat(draws: Array) -> float:
    """Return the larger of R-hat in location and in spread, of halves of chains: (chains, draws); nan if all equal."""
    from pyro.ops.stats import split_gelman_rubin

    if np.ptp(draws) == 0:
        return float("nan")
    folded = np.abs(draws - np.median(draws))
    return max(float(split_gelman_rubin(torch.from_numpy(_rank_normal(part)))) for part in (draws, folded))


def bulk_ess(draws: Array) -> float:
    """Return how many independent draws would give as sure a mean: (chains, draws); nan if all are equal."""
    from pyro.ops.stats import effective_sample_size

    if np.ptp(draws) == 0:
        return float("nan")
    half = draws.shape[1] // 2
    halves = np.concatenate([draws[:, :half], draws[:, -half:]])
    return float(effective_sample_size(torch.from_numpy(_rank_normal(halves))))


def _rank_normal(values: Array) -> Array:
    """Replace values by the normal quantiles of their ranks among all: a heavy tail then has a variance."""
    ranks = rankdata(values, axis=None).reshape(values.shape)
    return np.asarray(ndtri((ranks - 0.375) / (values.size + 0.25)), dtype=np.float64)
