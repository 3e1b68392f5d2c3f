"""Where importance samples of z come from: the mode of a user's posterior and its curvature there.

The encoder must do for all users at once, and its q(z | x_obs) is a diagonal Gaussian: with tens of dimensions few of
its draws land where a user's posterior is. Given the weights, log p(x_obs, s, z) is nearly concave in z, and a few
Newton steps from the encoder's mean find the mode (the Laplace approximation; Tierney & Kadane 1986). Its tails may be
too light, so an eighth of the draws is from the prior, and the mixture is what draws are weighted by: that bounds the
weights (a defensive mixture; Hesterberg 1995). They are as in eq. 9 of the paper, with this density in the place of q.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mnar_recsys.model import latent
from mnar_recsys.model.batch import UserBatch
from mnar_recsys.model.bound import LogWeights
from mnar_recsys.model.curvature import Curvature
from mnar_recsys.model.missing_term import CellTerm
from mnar_recsys.model.mnar_vae import MnarVae

STEPS = 3
"""Newton steps after which the last one hardly moves."""
# Shares of the encoder's mean from which the steps may begin. It is a sum over ratings, and far too large for the few
# users who have hundreds: from out there no share of a step leads back.
_STARTS = (1.0, 0.5, 0.0)
# Shares of a step tried; the best one counts, if any of them gains.
_SHARES = (1.0, 0.5, 0.2)


@dataclass(frozen=True)
class Proposal:
    """A mixture of N(mode, precision^-1) and the prior for each of B users."""

    mode: Tensor
    """(B, K')"""
    root: Tensor
    """(B, K', K') lower Cholesky factor of the precision"""
    prior_mean: Tensor
    """(B, K')"""

    def draw(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return z (S, B, K') of standard normal noise, the last eighth from the prior, and its log density (S, B)."""
        n_prior = len(noise) // 8
        n_mode = len(noise) - n_prior
        by_user = noise[:n_mode].permute(1, 2, 0)
        away = torch.linalg.solve_triangular(self.root.mT, by_user, upper=True).permute(2, 0, 1)
        z = torch.cat([self.mode + away, self.prior_mean + noise[n_mode:]])
        standard = torch.einsum("bji,sbj->sbi", self.root, z - self.mode)
        log_near = latent.log_prior(standard) + self.root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        if not n_prior:
            return z, log_near
        log_prior = latent.log_prior(z - self.prior_mean)
        return z, torch.logaddexp(log_near + math.log(n_mode / len(noise)), log_prior + math.log(n_prior / len(noise)))


def propose(
    model: MnarVae, batch: UserBatch, estimator: CellTerm, *, steps: int = STEPS, start: Tensor | None = None
) -> Proposal:
    """Approximate p(z | x_obs, s) of the users of a batch by Newton steps from the encoder's mean, or a share of it.

    Or from ``start`` (B, K'), where a mode for weights like the model's is known.

    The curvature is that where the last step began. The estimator must be one that sums missing ratings out. Nothing is
    differentiable.
    """
    with torch.no_grad(), torch.autocast(batch.rows.device.type, enabled=False):
        mean = model.encoder(batch)[0]
        prior_mean = torch.zeros_like(mean) + model.prior_mean(batch)
        shares: tuple[float, ...] = _SHARES
        if start is None:
            z, reached = _best(model, batch, torch.stack([prior_mean + share * mean for share in _STARTS]), estimator)
        else:
            z, reached, shares = start, start.new_full((len(start),), -torch.inf), (*_SHARES, 0.0)
        curvature, root = Curvature(model, estimator), torch.eye(z.shape[-1], device=z.device).expand(len(z), -1, -1)
        for _ in range(steps):
            gradient, precision = curvature.at(z, batch)
            root = _cholesky(precision)
            step = torch.cholesky_solve(gradient.unsqueeze(-1), root).squeeze(-1)
            tried, gained = _best(model, batch, torch.stack([z + share * step for share in shares]), estimator)
            z = torch.where((gained > reached)[:, None], tried, z)
            reached = torch.maximum(reached, gained)
        return Proposal(z, root, prior_mean)


def log_joint_density(model: MnarVae, batch: UserBatch, z: Tensor, estimator: CellTerm) -> Tensor:
    """Log p(x_obs, s, z), the weights given: z (S, B, K') -> (S, B)."""
    log_p_x, log_p_s, _ = model.log_likelihood(batch, z, estimator)
    return log_p_x + log_p_s + latent.log_prior(z - model.prior_mean(batch))


def log_weights(
    model: MnarVae, batch: UserBatch, noise: Tensor, estimator: CellTerm, *, steps: int
) -> tuple[LogWeights, Tensor]:
    """Return the terms of log w (eq. 9) of draws z (S, B, K'), and z: ``MnarVae.log_weights`` with this proposal.

    Only the terms of p are differentiable: the density of the draws is a number, as are they.
    """
    z, log_q_z = propose(model, batch, estimator, steps=steps).draw(noise)
    log_p_x, log_p_s, log_p_unrated = model.log_likelihood(batch, z, estimator)
    return LogWeights(log_p_x, log_p_s, latent.log_prior(z - model.prior_mean(batch)), log_q_z, log_p_unrated), z


def weighted_draws(
    model: MnarVae,
    batch: UserBatch,
    noise: Tensor,
    estimator: CellTerm,
    *,
    near: Tensor | None = None,
    at_once: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Draw z (S, B, K') of standard normal noise from ``propose``; return it with log w, eq. 9 (S, B).

    ``near``: modes (B, K') for weights like the model's, from which one step will do. ``at_once``: how many of the S
    draws are weighted at a time; default, all.
    """
    z, log_q_z = propose(model, batch, estimator, steps=STEPS if near is None else 1, start=near).draw(noise)
    parts = torch.split(z, at_once or len(z))
    return z, torch.cat([log_joint_density(model, batch, part, estimator) for part in parts]) - log_q_z


def _best(model: MnarVae, batch: UserBatch, tried: Tensor, estimator: CellTerm) -> tuple[Tensor, Tensor]:
    """Return of each user the latent with the highest joint density, and this: (T, B, K') -> (B, K'), (B,)."""
    found, place = log_joint_density(model, batch, tried, estimator).nan_to_num(nan=-torch.inf).max(0)
    return tried[place, torch.arange(len(place), device=place.device)], found


def _cholesky(precision: Tensor) -> Tensor:
    """Return the lower factors of (B, K', K'); the prior's where a matrix is not positive definite."""
    root, failed = torch.linalg.cholesky_ex(precision)
    return torch.where((failed > 0)[:, None, None], torch.eye(precision.shape[-1], device=root.device), root)
