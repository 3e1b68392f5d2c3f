"""Priors that a sampler needs and an optimiser does not, with respect to parameters as they are stored."""

import torch
from torch import Tensor


def log_half_normal(log_sd: Tensor, scale: float) -> Tensor:
    """Log density, up to a constant, of log sd where sd is half-normal with this scale: a scalar.

    The density of sd is proportional to exp(-sd^2 / (2 scale^2)), and d sd / d log sd = sd.
    """
    return (log_sd - 0.5 * torch.exp(2 * log_sd) / scale**2).sum()
