"""p(z) = N(0, I) and q(z | x_obs) = N(mean, diag sd^2)."""

import math

import torch
from torch import Tensor

_LOG_2PI = math.log(2 * math.pi)


def rsample(mean: Tensor, log_sd: Tensor, noise: Tensor) -> Tensor:
    """Reparameterised draws: (B, K), (B, K), standard normal (S, B, K) -> z (S, B, K)."""
    return mean + torch.exp(log_sd) * noise


def log_posterior(noise: Tensor, log_sd: Tensor) -> Tensor:
    """Log q(z|x_obs) of ``z = mean + sd * noise``: (S, B, K), (B, K) -> (S, B)."""
    return (-0.5 * noise.square() - log_sd - 0.5 * _LOG_2PI).sum(-1)


def log_prior(z: Tensor) -> Tensor:
    """Log p(z): (S, B, K) -> (S, B)."""
    return (-0.5 * z.square() - 0.5 * _LOG_2PI).sum(-1)
