"""What decoders that are a density around a location have in common: the location, its range, the grid."""

import copy
import math
from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor, nn

from mnar_recsys.data import RatingScale
from mnar_recsys.model.decoders.base import Decoder, DrawnRatings, Grid, RatingDistribution
from mnar_recsys.model.decoders.fused_linear import LinearCells, sum_log_unrated_drawn, sum_log_unrated_linear
from mnar_recsys.model.indexing import take
from mnar_recsys.model.priors import log_half_normal


@dataclass(frozen=True)
class Squashed:
    """A location low + width * sigmoid(score), in rating points: score (..., I)."""

    score: Tensor
    low: float
    width: float

    def value(self) -> Tensor:
        """Return the location: (..., I)."""
        return self.low + self.width * torch.sigmoid(self.score)


def _linear_cells(  # noqa: PLR0917
    location: Tensor | Squashed, sd: Tensor, slope: Tensor, intercept: Tensor, offset: Tensor | None, unrated: Tensor
) -> LinearCells:
    """Return cells whose logit is slope * x + intercept + offset, x = location + sd * noise."""
    if isinstance(location, Squashed):
        height, base = slope * location.width, slope * location.low + intercept
        return LinearCells(location.score, True, height, base, slope * sd, offset, unrated)
    return LinearCells(location, False, slope, intercept, slope * sd, offset, unrated)


class HardDraw(DrawnRatings):
    """One rating a cell, location + sd * noise: (..., I), in rating points."""

    def __init__(self, location: Tensor | Squashed, sd: Tensor, noise: Tensor) -> None:
        self._location = location
        self._sd = sd
        self._noise = noise

    @property
    def support(self) -> Tensor:
        """The draw itself: (..., 1, I)."""
        location = self._location.value() if isinstance(self._location, Squashed) else self._location
        return (location + self._sd * self._noise).unsqueeze(-2)

    @property
    def weights(self) -> Tensor:
        """One point of weight 1."""
        return torch.ones((), device=self._noise.device)

    def sum_log_unrated_linear(
        self, slope: Tensor, intercept: Tensor, offset: Tensor | None, unrated: Tensor
    ) -> Tensor:
        """Value and gradient in one pass: see ``fused_linear.sum_log_unrated_drawn``."""
        given = _linear_cells(self._location, self._sd, slope, intercept, offset, unrated)
        return sum_log_unrated_drawn(given, self._noise)


class LocationRatings(RatingDistribution):
    """x | z = location + sd * noise, with expectations by quadrature.

    ``location`` (..., I), as it stands or as ``Squashed``, ``sd`` (1,), (I,) or of each cell, both in rating points;
    ``rule`` are nodes and weights (Q,) of the quadrature over the noise.
    """

    def __init__(self, location: Tensor | Squashed, sd: Tensor, rule: tuple[Tensor, Tensor]) -> None:
        self._given = location
        self._location = None if isinstance(location, Squashed) else location
        self.sd = sd
        self._nodes, self._weights = rule

    @property
    def location(self) -> Tensor:
        """The location, (..., I)."""
        # Not a cached_property: up to Python 3.11 that takes a lock, at which a compiled density falls apart.
        if self._location is None:
            assert isinstance(self._given, Squashed)  # noqa: S101
            self._location = self._given.value()
        return self._location

    @property
    def mean(self) -> Tensor:
        """E[x|z], the location: (..., I)."""
        return self.location

    @property
    def support(self) -> Tensor:
        """Quadrature nodes scaled to each cell: (..., Q, I)."""
        return self.location.unsqueeze(-2) + self._nodes[:, None] * self.sd_by_point

    @property
    def sd_by_point(self) -> Tensor:
        """``sd``, broadcastable to points of each cell (..., Q, I)."""
        return self.sd if self.sd.dim() < 2 else self.sd.unsqueeze(-2)

    def standardised(self, points: Tensor) -> Tensor:
        """Return how many sd from each cell's location some points (G,) are: (..., G, I)."""
        return (points[:, None] - self.location.unsqueeze(-2)) / self.sd_by_point

    @property
    def support_weights(self) -> Tensor:
        """Quadrature weights: (Q, 1)."""
        return self._weights[:, None]

    def sum_log_unrated_linear(
        self, slope: Tensor, intercept: Tensor, offset: Tensor | None, unrated: Tensor
    ) -> Tensor:
        """Value and gradient in one pass: see ``fused_linear.sum_log_unrated_linear``."""
        given = _linear_cells(self._given, self.sd, slope, intercept, offset, unrated)
        return sum_log_unrated_linear(given, self._nodes, self._weights)


