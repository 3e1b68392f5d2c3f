"""The joint model p(x, s) of the rows of a table, on the recommender's missing models, distributions and bound."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from mnar_recsys.model import latent
from mnar_recsys.model.bound import LogWeights, importance_bound
from mnar_recsys.model.decoders import RatingDistribution
from mnar_recsys.model.indexing import masked_sum
from mnar_recsys.model.missing import MissingModel
from mnar_recsys.model.missing_term import ALL_ITEMS
from mnar_recsys.tables.encoders import TableEncoder
from mnar_recsys.tables.latent_posterior import LatentPosterior
from mnar_recsys.tables.likelihoods import Likelihood
from mnar_recsys.tables.networks import Network


@dataclass(frozen=True)
class RowDraws:
    """S draws of what is hidden in B rows of P features, with their weights."""

    natural: Tensor
    """(S, B, C, P) natural parameters of the features"""
    cells: RatingDistribution
    """p(x|z) of each draw, (S, B, P)"""
    weights: LogWeights
    complete: Tensor | None
    """(S, B, P) rows whose missing values were drawn, where they were"""


class TableVae(nn.Module):
    """not-MIWAE (eqs. 4-9) for rows in which every feature has a value that is observed or missing.

    ``marginal`` says how it is trained: missing values are summed out, or drawn as in the paper.
    """

    def __init__(
        self,
        encoder: TableEncoder,
        posterior: LatentPosterior,
        network: Network,
        likelihood: Likelihood,
        missing: MissingModel,
        *,
        latent_size: int,
        marginal: bool,
    ) -> None:
        super().__init__()
        self.latent_size = latent_size
        self.encoder = encoder
        self.posterior = posterior
        self.network = network
        self.likelihood = likelihood
        self.missing = missing
        self.marginal = marginal

    def forward(self, values: Tensor, observed: Tensor, noise: Tensor, cell_noise: Tensor | None = None) -> Tensor:
        """Return the bound of each row (eq. 8), in nats: see ``draw`` -> (B,)."""
        return importance_bound(self.draw(values, observed, noise, cell_noise).weights.total)

    def draw(self, values: Tensor, observed: Tensor, noise: Tensor, cell_noise: Tensor | None) -> RowDraws:
        """Draw z, and the missing values where they are drawn, and weight the draws.

        Parameters
        ----------
        values, observed : Tensor
            (B, P) values in the units of the model, 0 where missing; 1 where observed, else 0.
        noise : Tensor
            (S, B, K) from ``posterior.noise``.
        cell_noise : Tensor or None
            (S, B, ..., P) from ``likelihood.noise`` to draw missing values, so that weights are those of eq. 9 as it
            stands; None to sum them out, which a missing model of whole rows has no form for (ValueError).
        """
        mean, log_sd = self.encoder(values, observed)
        z, log_q_z = self.posterior(mean, log_sd, noise)
        natural = self.network(z)
        cells: RatingDistribution = self.likelihood(natural)
        log_p_x = masked_sum(cells.log_prob(values), observed)
        complete = None
        if cell_noise is None:
            log_rated = masked_sum(logsigmoid(self.missing.logit(values, ALL_ITEMS)), observed)
            log_unrated = masked_sum(self._log_missing(cells), 1 - observed)
        else:
            complete = torch.where(observed == 1, values, cells.draw(cell_noise).ratings)
            logit = self.missing.row_logit(complete)
            log_rated = masked_sum(logsigmoid(logit), observed)
            log_unrated = masked_sum(logsigmoid(-logit), 1 - observed)
        weights = LogWeights(log_p_x, log_rated + log_unrated, latent.log_prior(z), log_q_z, log_unrated)
        return RowDraws(natural, cells, weights, complete)

    def linear_parts(self) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
        """Return W (P, K), b (P,) and sd of a linear Gaussian decoder, x = W z + b + sd * noise."""
        at_zero, at_unit = torch.zeros(1, 1, self.latent_size), torch.eye(self.latent_size)[None]
        with torch.no_grad():
            bias = self.network(at_zero)[0, 0, 0].double()
            weight = (self.network(at_unit)[0, :, 0].double() - bias).T
            sd = self.likelihood(self.network(at_zero)).sd
        return weight.numpy(), bias.numpy(), float(sd.mean())

    def _log_missing(self, cells: RatingDistribution) -> Tensor:
        """Log E[1 - pi(x) | z] of every cell: broadcastable to (S, B, P)."""
        if not self.missing.depends_on_rating:
            return logsigmoid(-self.missing.logit(self.missing.bias(), ALL_ITEMS))
        return cells.log_unrated(self.missing.logit(cells.support, ALL_ITEMS), None)
