"""The variational autoencoder with a Gaussian likelihood on the rated cells."""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from baselines.autoencoders import Autoencoder, AutoencoderBaseline, RowBatch, SparseRows
from baselines.fitting import check_positive
from mnar_recsys.errors import ConfigError


class GaussianVae(AutoencoderBaseline):
    r"""Multi-layer VAE of a user's ratings, with a Gaussian likelihood and an annealed KL term.

    Maximises :math:`E_{q(z_u | x_u)} [\log p(x_u | z_u)] - \beta\, KL(q(z_u | x_u) \,\|\, N(0, I))` with
    :math:`\log p(x_u | z_u) = -\frac12 \sum_i c_{ui} (x_{ui} - f_i(z_u))^2` (Liang, Krishnan, Hoffman and Jebara,
    Variational autoencoders for collaborative filtering, WWW 2018, eqs. 3 and 6): encoder and decoder have one tanh
    layer each, the input has dropout, beta rises linearly from 0 in the first passes, and predictions decode the mean
    of q. The paper's data are clicks, where c is 1 for a click and small elsewhere. Here c is 1 where rated and 0 where
    not, so that the sum is over rated cells only: the reading of those who compare it on explicit, selected ratings
    (Wang, Zhang, Sun and Qi, ICML 2019; Ipsen, Mattei and Frellsen, ICLR 2021).

    Ratings count in units of their standard deviation. An unrated input is 0, and a row of input is divided by the root
    of the number of its ratings: the paper divides by the row's length, which would also hide the level of a user's
    ratings.

    Parameters
    ----------
    latent
        Size of z.
    hidden
        Units of the hidden layers.
    beta
        Weight of the KL term at the end of annealing, at least 0.
    annealing
        Passes until beta is reached; a fit that stops sooner ends with less.
    dropout
        Share of the input ratings left out of each step, at least 0 and below 1.
    learning_rate, batch_size, patience
        See ``AutoencoderBaseline``; rows are users.

    Raises
    ------
    ConfigError
        If a setting is out of range.
    """

    search_space: ClassVar[Mapping[str, tuple[Any, ...]]] = MappingProxyType(
        {"latent": (10, 20), "beta": (0.1, 0.2, 0.5), "dropout": (0.2, 0.5)}
    )

    def __init__(
        self,
        *,
        latent: int = 20,
        hidden: int = 100,
        beta: float = 0.2,
        annealing: int = 20,
        dropout: float = 0.5,
        learning_rate: float = 0.005,
        batch_size: int = 128,
        patience: int = 15,
    ) -> None:
        check_positive(latent=latent, annealing=annealing)
        if not 0.0 <= beta < math.inf:
            raise ConfigError(f"beta must be at least 0; found {beta}. Give 1 for the evidence bound itself")
        if not 0.0 <= dropout < 1.0:
            raise ConfigError(f"dropout must be at least 0 and below 1; found {dropout}. Give 0 for none")
        super().__init__(hidden=hidden, learning_rate=learning_rate, batch_size=batch_size, patience=patience)
        self.latent = latent
        self.beta = beta
        self.annealing = annealing
        self.dropout = dropout

    def make_module(self, rows: SparseRows) -> "GaussianVaeNet":
        """Return an untrained network."""
        return GaussianVaeNet(rows, self)


class GaussianVaeNet(Autoencoder):
    """q(z|x) and p(x|z), each with one hidden layer."""

    def __init__(self, rows: SparseRows, method: GaussianVae) -> None:
        self.centre, self.unit = float(rows.values.mean(dtype="float64")), float(rows.values.std()) or 1.0
        super().__init__(rows.n_columns, method.hidden, self.centre)
        self.method = method
        self.posterior = nn.Linear(method.hidden, 2 * method.latent)
        self.decoder = nn.Linear(method.latent, method.hidden)

    def encode(self, batch: RowBatch) -> Tensor:
        """Return the decoder's units at the mean of q(z|x), (B, H)."""
        mean, _ = self.posterior_of(batch, torch.ones_like(batch.values))
        return torch.tanh(self.decoder(mean))

    def loss(self, batch: RowBatch, epoch: int, noise: torch.Generator) -> Tensor:
        """Return the negative annealed bound over the number of ratings in the batch, lower is better."""
        keep = 1.0 - self.method.dropout
        kept = (torch.rand(batch.values.shape, generator=noise) < keep).float() / keep
        mean, log_sd = self.posterior_of(batch, kept)
        z = mean + torch.exp(log_sd) * torch.randn(mean.shape, generator=noise)  # (B, K)
        found = self.decode(torch.tanh(self.decoder(z)), batch.owners, batch.columns)
        misfit = 0.5 * ((found - batch.values) / self.unit).square().sum()
        beta = self.method.beta * min(1.0, epoch / self.method.annealing)
        return (misfit + beta * kl_to_standard_normal(mean, log_sd).sum()) / len(batch.values)

    def posterior_of(self, batch: RowBatch, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log standard deviation of q(z|x), each (B, K), with the ratings weighted, (n,)."""
        counts = torch.bincount(batch.owners, minlength=len(batch.starts))
        values = weights * batch.values / self.unit / counts[batch.owners].sqrt()
        total = self.first(batch.columns, batch.starts, per_sample_weights=values)
        mean, log_sd = self.posterior(torch.tanh(total + self.first_bias)).chunk(2, dim=-1)
        return mean, log_sd


def kl_to_standard_normal(mean: Tensor, log_sd: Tensor) -> Tensor:
    """Return KL(N(mean, sd^2) || N(0, I)) of each row: (B, K), (B, K) -> (B,)."""
    terms: Tensor = 0.5 * (mean.square() + torch.exp(2.0 * log_sd) - 1.0) - log_sd
    return terms.sum(-1)
