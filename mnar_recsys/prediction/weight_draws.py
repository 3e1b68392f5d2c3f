"""The uncertainty of the items' weights in predictions: a few draws from their variational posterior."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from mnar_recsys.model.mnar_vae import MnarVae
from mnar_recsys.model.posterior_draws import PosteriorDraws
from mnar_recsys.rng import torch_seed

WEIGHT_DRAWS = 8
SAMPLED_DRAWS = 32
"""Draws of a sampled posterior used for users who were not sampled with it."""


_NEGLIGIBLE = 0.1


def _uncertainty(model: MnarVae) -> float:
    """Return the variance of the decoder's weights under their posterior, as a share of their mean square."""
    posterior, weight = model.decoder.weight_posterior, model.decoder.weight
    if posterior is None:
        return 0.0
    with torch.no_grad():
        return float((2 * posterior.log_sd).exp().mean() / weight.square().mean())


class WeightDraws:
    """W draws of the items' weights, equally likely; a single one, their values, where these are known well enough.

    That is, where they have no posterior, or its variance is below a tenth of what the weights themselves make of a
    taste, as on logs with hundreds of ratings an item.
    The draws are the same whenever they are asked for: they depend on the seed and their number alone. They come in
    pairs that mirror each other (antithetic variates): what is linear in the weights averages out to its exact value.
    """

    latents: Tensor | None = None
    """(D, N, K') of the users, where draws come with them: never"""
    are_near = True
    """whether draws differ so little from the model's weights that users' latents under these are a start"""

    def __init__(self, model: MnarVae, seed: int) -> None:
        self._model = model
        self._seed = seed
        self._device = next(model.parameters()).device
        self._count = 0 if _uncertainty(model) < _NEGLIGIBLE else WEIGHT_DRAWS

    def __len__(self) -> int:
        return max(self._count, 1)

    @property
    def are_drawn(self) -> bool:
        """Whether there is anything to draw."""
        return self._count > 0

    @contextmanager
    def at(self, number: int) -> Iterator[None]:
        """Let the model have the weights of draw ``number``, from 0."""
        if not self.are_drawn:
            yield
            return
        pair, mirrored = divmod(number, 2)
        generator = torch.Generator(self._device).manual_seed(torch_seed(self._seed, "weights", pair))
        try:
            with torch.no_grad():
                self._model.resample_weights(generator, -1.0 if mirrored else 1.0)
            yield
        finally:
            self._model.clear_weights()


class SampledDraws:
    """Draws of a sampled posterior, in the place of ``WeightDraws``.

    All of them where each comes with the latents of the users; the first few where these have to be found for each
    draw: in an order that means nothing, they are as good as any.
    """

    are_drawn = True
    are_near = False

    def __init__(self, model: MnarVae, posterior: PosteriorDraws) -> None:
        device = next(model.parameters()).device
        self.latents = None if posterior.z is None else posterior.z.to(device)
        self._model = model
        self._posterior = posterior
        self._count = len(posterior) if self.latents is not None else min(len(posterior), SAMPLED_DRAWS)

    def __len__(self) -> int:
        return self._count

    @contextmanager
    def at(self, number: int) -> Iterator[None]:
        """Let the model have the parameters of draw ``number``, from 0."""
        with self._posterior.at(self._model, number):
            yield