class LocationDecoder(Decoder):
    """x_ij | z = low + (high - low) sigmoid(w_j . z + c_j) + sd * noise, sd learned; the noise is the subclass's.

    [low, high] is the rating scale and ``margin`` on either side. Observed ratings lie about slope * sd^2 above the
    others (a Gaussian times a rising odds is a shifted Gaussian), so a mean that cannot go below the scale makes a true
    slope improbable wherever ratings near its end are common.

    Parameters
    ----------
    item_means : Tensor
        (P,) starting locations of the items in rating points.
    margin : float
        Rating points by which the location may leave the scale; 0 in the paper.
    initial_sd : float
        Starting value of sd, in rating points.
    variance : "shared" or "per-item"
        One sd for all items, or one each: A.3 can be read both ways.
    """

    def __init__(
        self,
        item_means: Tensor,
        scale: RatingScale,
        *,
        initial_sd: float,
        margin: float,
        latent_size: int,
        variance: Literal["shared", "per-item"],
    ) -> None:
        low, high = scale.low - margin, scale.high + margin
        share = ((item_means - low) / (high - low)).clamp(0.02, 0.98)
        super().__init__(torch.logit(share)[None, :], latent_size)
        self.scale = scale
        self.mean_range = (low, high)
        self.rounded_to: Tensor | None = None
        self.has_item_sd = variance == "per-item"
        size = len(item_means) if self.has_item_sd else 1
        self.log_sd = nn.Parameter(torch.full((size,), math.log(initial_sd)))

    def log_density(self) -> Tensor:
        """Log density of the log sd, where the sd is half-normal with half the width of the scale."""
        return log_half_normal(self.log_sd, self.scale.half_width)

    def location(self, natural: Tensor) -> Squashed:
        """Location of each cell in rating points, from natural parameters (..., 1, I): (..., I)."""
        low, high = self.mean_range
        return Squashed(natural.squeeze(-2), low, high - low)

    def sd(self, items: slice | Tensor) -> Tensor:
        """Return sd, (1,) or that of the items (I,), in rating points."""
        return torch.exp(take(self.log_sd, items) if self.has_item_sd else self.log_sd)

    def on_levels(self, levels: Tensor) -> Self:
        """Return the decoder of the ratings rounded to ``levels`` (R,), which shares this one's weights.

        A density says nothing that a probability of levels could be compared with; the probability that the rating
        rounds to a level does.
        """
        other = copy.copy(self)
        other.rounded_to = levels
        return other

    def item_axes(self) -> dict[str, int]:
        """Return which tensors have a row for each item; see ``HasItemRows``."""
        return super().item_axes() | ({"log_sd": 0} if self.has_item_sd else {})

    def grid(self) -> Grid:
        """Bins of at most half an sd that cover four of them beyond the range of the location.

        Half-way marks between levels are edges, so that a level's probability is a sum of bins.
        """
        sd = float(torch.exp(self.log_sd.detach()).max())
        step = self.scale.step or (self.scale.high - self.scale.low) / 10
        share = 2 * math.ceil(step / float(torch.exp(self.log_sd.detach()).min()))
        beyond = self.scale.low - self.mean_range[0] + 4 * sd
        margin = math.ceil(beyond / step) + 0.5
        steps = round((self.scale.high - self.scale.low) / step) + 2 * margin
        edges = self.scale.low + step * (
            torch.arange(round(steps * share) + 1, device=self.log_sd.device) / share - margin
        )
        return Grid(edges[:-1], (edges[:-1] + edges[1:]) / 2, edges[1:])


def bin_masses(below: Tensor) -> Tensor:
    """Probability of each bin from that below its inner edges: (..., G - 1, I) -> (..., G, I).

    The first and the last bin are open to the outside.
    """
    ends = below[..., :1, :]
    return torch.diff(below, dim=-2, prepend=torch.zeros_like(ends), append=torch.ones_like(ends))
