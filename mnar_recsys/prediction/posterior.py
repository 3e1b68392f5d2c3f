"""Draws from p(z | x_obs, s) by self-normalised importance sampling (appendix B of the paper)."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mnar_recsys.model.batch import UserBatch
from mnar_recsys.model.bound import effective_sample_size
from mnar_recsys.model.missing_term import Marginal, SampledRow
from mnar_recsys.model.mnar_vae import MnarVae
from mnar_recsys.model.proposal import propose, weighted_draws


@dataclass(frozen=True)
class UserPosterior:
    """S weighted draws of the latent of B users."""

    taste: Tensor
    """(S, B, K)"""
    z_x: Tensor
    """(S, B, E') latent of the exposure"""
    share: Tensor
    """(S, B) weights, summing to 1 over S"""
    ess: Tensor
    """(B,) effective sample size, between 1 and S"""
    row_logit: Tensor | None = None
    """(S, B, P) log-odds of rating each cell given a draw of its whole row, where the missing model needs that"""

    def keep(self, picks: Tensor) -> "UserPosterior":
        """Return one draw of each user, ``picks`` (B,), as a posterior with S = 1."""
        users = torch.arange(len(picks), device=picks.device)
        ones = torch.ones_like(self.share[:1])
        row_logit = None if self.row_logit is None else self.row_logit[picks, users][None]
        return UserPosterior(self.taste[picks, users][None], self.z_x[picks, users][None], ones, ones[0], row_logit)


def quasi_normal(draws: int, size: int, seed: int) -> Tensor:
    """Return (S, 1, size) standard normal points, evenly spread (scrambled Sobol): a small S goes further.

    All users share them, so a prediction does not depend on which others are made with it.
    """
    engine = torch.quasirandom.SobolEngine(size, scramble=True, seed=seed)  # type: ignore[no-untyped-call]
    points: Tensor = engine.draw(draws)
    normal: Tensor = torch.special.ndtri(points.clamp(1e-6, 1 - 1e-6))
    return normal.unsqueeze(1)


def modes(model: MnarVae, batch: UserBatch) -> Tensor | None:
    """Return where p(z | x_obs, s) of users is highest, (B, K'), if missing ratings can be summed out."""
    if model.missing.needs_row:
        return None
    estimator = model.estimator(marginal=True)
    return propose(model, batch, estimator).mode if isinstance(estimator, Marginal) else None


def infer(
    model: MnarVae,
    batch: UserBatch,
    noise: Tensor,
    cell_generator: torch.Generator | None = None,
    *,
    near: Tensor | None = None,
) -> UserPosterior:
    """Draw z for the users of a batch and weight the draws by eq. 9.

    The weights sum the missing ratings out; with a ``cell_generator`` they contain one draw of each instead, as
    eq. 17 has them, which a missing model of whole rows needs. Users without ratings get the prior with equal weights:
    of them nothing is known, not even whether they had the chance to rate.

    ``near`` (B, K'): where p(z | x_obs, s) is highest for weights like the model's (``modes``), to begin from.
    """
    with torch.no_grad():
        noise = noise.expand(-1, batch.n_users, -1)
        shape = (len(noise), batch.n_users, model.decoder.n_items)
        cell_noise = None
        if cell_generator is not None and model.missing.depends_on_rating:
            cell_noise = model.decoder.noise(shape, cell_generator)
        estimator = model.estimator(marginal=cell_noise is None)
        if isinstance(estimator, Marginal):
            z, log_w = weighted_draws(model, batch, noise, estimator, near=near)
        else:
            weights, z = model.log_weights(batch, noise, estimator, cell_noise)
            log_w = weights.total
        cold = torch.from_numpy(batch.counts == 0).to(z.device)
        z = torch.where(cold[:, None], noise + model.prior_mean(batch), z)
        log_w = torch.where(cold, torch.zeros_like(log_w), log_w)
        taste, z_x = model.split_latent(z)
        row_logit = estimator.logits(taste, z_x, batch, cell_noise) if isinstance(estimator, SampledRow) else None
        return UserPosterior(taste, z_x, torch.softmax(log_w, dim=0), effective_sample_size(log_w), row_logit)


def as_sampled(model: MnarVae, batch: UserBatch, z: Tensor, noise: Tensor) -> UserPosterior:
    """Return latents (B, K') that a chain drew as a posterior with S = 1.

    Users without ratings, whom the chain leaves out, have their prior at the ``noise`` (1, K') instead.
    """
    with torch.no_grad():
        cold = torch.from_numpy(batch.counts == 0).to(noise.device)
        z = torch.where(cold[:, None], noise + model.prior_mean(batch), z)[None]
        taste, z_x = model.split_latent(z)
        ones = torch.ones_like(z[..., 0])
        return UserPosterior(taste, z_x, ones, ones[0])


def pick(shares: NDArray[np.floating], rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw an index along the last axis with the given probabilities: (..., G) -> (...)."""
    cumulative = np.cumsum(shares, axis=-1, dtype=np.float64)
    threshold = rng.random(shares.shape[:-1]) * cumulative[..., -1]
    index = (cumulative <= threshold[..., None]).sum(-1)
    return np.asarray(np.minimum(index, shares.shape[-1] - 1))
