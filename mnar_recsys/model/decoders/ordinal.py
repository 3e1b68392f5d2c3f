"""Ordinal decoder: cumulative logit (proportional odds, McCullagh 1980) with learned cut points."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, pad, softplus

from mnar_recsys.data import RatingScale
from mnar_recsys.model.decoders.base import Decoder, DrawnRatings, Grid, RatingDistribution
from mnar_recsys.model.decoders.level_math import gumbel, level_index
from mnar_recsys.model.decoders.levels import LevelRatings
from mnar_recsys.model.decoders.ordinal_kernel import below_by_level, expand_log_unrated, sum_log_unrated_ordinal
from mnar_recsys.model.indexing import take

_LEAST_GAP = 1e-3
# A cut point that no score reaches.
_FAR = 1e4


class OrdinalRatings(RatingDistribution):
    """P(x <= level r | z) = sigmoid(cut_r - score); ``score`` (..., I), ``cuts`` (R - 1,), ``levels`` (R,)."""

    has_levels = True

    def __init__(self, score: Tensor, cuts: Tensor, levels: Tensor, temperature: float) -> None:
        self.score = score
        self.cuts = cuts
        self.levels = levels
        self._temperature = temperature

    @property
    def support(self) -> Tensor:
        """The levels: (R, 1), in rating points."""
        return self.levels[:, None]

    @property
    def support_weights(self) -> Tensor:
        """Probability of each level: (..., R, I)."""
        below = torch.sigmoid(self.cuts[:, None] - self.score.unsqueeze(-2))  # (..., R - 1, I)
        return torch.diff(pad(pad(below, (0, 0, 1, 0)), (0, 0, 0, 1), value=1.0), dim=-2)

    def log_prob(self, ratings: Tensor) -> Tensor:
        """Log probability of ratings (..., I) that stand on levels.

        log(sigmoid(b) - sigmoid(a)) = log sigmoid(b) + log sigmoid(-a) + log(1 - e^(a - b)): no cancellation far out.
        """
        index = level_index(ratings, self.levels)
        ends = torch.full_like(self.cuts[:1], _FAR)
        upper = _at(torch.cat([self.cuts, ends]), index) - self.score
        lower = _at(torch.cat([-ends, self.cuts]), index) - self.score
        gaps = _at(torch.cat([ends, torch.diff(self.cuts), ends]), index)
        return logsigmoid(upper) + logsigmoid(-lower) + torch.log(-torch.expm1(-gaps))

    def sum_log_unrated(self, logit: Tensor, offset: Tensor | None, unrated: Tensor) -> Tensor:
        """Value and gradient in one pass: see ``ordinal_kernel.sum_log_unrated_ordinal``."""
        return sum_log_unrated_ordinal(self.score, self.cuts, logit, offset, unrated)

    def expand_log_unrated(self, logit: Tensor, offset: Tensor | None, unrated: Tensor) -> tuple[Tensor, Tensor]:
        """Return the derivatives in closed form: see ``ordinal_kernel.expand_log_unrated``."""
        return expand_log_unrated(self.score, self.cuts, logit, offset, unrated)

    def mass(self, grid: Grid) -> Tensor:  # noqa: ARG002
        """Return the probability of each level: (..., R, I)."""
        return self.support_weights

    def masses(self, grid: Grid) -> list[Tensor]:  # noqa: ARG002
        """Return the probability of each level: R times (..., I)."""
        below = [torch.zeros_like(self.score), *below_by_level(self.score, self.cuts), torch.ones_like(self.score)]
        return [upper - lower for lower, upper in pairwise(below)]

    def draw(self, noise: Tensor) -> DrawnRatings:
        """Gumbel-softmax draw at the decoder's temperature."""
        tiny = torch.finfo(self.score.dtype).tiny
        return LevelRatings(torch.log(self.support_weights + tiny), self.levels, self._temperature).draw(noise)


class OrdinalDecoder(Decoder):
    """P(x_ij <= level r | z) = sigmoid(cut_r - w_j . z - c_j), cut points shared by the items.

    One weight vector an item, where the categorical decoder has one a level: far less to learn from few ratings.

    Parameters
    ----------
    item_scores : Tensor
        (P,) starting scores of the items, in log-odds.
    level_shares : Tensor
        (R,) starting probabilities of the levels at score 0.
    temperature : float
        Of the Gumbel-softmax draws of the sampled estimator.
    """

    def __init__(
        self, item_scores: Tensor, level_shares: Tensor, scale: RatingScale, *, latent_size: int, temperature: float
    ) -> None:
        super().__init__(item_scores[None, :], latent_size)
        self.temperature = temperature
        self.levels: Tensor
        self.register_buffer("levels", torch.tensor(scale.levels, dtype=torch.float32), persistent=False)
        cuts = torch.logit(torch.cumsum(level_shares, 0)[:-1].clamp(1e-4, 1 - 1e-4))
        gaps = torch.diff(cuts).clamp_min(2 * _LEAST_GAP) - _LEAST_GAP
        self.first_cut = nn.Parameter(cuts[:1].clone())
        self.raw_gaps = nn.Parameter(torch.log(torch.expm1(gaps)))

    def cuts(self) -> Tensor:
        """Return the cut points (R - 1,), rising."""
        gaps = softplus(self.raw_gaps) + _LEAST_GAP
        return torch.cat([self.first_cut, self.first_cut + torch.cumsum(gaps, 0)])

    def log_density(self) -> Tensor:
        """Log density of first cut and raw gaps that makes the shares of the levels at score 0 uniform a priori.

        The shares are differences of sigmoid(cut_r), so the density of the cuts is the product of the sigmoid's
        derivatives (the induced Dirichlet prior; Betancourt 2019); the gaps' softplus adds its own.
        """
        cuts = self.cuts()
        return (logsigmoid(cuts) + logsigmoid(-cuts)).sum() + logsigmoid(self.raw_gaps).sum()

    def distribution(self, natural: Tensor, items: slice | Tensor) -> OrdinalRatings:  # noqa: ARG002
        """Return the levels' distribution of each cell from scores (..., 1, I)."""
        return OrdinalRatings(natural.squeeze(-2), self.cuts(), self.levels, self.temperature)

    def grid(self) -> Grid:
        """Return the levels themselves."""
        return Grid(self.levels, self.levels, self.levels)

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Return standard Gumbel noise (S, B, R, I)."""
        return gumbel((*shape[:-1], len(self.levels), shape[-1]), generator)


def _at(values: Tensor, index: Tensor) -> Tensor:
    return take(values, index.flatten()).view(index.shape)
