"""The densities of MF-MNAR: ordinal matrix factorization of the ratings, logistic factorization of who rates what.

Symbols: n cells, D taste factors, E exposure factors, R levels. Everything a user or an item has is one vector.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, logsigmoid

_BEYOND = 40.0  # a cut that the standard normal never passes in float32
_ROOT_2 = math.sqrt(2.0)
_SMALLEST = 1e-20  # of a level's probability, so that its logarithm has a gradient


@dataclass(frozen=True)
class Layout:
    """Where the parts of a user's and of an item's vector are."""

    taste: int
    exposure: int
    levels: int

    @property
    def user(self) -> list[int]:
        """Lengths of a user's taste (D), exposure (E), selection (R) and log noise variance (1)."""
        return [self.taste, self.exposure, self.levels, 1]

    @property
    def item(self) -> list[int]:
        """Lengths of an item's parts: a user's, and first cut and log gaps between cuts (R - 1)."""
        return [*self.user, self.levels - 1]

    @cached_property
    def selection(self) -> slice:
        """Where selection is, in users and in items."""
        return slice(self.taste + self.exposure, self.taste + self.exposure + self.levels)


class GaussianTable(nn.Module):
    """Independent Gaussian posteriors of one vector a row, with a Gaussian prior of each column shared by the rows.

    A value is prior mean + prior sd * w with w ~ N(0, 1) a priori and q(w) = N(mean, sd^2) of its own: priors move all
    rows at once, which posteriors of the values themselves would follow only slowly. The last row, for the unknown,
    stays the prior.
    """

    def __init__(self, rows: int, prior_mean: Tensor, prior_sd: Tensor, posterior_sd: float) -> None:
        super().__init__()
        self.prior_mean = nn.Parameter(prior_mean)
        self.prior_log_sd = nn.Parameter(prior_sd.log())
        self.mean = nn.Parameter(torch.zeros(rows + 1, len(prior_mean)))
        self.log_sd = nn.Parameter(torch.full((rows + 1, len(prior_mean)), math.log(posterior_sd)))
        with torch.no_grad():
            self.log_sd[-1] = 0.0

    def values(self, index: Tensor, noise: Tensor) -> Tensor:
        """Return values of rows (n,) at standard normal ``noise`` (..., n, width) or one that broadcasts to it."""
        rows = len(self.mean) - 1
        mean, log_sd = (embedding(index, table, padding_idx=rows) for table in (self.mean, self.log_sd))
        return self.prior_mean + self.prior_log_sd.exp() * (mean + log_sd.exp() * noise)

    def kl(self) -> Tensor:
        """Return KL(q || prior) over all rows, in nats, a scalar; the last row has none."""
        return (0.5 * (self.mean.square() + (2.0 * self.log_sd).exp() - 1.0) - self.log_sd).sum()


class CellTerms(NamedTuple):
    """What cells are, given values of their users and items."""

    probability: Tensor
    """(..., n, R), P(x = level)."""
    log_odds: Tensor
    """(..., n, R), of being rated, given the level."""

    def log_rated(self, level: Tensor) -> Tensor:
        """Return log P(x = level, rated) for levels 0..R-1, (n,): (..., n)."""
        index = level.expand(self.probability.shape[:-1]).unsqueeze(-1)
        terms = self.probability.gather(-1, index).log() + logsigmoid(self.log_odds.gather(-1, index))
        return terms.squeeze(-1)

    def log_unrated(self) -> Tensor:
        """Return log P(not rated), the level summed out: (..., n)."""
        return (self.probability * torch.sigmoid(-self.log_odds)).sum(-1).log()


class OrdinalMf(nn.Module):
    """Both factorizations, as tables of users and of items."""

    def __init__(self, layout: Layout, user: GaussianTable, item: GaussianTable) -> None:
        super().__init__()
        self.layout = layout
        self.user = user
        self.item = item

    def draw(self, rows: Tensor, columns: Tensor, generator: torch.Generator) -> CellTerms:
        """Return the terms of cells, (n,), each with a draw of its own of all that it depends on."""
        user = torch.randn(len(rows), sum(self.layout.user), generator=generator)
        item = torch.randn(len(rows), sum(self.layout.item), generator=generator)
        return self.terms(rows, columns, user, item)

    def terms(self, rows: Tensor, columns: Tensor, user_noise: Tensor, item_noise: Tensor) -> CellTerms:
        """Return the terms of cells at standard normal noise that broadcasts to (..., n, width)."""
        u, e, by_user, user_variance = torch.split(self.user.values(rows, user_noise), self.layout.user, dim=-1)
        v, f, by_item, item_variance, cuts = torch.split(
            self.item.values(columns, item_noise), self.layout.item, dim=-1
        )
        location = (u * v).sum(-1, keepdim=True)
        log_odds = (e * f).sum(-1, keepdim=True) + by_user + by_item
        return CellTerms(ordinal(location, cuts, user_variance + item_variance), log_odds)


def ordinal(location: Tensor, cuts: Tensor, log_variance: Tensor) -> Tensor:
    """Return the probabilities that N(location, variance) lies between neighbouring cuts, (..., R).

    Parameters
    ----------
    location, log_variance
        (..., 1).
    cuts
        The first cut, and the log of the gap from each cut to the next, (..., R - 1).
    """
    first, log_gaps = cuts[..., :1], cuts[..., 1:]
    cut = torch.cat([first, first + log_gaps.exp().cumsum(-1)], dim=-1)
    z = (cut - location) * torch.exp(-0.5 * log_variance)
    end = torch.full_like(z[..., :1], _BEYOND)
    low, high = torch.cat([-end, z], dim=-1), torch.cat([z, end], dim=-1)
    # In the upper tail the difference of two numbers near 1 would round to 0; mirrored, it is one of small numbers.
    mirrored = low > 0.0
    low, high = torch.where(mirrored, -high, low), torch.where(mirrored, -low, high)
    # erfc, because torch.special.ndtr is 0 in float32 from 5.6 standard deviations on.
    return (0.5 * (torch.erfc(-high / _ROOT_2) - torch.erfc(-low / _ROOT_2))).clamp_min(_SMALLEST)
