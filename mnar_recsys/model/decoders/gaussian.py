"""Gaussian decoder: mean through a sigmoid scaled to a range, variance shared or per item (A.3)."""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from mnar_recsys.data import RatingScale
from mnar_recsys.model.decoders.base import Decoder, DrawnRatings, Grid, RatingDistribution
from mnar_recsys.model.decoders.fused_gaussian import SumLogUnratedGaussian
from mnar_recsys.model.indexing import take
from mnar_recsys.model.priors import log_half_normal
from mnar_recsys.model.quadrature import gauss_hermite


class GaussianRatings(RatingDistribution):
    """x | z ~ N(mean, sd^2); ``mean`` (..., I), ``sd`` broadcastable to it, in rating points."""

    def __init__(self, mean: Tensor, sd: Tensor, quadrature: tuple[Tensor, Tensor]) -> None:
        self._mean = mean
        self.sd = sd
        self._nodes, self._weights = quadrature

    @property
    def mean(self) -> Tensor:
        """E[x|z]: (..., I)."""
        return self._mean

    @property
    def support(self) -> Tensor:
        """Quadrature nodes scaled to each cell: (..., Q, I)."""
        spread = self._nodes[:, None] * self.sd  # (Q, 1) or (Q, I)
        return self._mean.unsqueeze(-2) + spread

    @property
    def support_weights(self) -> Tensor:
        """Quadrature weights: (Q, 1)."""
        return self._weights[:, None]

    def log_prob(self, ratings: Tensor) -> Tensor:
        """Log density per rating point: (..., I)."""
        standard = (ratings - self._mean) / self.sd
        return -0.5 * standard.square() - torch.log(self.sd) - 0.5 * math.log(2 * math.pi)

    def sum_log_unrated_linear(
        self, slope: Tensor, intercept: Tensor, offset: Tensor | None, unrated: Tensor
    ) -> Tensor:
        """Value and gradient in one pass: see ``SumLogUnratedGaussian``."""
        eta = slope * self._mean + intercept
        summed = SumLogUnratedGaussian.apply(  # type: ignore[no-untyped-call]
            eta, slope * self.sd, offset, unrated, self._nodes, self._weights
        )
        assert isinstance(summed, Tensor)  # noqa: S101
        return summed

    def mass(self, grid: Grid) -> Tensor:
        """Probability of each bin, the first and last open to the outside: (..., G, I)."""
        inner = grid.upper[:-1, None]
        below = torch.special.ndtr((inner - self._mean.unsqueeze(-2)) / self.sd)  # (..., G - 1, I)
        ends = below[..., :1, :]
        return torch.diff(below, dim=-2, prepend=torch.zeros_like(ends), append=torch.ones_like(ends))

    def draw(self, noise: Tensor) -> DrawnRatings:
        """Reparameterised draw, mean + sd * noise."""
        return _HardDraw(self._mean + self.sd * noise)


class _HardDraw(DrawnRatings):
    def __init__(self, ratings: Tensor) -> None:
        self._ratings = ratings

    @property
    def support(self) -> Tensor:
        """The draw itself: (..., 1, I)."""
        return self._ratings.unsqueeze(-2)

    @property
    def weights(self) -> Tensor:
        """One point of weight 1."""
        return torch.ones((), device=self._ratings.device)


class GaussianDecoder(Decoder):
    """x_ij | z ~ N(low + (high - low) sigmoid(w_j . z + c_j), sd^2), sd learned.

    [low, high] is the rating scale and ``margin`` on either side. Observed ratings lie about slope * sd^2 above the
    others (a Gaussian times a rising odds is a shifted Gaussian), so a mean that cannot go below the scale makes a true
    slope improbable wherever ratings near its end are common.

    Parameters
    ----------
    item_means : Tensor
        (P,) starting means of the items in rating points.
    margin : float
        Rating points by which the mean may leave the scale; 0 in the paper.
    initial_sd : float
        Starting standard deviation in rating points.
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
        quadrature_nodes: int,
    ) -> None:
        low, high = scale.low - margin, scale.high + margin
        share = ((item_means - low) / (high - low)).clamp(0.02, 0.98)
        super().__init__(torch.logit(share)[None, :], latent_size)
        self.scale = scale
        self.mean_range = (low, high)
        size = len(item_means) if variance == "per-item" else 1
        self.log_sd = nn.Parameter(torch.full((size,), math.log(initial_sd)))
        nodes, weights = gauss_hermite(quadrature_nodes)
        self.nodes: Tensor
        self.node_weights: Tensor
        self.register_buffer("nodes", nodes, persistent=False)
        self.register_buffer("node_weights", weights, persistent=False)

    def log_density(self) -> Tensor:
        """Log density of the log sd, where the sd is half-normal with half the width of the scale."""
        return log_half_normal(self.log_sd, self.scale.half_width)

    def distribution(self, natural: Tensor, items: slice | Tensor) -> GaussianRatings:
        """Gaussian of each cell from natural parameters (..., 1, I)."""
        low, high = self.mean_range
        mean = low + (high - low) * torch.sigmoid(natural.squeeze(-2))
        log_sd = self.log_sd if self.log_sd.numel() == 1 else take(self.log_sd, items)
        return GaussianRatings(mean, torch.exp(log_sd), (self.nodes, self.node_weights))

    def grid(self) -> Grid:
        """Bins of at most half a standard deviation that cover four of them beyond the range of the mean.

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

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Return standard normal noise (S, B, I)."""
        return torch.randn(shape, generator=generator, device=generator.device)
