"""The joint model p(x, s) and its amortised posterior: the parts wired together."""

import torch
from torch import Tensor, nn

from mnar_recsys.config import ModelConfig
from mnar_recsys.data import FeatureTable
from mnar_recsys.model import latent
from mnar_recsys.model.batch import UserBatch
from mnar_recsys.model.bound import LogWeights
from mnar_recsys.model.decoders import Decoder
from mnar_recsys.model.encoder import SetEncoder
from mnar_recsys.model.exposure import Exposure
from mnar_recsys.model.features import FeatureEffect, feature_weights
from mnar_recsys.model.missing import MissingModel
from mnar_recsys.model.missing_term import Marginal, MissingTerm, Sampled, SampledRow, log_mask
from mnar_recsys.model.weight_posterior import Coupling, WeightPosterior


class MnarVae(nn.Module):
    """not-MIWAE for ratings; with the ignorable missing model, MIWAE.

    The latent has a block of taste (K), which the decoder sees, and one of exposure (E'), which only the log-odds of
    rating see.
    """

    def __init__(self, encoder: SetEncoder, decoder: Decoder, missing: MissingModel, exposure: Exposure) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.missing = missing
        self.exposure = exposure
        self.coupling: Coupling | None = None
        self.survey_could_be_rated = True
        self.user_effect: FeatureEffect | None = None

    @property
    def latent_size(self) -> int:
        """Size of z with all its blocks."""
        return self.encoder.latent_size

    def estimator(self, *, marginal: bool, levels: Tensor | None = None) -> MissingTerm:
        """Return the estimator of the missing-entry term, exact or drawn; see ``marginal``."""
        if marginal:
            return self.marginal(levels)
        parts = self.decoder if levels is None else self.decoder.on_levels(levels), self.missing, self.exposure
        if not self.missing.needs_row:
            return Sampled(*parts)
        return SampledRow(*parts, survey_could_be_rated=self.survey_could_be_rated)

    def marginal(self, levels: Tensor | None = None) -> Marginal:
        """Return the exact estimator of the missing-entry term, which a model of whole rows has not.

        With ``levels`` (R,), the bound that it gives is that of ratings rounded to these; see ``Decoder.on_levels``.
        """
        if self.missing.needs_row:
            raise ValueError("a missing model of whole rows has no marginal form")
        return Marginal(self.decoder if levels is None else self.decoder.on_levels(levels), self.missing, self.exposure)

    def split_latent(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Split z into taste (S, B, K) and the latent of the exposure (S, B, E')."""
        return self.exposure.split(z)

    def log_weight_prior(self, config: ModelConfig, item_weights: Tensor | None = None) -> Tensor:
        """Log density, up to a constant, of the items' weights under the priors of the settings: a scalar.

        ``item_weights`` (P,): how many items each stands for, where they are a sample.
        """
        decoder = self.decoder.log_weight_prior(config.weight_prior_sd, config.bias_prior_sd, item_weights)
        return decoder + self.exposure.log_weight_prior(config.exposure_prior_sd, item_weights)

    def be_variational(self) -> None:
        """Give the items' weights variational posteriors with learned prior scales."""
        self.decoder.be_variational()
        self.exposure.be_variational()
        if self.exposure.shared:
            self.coupling = Coupling(self._selection_by_bias(), self.exposure.shared)

    def _selection_by_bias(self) -> Tensor:
        """Return by how many nats a unit of each decoder bias raises E[selection(x_j) | z = 0]: (C, P)."""
        if not self.missing.depends_on_rating:
            return torch.zeros_like(self.decoder.bias)
        with torch.enable_grad():
            cells = self.decoder.cells(self.decoder.weight.new_zeros(1, 1, self.decoder.weight.shape[-1]))
            expected = cells.expectation(self.missing.selection(cells.support))
            return torch.autograd.grad(expected.sum(), self.decoder.bias)[0]

    def resample_weights(self, generator: torch.Generator, sign: float = 1.0) -> None:
        """Draw the items' weights for one step, where they have a posterior; see ``WeightPosterior.resample``."""
        for module in self.modules():
            if isinstance(module, WeightPosterior):
                module.resample(generator, sign)
        if self.coupling is not None:
            weights, biases, exposure = self._posteriors()
            own = self.exposure.size - self.exposure.shared
            exposure.shift = nn.functional.pad(self.coupling.weight_shift(weights), (0, own))
            self.missing.bias_shift = self.coupling.bias_shift(biases)

    def clear_weights(self) -> None:
        """Go back to the posterior means of the items' weights."""
        for module in self.modules():
            if isinstance(module, WeightPosterior):
                module.clear()
        self.missing.bias_shift = None

    def weight_kl(self) -> Tensor:
        """KL divergence of the items' weights from their prior, in nats: a scalar."""
        if self.coupling is None:
            return self.decoder.kl() + self.exposure.kl()
        own = self.exposure.size - self.exposure.shared
        variance = nn.functional.pad(self.coupling.weight_variance(self._posteriors()[0]), (0, own))
        return self.decoder.kl() + self.exposure.kl(variance)

    def _posteriors(self) -> tuple[WeightPosterior, WeightPosterior, WeightPosterior]:
        """Return those of the decoder's weights, its biases, and the exposure's weights."""
        found = self.decoder.weight_posterior, self.decoder.bias_posterior, self.exposure.posterior
        weights, biases, exposure = found
        if weights is None or biases is None or exposure is None:
            raise ValueError("the items' weights have no posterior")
        return weights, biases, exposure

    def know_features(self, users: FeatureTable | None, items: FeatureTable | None) -> None:
        """Let features decide where users' latents and items' parameters are expected."""
        if users is not None:
            self.user_effect = FeatureEffect(users, (self.latent_size,))
            self.encoder.know_users(users)
        if items is not None:
            for part in (self.encoder, self.decoder, self.missing, self.exposure):
                part.know_items(items)

    def log_feature_prior(self, sd: float) -> Tensor | float:
        """Log density, up to a constant, of the maps from features under independent N(0, sd^2): a scalar."""
        return sum((-0.5 * weight.square().sum() / sd**2 for weight in feature_weights(self)), 0.0)

    def prior_mean(self, batch: UserBatch) -> Tensor | float:
        """Mean of p(z) for each user of a batch, (B, K'), as their features have it; 0 where there are none."""
        if self.user_effect is None or batch.user_features is None:
            return 0.0
        mean: Tensor = self.user_effect(batch.user_features)
        return mean

    def sample_posterior(self, batch: UserBatch, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Draw z (S, B, K') from q; return it with log p(z) and log q(z|x_obs), each (S, B).

        The encoder speaks of the distance from the prior mean.
        """
        mean, log_sd = self.encoder(batch)
        z = latent.rsample(mean, log_sd, noise)
        return z + self.prior_mean(batch), latent.log_prior(z), latent.log_posterior(noise, log_sd)

    def log_weights(
        self, batch: UserBatch, noise: Tensor, estimator: MissingTerm, cell_noise: Tensor | None = None
    ) -> tuple[LogWeights, Tensor]:
        """Return the terms of log w (eq. 9) and the draws z (S, B, K').

        Parameters
        ----------
        batch : UserBatch
            B users.
        noise : Tensor
            (S, B, K') standard normal.
        estimator : MissingTerm
            How the missing ratings are dealt with; its decoder is that of the given ones, too.
        cell_noise : Tensor, optional
            Noise of the sampled estimator, from ``decoder.noise((S, B, P))``.
        """
        z, log_p_z, log_q_z = self.sample_posterior(batch, noise)
        log_p_x, log_p_s, log_p_unrated = self.log_likelihood(batch, z, estimator, cell_noise)
        return LogWeights(log_p_x, log_p_s, log_p_z, log_q_z, log_p_unrated), z

    def log_likelihood(
        self, batch: UserBatch, z: Tensor, estimator: MissingTerm, cell_noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return log p(x_obs | z), log p(s | x_obs, z) or its estimate, and the estimator's part of it.

        z (S, B, K') -> (S, B) each.
        """
        taste, z_x = self.split_latent(z)
        log_p_x = batch.sum_by_user(estimator.decoder.pairs(taste, batch).log_prob(batch.ratings))
        log_p_unrated = estimator(taste, z_x, batch, cell_noise)
        log_p_s = log_p_unrated if self.missing.needs_row else log_p_unrated + self._log_mask(z_x, batch)
        return log_p_x, log_p_s, log_p_unrated

    def _log_mask(self, z_x: Tensor, batch: UserBatch) -> Tensor:
        """Log p(s | x) of the known ratings, from the latent of the exposure (S, B, E'): (S, B)."""
        # (1, n) on the support axis: the pairs' own ratings.
        logit = self.missing.logit(batch.ratings[None, :], batch.items).squeeze(0)
        offset = self.exposure.pairs(z_x, batch)
        if offset is not None:
            logit = logit + offset
        known = log_mask(logit, batch, survey_could_be_rated=self.survey_could_be_rated)
        return batch.sum_by_user(known.expand(len(z_x), -1))
