"""Gaussian decoder: mean through a sigmoid scaled to a range, variance shared or per item (A.3)."""

import math
from typing import Any

import torch
from torch import Tensor

from mnar_recsys.data import RatingScale
from mnar_recsys.model.decoders.base import DrawnRatings, Grid, RatingDistribution
from mnar_recsys.model.decoders.fused_linear import SumLogUnratedLinear
from mnar_recsys.model.decoders.location import HardDraw, LocationDecoder, bin_masses
from mnar_recsys.model.decoders.rounded import RoundedRatings
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
        """Value and gradient in one pass: see ``SumLogUnratedLinear``."""
        eta = slope * self._mean + intercept
        summed = SumLogUnratedLinear.apply(  # type: ignore[no-untyped-call]
            eta, slope * self.sd, offset, unrated, self._nodes, self._weights
        )
        assert isinstance(summed, Tensor)  # noqa: S101
        return summed

    def mass(self, grid: Grid) -> Tensor:
        """Probability of each bin, the first and last open to the outside: (..., G, I)."""
        inner = grid.upper[:-1, None]
        return bin_masses(torch.special.ndtr((inner - self._mean.unsqueeze(-2)) / self.sd))

    def on_levels(self, levels: Tensor) -> RoundedRatings:
        """Return the distribution of the nearest of ``levels`` (R,)."""
        return RoundedRatings(self._mean, self.sd, levels)

    def draw(self, noise: Tensor) -> DrawnRatings:
        """Reparameterised draw, mean + sd * noise."""
        return HardDraw(self._mean + self.sd * noise)


class GaussianDecoder(LocationDecoder):
    """x_ij | z ~ N(low + (high - low) sigmoid(w_j . z + c_j), sd^2); see ``LocationDecoder`` for its parameters."""

    def __init__(self, item_means: Tensor, scale: RatingScale, *, quadrature_nodes: int, **options: Any) -> None:
        super().__init__(item_means, scale, **options)
        nodes, weights = gauss_hermite(quadrature_nodes)
        self.nodes: Tensor
        self.node_weights: Tensor
        self.register_buffer("nodes", nodes, persistent=False)
        self.register_buffer("node_weights", weights, persistent=False)

    def distribution(self, natural: Tensor, items: slice | Tensor) -> RatingDistribution:
        """Gaussian of each cell from natural parameters (..., 1, I), or of its nearest level: see ``on_levels``."""
        ratings = GaussianRatings(self.location(natural), self.sd(items), (self.nodes, self.node_weights))
        return ratings if self.rounded_to is None else ratings.on_levels(self.rounded_to)

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Return standard normal noise (S, B, I)."""
        return torch.randn(shape, generator=generator, device=generator.device)
