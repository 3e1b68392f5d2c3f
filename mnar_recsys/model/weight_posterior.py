"""Gaussian variational posteriors for the weights of items, with learned prior scales."""

import torch
from torch import Tensor, nn

_INITIAL_LOG_SD = -2.5
_INITIAL_LOG_PRIOR_SD = -1.0


class WeightPosterior(nn.Module):
    """q(w) = N(mean, sd^2) for a tensor of weights whose mean is held elsewhere; p(w) = N(m, t^2), m and t learned.

    One prior scale for each place on the last axis: latent dimensions that the ratings do not support are switched
    off by their scale (automatic relevance determination; MacKay 1995). With independent weights in q the bound
    switches off more than the posterior would (Turner & Sahani 2011). One draw a step, shared by all users and samples,
    and the KL divergence once a pass over the data.

    Parameters
    ----------
    mean : Tensor
        Starting mean, (..., P, K).
    prior_mean : Tensor, optional
        Where the learned prior mean starts, broadcastable to ``mean``; without it the prior mean is 0.
    per_dimension : bool
        Whether each place on the last axis has its own prior scale; else they share one.
    """

    def __init__(self, mean: Tensor, *, prior_mean: Tensor | None = None, per_dimension: bool = True) -> None:
        super().__init__()
        self.log_sd = nn.Parameter(torch.full(mean.shape, _INITIAL_LOG_SD))
        self.log_prior_sd = nn.Parameter(torch.full((mean.shape[-1] if per_dimension else 1,), _INITIAL_LOG_PRIOR_SD))
        self.prior_mean = None if prior_mean is None else nn.Parameter(prior_mean.clone())
        self.noise: Tensor | None = None
        self.shift: Tensor | None = None

    def resample(self, generator: torch.Generator, sign: float = 1.0) -> None:
        """Draw the noise that ``draw`` uses until ``clear``; a ``sign`` of -1 takes its mirror image."""
        self.noise = sign * torch.randn(self.log_sd.shape, generator=generator, device=generator.device)

    def clear(self) -> None:
        """Go back to the mean."""
        self.noise = self.shift = None

    def deviation(self) -> Tensor | None:
        """Return how far the draw's own noise takes it from the mean, (..., K), or None where nothing is drawn."""
        return None if self.noise is None else torch.exp(self.log_sd) * self.noise

    def draw(self, mean: Tensor) -> Tensor:
        """Return the current draw of the weights, or their mean."""
        deviation = self.deviation()
        if deviation is None:
            return mean
        return mean + deviation if self.shift is None else mean + deviation + self.shift

    def kl(self, mean: Tensor, shift_variance: Tensor | float = 0.0) -> Tensor:
        """KL(q || p) of all the weights, in nats: a scalar. ``shift_variance`` (..., K) is that of ``shift`` under q.

        With a shift, q is conditional on what the shift depends on, and the KL its expectation.
        """
        centre = 0.0 if self.prior_mean is None else self.prior_mean
        spread = torch.exp(2 * self.log_sd) + shift_variance + (mean - centre).square()
        return (self.log_prior_sd - self.log_sd + 0.5 * (spread * torch.exp(-2 * self.log_prior_sd) - 1)).sum()


class Coupling(nn.Module):
    """Posterior covariance of an item's weights in the exposure, and its bias in the mask, with those in the decoder.

    Who rated what pins down v_j + w W_j, the effect of the taste on rating item j, far better than either of the two.
    With W_j and v_j independent in q, every slope w but 0 makes the mask as uncertain as W_j is, and the bound drives w
    to 0. So q(v_jk | W_jk) = N(m - sum_c g_cjk (W_cjk - E W_cjk), s^2) with g learned, over the C channels of the
    decoder, and the bias of the mask moves with the decoder's bias in the same way.

    Parameters
    ----------
    start : Tensor
        (C, P) where g starts: the nats by which the decoder's natural parameters raise the log-odds of rating, which
        is where it would stay if these were linear. From 0 the slope would be lost before g is learned.
    size : int
        K of the decoder's weights.
    """

    def __init__(self, start: Tensor, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(start.detach()[..., None].repeat(1, 1, size))
        self.bias = nn.Parameter(start.detach().clone())

    def weight_shift(self, decoder: WeightPosterior) -> Tensor:
        """Return the shift of the exposure's weights that goes with the decoder's current draw: (P, K)."""
        return _shift(self.weight, decoder)

    def bias_shift(self, decoder: WeightPosterior) -> Tensor:
        """Return the shift of the mask's biases that goes with the current draw of the decoder's: (P,)."""
        return _shift(self.bias, decoder)

    def weight_variance(self, decoder: WeightPosterior) -> Tensor:
        """Return the variance of ``weight_shift`` under q: (P, K)."""
        return (self.weight.square() * torch.exp(2 * decoder.log_sd)).sum(0)


def _shift(coupling: Tensor, decoder: WeightPosterior) -> Tensor:
    deviation = decoder.deviation()
    if deviation is None:
        raise ValueError("the decoder's weights must be drawn first")
    return -(coupling * deviation).sum(0)
