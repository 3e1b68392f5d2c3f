"""The terms of GINA's bound, for batches of users with ragged lists of ratings.

Symbols: S draws, B users, n ratings of these users, P items, K latent dimensions. Ratings are in units of the scale's
range, from 0 to 1.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from mnar_recsys.data import RatingLog

_EMBEDDING, _CODE = 20, 50
_LARGEST_LOG_VARIANCE = 10.0
_LOG_2PI = math.log(2.0 * math.pi)


class Batch(NamedTuple):
    """The ratings of B users, n in all, user by user."""

    users: Tensor
    """(n,), place in the batch, 0..B-1."""
    items: Tensor
    """(n,), item indices."""
    ratings: Tensor
    """(n,), 0..1."""
    offsets: Tensor
    """(B + 1,), where each user's ratings begin, and n."""

    @property
    def n_users(self) -> int:
        """The number of users, with or without ratings."""
        return len(self.offsets) - 1


@dataclass(frozen=True, eq=False)
class Ratings:
    """All training ratings in compressed rows; the row after the last user's is the unknown user's, and empty."""

    indptr: Tensor
    items: Tensor
    ratings: Tensor

    @classmethod
    def of_log(cls, log: RatingLog) -> Self:
        """Return the ratings of a log, scaled to 0..1."""
        scaled = (log.ratings - log.scale.low) / (log.scale.high - log.scale.low)
        return cls(
            torch.from_numpy(np.append(log.indptr, log.indptr[-1])),
            torch.from_numpy(log.items.astype(np.int64)),
            torch.from_numpy(scaled.astype(np.float32)),
        )

    def of_users(self, index: Tensor) -> Batch:
        """Return the ratings of users, (B,)."""
        counts = self.indptr[index + 1] - self.indptr[index]
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
        users = torch.repeat_interleave(torch.arange(len(index)), counts)
        place = torch.arange(len(users)) + (self.indptr[index] - offsets[:-1])[users]
        return Batch(users, self.items[place], self.ratings[place], offsets)


class LogWeights(NamedTuple):
    """The terms of log w at draws of z, each (S, B), in nats; w = p(x, s | z) p(z | s) / q(z | x, s)."""

    ratings: Tensor
    """log p(x_obs | z)."""
    mask: Tensor
    """log p(s | x_obs, x_mis) at a draw of x_mis given z."""
    prior: Tensor
    """log p(z | s)."""
    posterior: Tensor
    """log q(z | x_obs, s)."""

    def total(self, mask_weight: float) -> Tensor:
        """Return log w with the mask's term weighted, (S, B)."""
        return self.ratings + mask_weight * self.mask + self.prior - self.posterior


