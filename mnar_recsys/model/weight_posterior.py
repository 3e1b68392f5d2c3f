"""Gaussian variational posteriors for the weights of items, with learned prior scales."""

import torch
from torch import Tensor, nn

_INITIAL_LOG_SD = -2.5
_INITIAL_LOG_PRIOR_SD = -1.0


class WeightPosterior(nn.Module):
    """q(w) = N(mean, sd^2) for a tensor of weights whose mean is held elsewhere; p(w) = N(m, t^2), m and t learned.

    One prior scale for each place on the last axis: latent dimensions that the ratings do not support are switched
    off by their scale (automatic relevance determination; MacKay 1995). One draw a step, shared by all users and
    samples, and the KL divergence once a pass over the data.

    Parameters
    ----------
    mean : Tensor
        Starting mean, (..., K).
    centred : bool
        Whether the prior mean is 0; else it is learned, one for each leading axis, and starts at the weights' mean.
    per_dimension : bool
        Whether each place on the last axis has its own prior scale; else they share one.
    """

    def __init__(self, mean: Tensor, *, centred: bool = True, per_dimension: bool = True) -> None:
        super().__init__()
        self.log_sd = nn.Parameter(torch.full(mean.shape, _INITIAL_LOG_SD))
        self.log_prior_sd = nn.Parameter(torch.full((mean.shape[-1] if per_dimension else 1,), _INITIAL_LOG_PRIOR_SD))
        self.prior_mean = None if centred else nn.Parameter(mean.mean(-1, keepdim=True).clone())
        self.noise: Tensor | None = None

    def resample(self, generator: torch.Generator) -> None:
        """Draw the noise that ``draw`` uses until ``clear``."""
        self.noise = torch.randn(self.log_sd.shape, generator=generator, device=generator.device)

    def clear(self) -> None:
        """Go back to the mean."""
        self.noise = None

    def draw(self, mean: Tensor) -> Tensor:
        """Return the current draw of the weights, or their mean."""
        return mean if self.noise is None else mean + torch.exp(self.log_sd) * self.noise

    def kl(self, mean: Tensor) -> Tensor:
        """KL(q || p) of all the weights, in nats: a scalar."""
        centre = 0.0 if self.prior_mean is None else self.prior_mean
        spread = torch.exp(2 * self.log_sd) + (mean - centre).square()
        return (self.log_prior_sd - self.log_sd + 0.5 * (spread * torch.exp(-2 * self.log_prior_sd) - 1)).sum()
