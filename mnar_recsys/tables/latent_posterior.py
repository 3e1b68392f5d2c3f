"""The family of q(z | x_obs): independent Gaussians, or Student-t where tails should cover more (section 3)."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from mnar_recsys.model import latent
from mnar_recsys.model.decoders.student_math import log_density, quantile
from mnar_recsys.model.decoders.student_t import INITIAL_DF, MIN_DF


class LatentPosterior(nn.Module, ABC):
    """Reparameterised draws of z and their log density."""

    @abstractmethod
    def forward(self, mean: Tensor, log_sd: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return z (S, B, K) and log q(z|x_obs) (S, B) from (B, K), (B, K) and the noise of ``noise``."""

    @abstractmethod
    def noise(self, normal: Tensor) -> Tensor:
        """Return noise for draws from standard normal numbers, both (..., K)."""


class GaussianPosterior(LatentPosterior):
    """q(z|x_obs) = N(mean, diag sd^2)."""

    def forward(self, mean: Tensor, log_sd: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return draws and their log density."""
        return latent.rsample(mean, log_sd, noise), latent.log_posterior(noise, log_sd)

    def noise(self, normal: Tensor) -> Tensor:
        """Return the numbers themselves."""
        return normal


class StudentTPosterior(LatentPosterior):
    """Each dimension mean + sd * t(df), df learned: heavier tails keep importance weights bounded."""

    def __init__(self) -> None:
        super().__init__()
        self.raw_df = nn.Parameter(torch.tensor([math.log(math.expm1(INITIAL_DF - MIN_DF))]))

    def forward(self, mean: Tensor, log_sd: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return draws and their log density."""
        df = MIN_DF + softplus(self.raw_df)
        t = quantile(noise, df)
        return latent.rsample(mean, log_sd, t), (log_density(t, df) - log_sd).sum(-1)

    def noise(self, normal: Tensor) -> Tensor:
        """Return uniform noise inside (0, 1)."""
        uniform: Tensor = torch.special.ndtr(normal)
        return uniform.clamp(1e-6, 1 - 1e-6)
