"""The joint bound of each user: what fitted models are compared by."""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp

from mnar_recsys.data import RatingLog
from mnar_recsys.model.batch import iterate_batches
from mnar_recsys.model.bound import importance_bound
from mnar_recsys.model.mnar_vae import MnarVae
from mnar_recsys.model.proposal import weighted_draws
from mnar_recsys.prediction.weight_draws import WeightDraws
from mnar_recsys.rng import torch_seed

SAMPLES = 500
"""Importance samples S. The bound rises with S: only bounds of the same S compare."""
_USERS_AT_ONCE = 20
_CELLS_AT_ONCE = 5_000_000


def user_bounds(
    model: MnarVae,
    log: RatingLog,
    users: NDArray[np.integer],
    *,
    seed: int,
    on_levels: bool = False,
    samples: int = SAMPLES,
    predictive: bool = False,
) -> NDArray[np.float64]:
    """Return the bound on log p(x_obs, s) of each user, in nats, missing ratings summed out: (n,). Higher is better.

    Samples come from ``propose``, not from the encoder: what is compared is models, not how well their encoders do.
    Averaged over draws of the items' weights where they have a posterior. For users that the weights were fitted to
    that is the bound on E[log p(x_obs, s | w)]; the weights' own divergence from their prior is paid once a log, not
    once a user, and is no part of it. For users held out it is log E[p(x_obs, s | w)], what the fit expects of
    somebody new (``predictive``): with few draws a lower bound of that, on average.

    Parameters
    ----------
    log : RatingLog
        The users' ratings; its catalogue is the model's. The users need not be those that the model was fitted to.
    users : ndarray
        (n,) indices into ``log``.
    seed : int
        The same seed gives every model the same draws, as far as their latents are alike.
    on_levels : bool
        Score a density as the probability that the rating rounds to its level, so that it compares with decoders on
        levels. Without effect on a scale without levels.
    samples : int
        Importance samples S.
    predictive : bool
        Average likelihoods over draws of the weights, not their logarithms. The same where there is one draw.
    """
    device = next(model.parameters()).device
    levels = None
    if on_levels and log.scale.levels is not None:
        levels = torch.tensor(log.scale.levels, dtype=torch.float32, device=device)
    draws = WeightDraws(model, seed)
    estimator = model.marginal(levels)
    size = max(1, _CELLS_AT_ONCE // log.n_items)
    found = []
    for number in range(len(draws)):
        generator = torch.Generator(device).manual_seed(torch_seed(seed, "user bounds"))
        bounds = []
        with draws.at(number), torch.no_grad():
            for _, batch in iterate_batches(log, users, _USERS_AT_ONCE, device):
                noise = torch.randn(samples, batch.n_users, model.latent_size, generator=generator, device=device)
                _, log_w = weighted_draws(model, batch, noise, estimator, at_once=size)
                bounds.append(importance_bound(log_w).cpu().numpy())
        found.append(np.concatenate(bounds).astype(np.float64))
    if predictive:
        return np.asarray(logsumexp(found, axis=0) - np.log(len(found)))
    return np.asarray(np.mean(found, axis=0))