class GinaModel(nn.Module):
    """Set encoder, prior network, decoder and missing model."""

    centre: Tensor

    def __init__(self, n_items: int, latent_size: int, hidden_size: int, *, latent_connection: bool) -> None:
        super().__init__()
        self.n_items = n_items
        self.embedding = nn.Embedding(n_items, _EMBEDDING)
        self.code = nn.Linear(2 * _EMBEDDING, _CODE)
        self.encoder = nn.Sequential(nn.Linear(_CODE, _CODE), nn.Tanh(), nn.Linear(_CODE, 2 * latent_size))
        self.prior = nn.EmbeddingBag(n_items, 2 * latent_size, mode="sum", include_last_offset=True)
        self.prior_bias = nn.Parameter(torch.zeros(2 * latent_size))
        self.hidden = nn.Sequential(nn.Linear(latent_size, hidden_size), nn.Tanh())
        self.decoder = nn.Linear(hidden_size, n_items)
        self.log_sd = nn.Parameter(torch.tensor(math.log(0.3)))
        self.slope = nn.Parameter(torch.zeros(()))
        self.item_log_odds = nn.Parameter(torch.zeros(n_items))
        self.exposure = nn.Linear(latent_size, n_items, bias=False) if latent_connection else None
        self.register_buffer("centre", torch.zeros(()))
        with torch.no_grad():
            # p(z | s) starts near N(0, 1).
            self.prior.weight.mul_(0.02)
            if self.exposure is not None:
                self.exposure.weight.mul_(0.1)

    @torch.no_grad()
    def start_at(self, ratings: Ratings) -> None:
        """Set what is known before training: the items' log-odds of being rated, and the mean rating as centre."""
        rated = (torch.bincount(ratings.items, minlength=self.n_items) + 0.5) / (len(ratings.indptr) - 1.0)
        self.item_log_odds.copy_(torch.logit(rated))
        self.centre.copy_(ratings.ratings.mean())

    def posterior_of(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return mean and log variance of q(z | x_obs, s), each (B, K)."""
        item = self.embedding(batch.items)
        codes = self.code(torch.cat([item, batch.ratings[:, None] * item], dim=1)).relu()
        return _split(self.encoder(codes.new_zeros(batch.n_users, _CODE).index_add(0, batch.users, codes)))

    def prior_of(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return mean and log variance of p(z | s), each (B, K)."""
        return _split(self.prior(batch.items, batch.offsets) + self.prior_bias)

    @staticmethod
    def draw(gaussian: tuple[Tensor, Tensor], noise: Tensor) -> Tensor:
        """Return draws of Gaussians given by mean and log variance, (B, K), at noise (S, B, K)."""
        mean, log_variance = gaussian
        return mean + (0.5 * log_variance).exp() * noise

    def mean_rating(self, z: Tensor, items: Tensor) -> Tensor:
        """Return E[x | z] for every item of a list, (m,): (..., K) -> (..., m), 0..1."""
        return torch.sigmoid(self.hidden(z) @ self.decoder.weight[items].T + self.decoder.bias[items])

    def mean_rating_of_pairs(self, z: Tensor, items: Tensor) -> Tensor:
        """Return E[x | z] of pairs of a z, (..., n, K), and an item, (n,): (..., n), 0..1."""
        return torch.sigmoid((self.hidden(z) * self.decoder.weight[items]).sum(-1) + self.decoder.bias[items])

    def log_odds(self, z: Tensor, items: Tensor) -> Tensor:
        """Return the log-odds that each item of a list, (m,), is rated if its rating is the centre: (..., m)."""
        if self.exposure is None:
            return self.item_log_odds[items].expand(*z.shape[:-1], -1)
        return self.item_log_odds[items] + z @ self.exposure.weight[items].T

    def log_odds_of_pairs(self, z: Tensor, items: Tensor) -> Tensor:
        """Return the same for pairs of a z, (..., n, K), and an item, (n,): (..., n)."""
        if self.exposure is None:
            return self.item_log_odds[items].expand(z.shape[:-1])
        return self.item_log_odds[items] + (z * self.exposure.weight[items]).sum(-1)

    def effect(self, ratings: Tensor) -> Tensor:
        """Return what ratings add to the log-odds of being rated."""
        return self.slope * (ratings - self.centre)

    def log_weights(self, batch: Batch, noise: Tensor, items: Tensor, rating_noise: Tensor) -> LogWeights:
        """Return the terms of log w.

        Parameters
        ----------
        noise
            Standard normal, (S, B, K), for z.
        items
            (m,): items that stand for all; the unrated ones among them are weighted to stand for all unrated ones.
        rating_noise
            Standard normal, broadcasting to (S, B, m), for the missing ratings.
        """
        posterior = self.posterior_of(batch)
        z = self.draw(posterior, noise)  # (S, B, K)
        of_pairs = z[:, batch.users]  # (S, n, K)
        expected = self.mean_rating_of_pairs(of_pairs, batch.items)
        rated = self.log_odds_of_pairs(of_pairs, batch.items) + self.effect(batch.ratings)
        log_ratings = _log_normal(batch.ratings, expected, 2.0 * self.log_sd)
        missing = self.mean_rating(z, items) + self.log_sd.exp() * rating_noise  # (S, B, m)
        unrated = self.log_odds(z, items) + self.effect(missing)
        return LogWeights(
            ratings=_sum_by_user(log_ratings, batch),
            mask=_sum_by_user(logsigmoid(rated), batch)
            + (logsigmoid(-unrated) * self._stand_for(batch, items)).sum(-1),
            prior=_log_normal(z, *self.prior_of(batch)).sum(-1),
            posterior=_log_normal(z, *posterior).sum(-1),
        )

    def _stand_for(self, batch: Batch, items: Tensor) -> Tensor:
        """Return how many unrated items of each user an item of the list stands for, 0 if it is rated, (B, m)."""
        place = torch.full((self.n_items,), -1)
        place[items] = torch.arange(len(items))
        at = place[batch.items]
        unrated = torch.ones(batch.n_users, len(items))
        unrated[batch.users[at >= 0], at[at >= 0]] = 0.0
        n_unrated = self.n_items - batch.offsets.diff()
        return unrated * (n_unrated / unrated.sum(1).clamp_min(1.0))[:, None]


def _split(both: Tensor) -> tuple[Tensor, Tensor]:
    mean, log_variance = both.chunk(2, dim=-1)
    return mean, log_variance.clamp(-_LARGEST_LOG_VARIANCE, _LARGEST_LOG_VARIANCE)


def _log_normal(value: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    return -0.5 * ((value - mean).square() * torch.exp(-log_variance) + log_variance + _LOG_2PI)


def _sum_by_user(values: Tensor, batch: Batch) -> Tensor:
    """Sum values of the ratings, (S, n), over each user's: (S, B)."""
    return values.new_zeros(len(values), batch.n_users).index_add(1, batch.users, values)
