"""The log density that a sampler needs: all weights and all users' latents in one vector of free coordinates.

Likelihood and priors are those of the variational fit, evaluated by the same modules with the missing ratings summed
out. What that fit takes as flat, or learns as a hyper-parameter, is given a proper prior here:

- scales of the items' weights, and the sd of the activity: half-normal(.5);
- means of the items' weights: N(0, 1), in log-odds; that of the biases stays where it was if there are cut points,
  which do the same;
- the items' biases in the mask: N(log-odds of an average cell, 3^2);
- cut points, sd of the ratings: ``Decoder.log_density``; slopes: ``MissingModel.log_density``.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from mnar_recsys.config import ModelConfig
from mnar_recsys.data import RatingLog
from mnar_recsys.model import latent
from mnar_recsys.model.batch import DenseBatch, UserBatch, make_batch
from mnar_recsys.model.decoders import OrdinalDecoder
from mnar_recsys.model.features import FeatureEffect
from mnar_recsys.model.indexing import lift
from mnar_recsys.model.mnar_vae import MnarVae
from mnar_recsys.model.posterior_draws import holding
from mnar_recsys.model.priors import log_half_normal
from mnar_recsys.training.population import PopulationMarginal

SCALE_SD = 0.5
_MEAN_SD = 1.0
_MASK_BIAS_SD = 3.0
# Where chains start: spread of what the variational fit has no posterior for, and of slopes; least scale of weights.
_JITTER = 0.1
_SLOPE_JITTER = 0.5
_LEAST_LOG_SCALE = -2.3
# Rough posterior sds to start from: of what all ratings bear on, of an item's bias in the mask, of slopes.
_GLOBAL_SD, _ITEM_SD, _SLOPE_SD = 0.05, 0.25, 0.3

_Z = "z"
# Weights whose prior has a learned scale, and the module that holds it.
_GOVERNED = {
    "decoder.weight": "decoder.weight_posterior",
    "decoder.bias": "decoder.bias_posterior",
    "exposure.weight": "exposure.posterior",
}


class LogPosterior:
    """log p(theta, z | x_obs, s) up to a constant, as a function of one vector of coordinates.

    Coordinates are the parameters as stored, but for weights with a learned prior N(m, t^2), which are m + t u with u
    the coordinate (non-centred: u has the same scale whatever t is); of a user, the distance from the prior mean.

    Parameters
    ----------
    model : MnarVae
        Fitted, with variational weights; not changed.
    log : RatingLog
        Its ratings; users without any are left out.
    config : ModelConfig
        Priors.
    population : PopulationMarginal, optional
        Known shares of the levels.
    """

    def __init__(
        self, model: MnarVae, log: RatingLog, config: ModelConfig, population: PopulationMarginal | None = None
    ) -> None:
        self.model = model
        self.config = config
        self.log = log
        self.device = next(model.parameters()).device
        self.users = np.flatnonzero(np.diff(log.indptr) > 0)
        self.batch: UserBatch = DenseBatch(**vars(make_batch(log, self.users, self.device)))
        share = log.chosen.n_ratings / (log.n_users * log.n_items)
        self._mask_log_odds = float(np.log(share) - np.log1p(-share)) if share < 1 else 0.0
        self._joint = _Joint(model, self.batch, config, population)
        self._unrated: Tensor = self.batch.unrated(log.n_items)
        self._shapes = {_Z: torch.Size((len(self.users), model.latent_size)), **_generative(model)}
        self._sizes = [shape.numel() for shape in self._shapes.values()]
        self._held_means = {
            name: value.detach()
            for name, value in model.named_parameters()
            if name.endswith(".prior_mean") and name not in self._shapes
        }
        self._feature_maps = {
            f"{name}.weight" for name, module in model.named_modules() if isinstance(module, FeatureEffect)
        }

    @property
    def size(self) -> int:
        """Number of coordinates."""
        return sum(self._sizes)

    @property
    def n_cells(self) -> int:
        """Number of cells, users with ratings times items, that the density visits."""
        return len(self.users) * self.log.n_items

    def __call__(self, coordinates: Tensor) -> Tensor:
        """Return the log density: (size,) -> a scalar of double precision."""
        parts = self._split(coordinates)
        values = self._values(parts)
        z = parts.pop(_Z)
        # The sum over users is large beside the differences that matter: single precision would blur it.
        likelihood: Tensor = functional_call(self._joint, values, (z,))
        return likelihood + self._log_prior(parts, z)

    def parameters(self, coordinates: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return the model's parameters by name, and the latents (N, K') of all users, 0 where they have no ratings."""
        with torch.no_grad():
            parts = self._split(coordinates)
            values = {name.removeprefix("model."): value for name, value in self._values(parts).items()}
            with holding(self.model, values):
                z = parts[_Z] + self.model.prior_mean(self.batch)
        everyone = z.new_zeros(self.log.n_users, z.shape[1])
        everyone[torch.from_numpy(self.users).to(self.device)] = z
        # Clones: views would keep the whole vector alive.
        return {name: value.clone() for name, value in values.items()}, everyone

    def start(self, generator: torch.Generator) -> Tensor:
        """Return coordinates of a draw from the variational posterior, the rest spread around its point: (size,)."""
        model = self.model

        def normal(shape: torch.Size) -> Tensor:
            return torch.randn(shape, generator=generator, device=self.device)

        with torch.no_grad(), _drawn(model, generator):
            values = {name: value.detach().clone() for name, value in model.named_parameters() if name in self._shapes}
            mean, log_sd = model.encoder(self.batch)
            values[_Z] = latent.rsample(mean, log_sd, normal(mean.shape))
            for name in values.keys() - {_Z, *_GOVERNED}:
                spread = _SLOPE_JITTER if name.endswith(".raw") else _JITTER
                values[name] += spread * normal(values[name].shape)
            for name, prior in _GOVERNED.items():
                if name in values:
                    posterior = model.get_submodule(prior)
                    scale = values[f"{prior}.log_prior_sd"].clamp_(min=_LEAST_LOG_SCALE)
                    drawn = posterior.draw(values[name])  # type: ignore[operator]
                    mean = (values | self._held_means).get(f"{prior}.prior_mean", 0.0)
                    values[name] = (drawn - mean) * torch.exp(-scale)
            if model.missing.bias_shift is not None and "missing.item_bias" in values:
                values["missing.item_bias"] += model.missing.bias_shift
        return torch.cat([values[name].reshape(-1) for name in self._shapes])

    def rough_sds(self) -> Tensor:
        """Return about what the posterior sds of the coordinates will be, for a sampler's first steps: (size,)."""
        sds = {name: 1.0 if name == _Z or name in _GOVERNED else _GLOBAL_SD for name in self._shapes}
        sds |= {name: _SLOPE_SD for name in sds if name.endswith(".raw")} | {"missing.item_bias": _ITEM_SD}
        return torch.cat([torch.full((n,), sds[name]) for name, n in zip(self._shapes, self._sizes, strict=True)])

    def monitored(self, coordinates: Tensor) -> dict[str, float]:
        """Return what does not depend on the basis of the latent, for diagnostics."""
        with torch.no_grad():
            parts = self._split(coordinates)
            values = {name.removeprefix("model."): value for name, value in self._values(parts).items()}
            with holding(self.model, values):
                z = (parts[_Z] + self.model.prior_mean(self.batch))[None]
                found = {"mean of unrated cells": self._mean_of_unrated(z)}
                if any(name.startswith("missing.") and name.endswith(".raw") for name in values):
                    ends = torch.tensor([self.log.scale.low, self.log.scale.high], device=self.device)
                    low, high = self.model.missing.selection(ends).tolist()
                    found = {"selection, nats between the ends": high - low, **found}
                found["log-likelihood, nats"] = float(self._joint.log_likelihood(z))
        for label, prior in zip(("taste", "item bias", "exposure"), _GOVERNED.values(), strict=True):
            if f"{prior}.log_prior_sd" in parts:
                # Over the dimensions, whose own scales change places.
                found[f"scale of {label}"] = float(torch.exp(2 * parts[f"{prior}.log_prior_sd"]).sum().sqrt())
        if "exposure.log_activity_sd" in parts:
            found["sd of activity"] = float(torch.exp(parts["exposure.log_activity_sd"]))
        return found

    def _mean_of_unrated(self, z: Tensor) -> float:
        """Return the mean over the unrated cells of E[x | z, s = 0]."""
        taste, z_x = self.model.split_latent(z)
        cells = self.model.decoder.cells(taste)
        logit = self.model.missing.logit(cells.support, slice(None))
        offset = self.model.exposure.cells(z_x)
        weights = cells.support_weights * torch.sigmoid(
            -(logit if offset is None else logit + lift(offset).unsqueeze(-2))
        )
        mean = (weights * cells.support).sum(-2) / weights.sum(-2)
        return float((mean[0] * self._unrated).sum() / self._unrated.sum())

    def _split(self, coordinates: Tensor) -> dict[str, Tensor]:
        parts = torch.split(coordinates, self._sizes)
        return {name: part.view(shape) for (name, shape), part in zip(self._shapes.items(), parts, strict=True)}

    def _values(self, parts: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the parameters at the coordinates, under their names in ``_Joint``."""
        values = {f"model.{name}": part for name, part in parts.items() if name != _Z}
        means = parts | self._held_means
        for name, prior in _GOVERNED.items():
            if name in parts:
                scaled = torch.exp(parts[f"{prior}.log_prior_sd"]) * parts[name]
                values[f"model.{name}"] = means.get(f"{prior}.prior_mean", 0.0) + scaled
        return values

    def _log_prior(self, parts: dict[str, Tensor], z: Tensor) -> Tensor:
        """Return the log prior of coordinates, but for those that ``_Joint`` sees to."""
        total = _log_normal(z)
        for name, part in parts.items():
            if name in _GOVERNED:
                total = total + _log_normal(part)
            elif name in self._feature_maps:
                total = total + _log_normal(part, self.config.feature_prior_sd)
            elif name.endswith(".log_prior_sd") or name == "exposure.log_activity_sd":
                total = total + log_half_normal(part, SCALE_SD)
            elif name.endswith(".prior_mean"):
                total = total + _log_normal(part, _MEAN_SD)
            elif name == "missing.item_bias":
                total = total + _log_normal(part - self._mask_log_odds, _MASK_BIAS_SD)
        return total


class _Joint(nn.Module):
    """log p(x_obs, s | z, theta), and the prior of the parameters whose modules know it."""

    def __init__(
        self, model: MnarVae, batch: UserBatch, config: ModelConfig, population: PopulationMarginal | None
    ) -> None:
        super().__init__()
        self.model = model
        self._batch = batch
        self._selection_sd = config.selection_prior_sd
        self._population = population
        self._estimator = model.estimator(marginal=True)

    def forward(self, z: Tensor) -> Tensor:
        """Return it for distances from the prior mean, (B, K'): a scalar."""
        z = (z + self.model.prior_mean(self._batch))[None]
        shared = self.model.decoder.log_density() + self.model.missing.log_density(self._selection_sd)
        return self.log_likelihood(z) + shared

    def log_likelihood(self, z: Tensor) -> Tensor:
        """Return log p(x_obs, s | z) of all users, with the population's shares if they are known: a scalar."""
        log_p_x, log_p_s, _ = self.model.log_likelihood(self._batch, z, self._estimator)
        total = (log_p_x + log_p_s).double().sum()
        if self._population is not None:
            # The same items at every call, or it would be no function.
            generator = torch.Generator(z.device).manual_seed(0)
            total = total + self._population.log_likelihood(self.model, z, torch.zeros_like(log_p_x), generator)
        return total


def _generative(model: MnarVae) -> dict[str, torch.Size]:
    """Return the parameters that the ratings and the mask depend on: not the encoder's, nor those of q alone."""
    redundant = {"decoder.bias_posterior.prior_mean"} if isinstance(model.decoder, OrdinalDecoder) else set()
    return {
        name: parameter.shape
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
        and not name.startswith(("encoder.", "coupling."))
        and not name.endswith("posterior.log_sd")
        and name not in redundant
    }


@contextmanager
def _drawn(model: MnarVae, generator: torch.Generator) -> Iterator[None]:
    model.resample_weights(generator)
    try:
        yield
    finally:
        model.clear_weights()


def _log_normal(values: Tensor, sd: float = 1.0) -> Tensor:
    return -0.5 * values.double().square().sum() / sd**2
