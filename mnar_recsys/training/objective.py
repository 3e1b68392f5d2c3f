"""What training maximises: the importance-weighted bound less what the weights cost under their priors."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mnar_recsys.config import ModelConfig
from mnar_recsys.data import RatingScale
from mnar_recsys.model import latent
from mnar_recsys.model.batch import UserBatch
from mnar_recsys.model.bound import LogWeights, importance_bound
from mnar_recsys.model.missing_term import CellTerm
from mnar_recsys.model.mnar_vae import MnarVae
from mnar_recsys.model.proposal import log_weights
from mnar_recsys.training.population import PopulationMarginal


class Loss(NamedTuple):
    """The loss of a batch, and what it is made of."""

    loss: Tensor
    """a scalar to minimise, nats a user"""
    weights: LogWeights
    """the terms of log w"""
    weight_cost: Tensor
    """a scalar: the weights' cost, shared out over the users"""


class Objective(nn.Module):
    """The loss of a batch of users.

    Parameters
    ----------
    model : MnarVae
        Held, not copied.
    config : ModelConfig
        Estimator of the missing-entry term and priors.
    n_users : int
        Users trained on, over whom the cost of the weights is shared out.
    scale : RatingScale
        Of the log.
    seeks_mode : bool
        Whether draws of z come from one Newton step (``propose``) and the encoder learns from them, as in the wake
        phases of reweighted wake-sleep (Bornschein & Bengio 2015). If not, they are the encoder's, reparameterised.
    """

    def __init__(
        self, model: MnarVae, config: ModelConfig, n_users: int, scale: RatingScale, *, seeks_mode: bool = False
    ) -> None:
        super().__init__()
        self.seeks_mode = seeks_mode
        self.model = model
        self.config = config
        self.n_users = n_users
        self.estimator = model.estimator(marginal=config.estimator == "marginal")
        shares = config.population_marginal
        self.population = None if shares is None else PopulationMarginal(shares, config.population_size, scale)

    def forward(  # noqa: PLR0917 - a module is called by position
        self,
        batch: UserBatch,
        noise: Tensor,
        cell_noise: Tensor | None,
        generator: torch.Generator,
        share: float = 1.0,
        other: UserBatch | None = None,
    ) -> Loss:
        """Return the loss; noise as in ``MnarVae.log_weights``.

        ``other``: the same users with another sample of items. The gradient of the bound is the sum over the draws of z
        of their normalised weight times the gradient of log w. With one sample for both, a draw whose sampled items
        happen to look well has a high weight, and the model learns to make such luck likely: the bound is biased
        upward, and training finds the bias. So the weights of one sample, and
        where the mode is sought, the draws, go with the gradients of the other.

        ``share``: how many times its even part this process has of a batch that several share; the mean of their losses
        is then that of the whole batch.
        """
        weights, z = self.log_weights(batch, noise, cell_noise)
        item_weights = batch.item_weights
        if item_weights is not None and other is not None and other.item_weights is not None:
            item_weights = (item_weights + other.item_weights) / 2
        weight_cost = self.weight_cost(item_weights) / self.n_users
        bound = importance_bound(weights.total)
        if other is not None:
            one = weights.total
            # All else is the same for both.
            two = one - weights.log_p_unrated + self.estimator(*self.model.split_latent(z), other, cell_noise)
            bound = (torch.softmax(one.detach(), dim=0) * two).sum(0)
            if not self.seeks_mode:  # the draws know of neither sample, and the two change places
                bound = (bound + (torch.softmax(two.detach(), dim=0) * one).sum(0)) / 2
        loss = weight_cost - share * bound.mean()
        if self.seeks_mode:
            loss = loss - share * self._log_encoded(batch, z, weights.total).mean()
        if self.population is not None:
            survey = self.population.log_likelihood(self.model, z, weights.total, generator)
            loss = loss - survey / self.n_users
        return Loss(loss, weights, weight_cost)

    def log_weights(self, batch: UserBatch, noise: Tensor, cell_noise: Tensor | None) -> tuple[LogWeights, Tensor]:
        """Return the terms of log w and the draws of z, (S, B, K')."""
        if self.seeks_mode and isinstance(self.estimator, CellTerm):
            return log_weights(self.model, batch, noise, self.estimator, steps=1)
        return self.model.log_weights(batch, noise, self.estimator, cell_noise)

    def _log_encoded(self, batch: UserBatch, z: Tensor, log_w: Tensor) -> Tensor:
        """Return log q(z|x_obs) of the encoder at weighted draws of the posterior, on which it is to learn: (B,)."""
        mean, log_sd = self.model.encoder(batch)
        with torch.no_grad():
            from_prior = z - self.model.prior_mean(batch)
        log_q = latent.log_posterior((from_prior - mean) * torch.exp(-log_sd), log_sd)
        return (torch.softmax(log_w.detach(), dim=0) * log_q).sum(0)

    def weight_cost(self, item_weights: Tensor | None = None, *, model: MnarVae | None = None) -> Tensor:
        """Return what the items' weights, the slope and the maps from features cost once a pass over the data, nats.

        ``item_weights`` (I,): how many items each of the model's stands for, where it is one of a sample. ``model``:
        one with other weights, averaged ones, in the place of that held.
        """
        model, config = model or self.model, self.config
        rest = model.missing.log_prior(config.selection_prior_sd) + model.log_feature_prior(config.feature_prior_sd)
        if config.item_weights == "variational":
            return model.weight_kl() - rest
        return -model.log_weight_prior(config, item_weights) - rest
