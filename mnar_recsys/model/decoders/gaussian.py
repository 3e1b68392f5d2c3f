"""Gaussian decoder: mean through a sigmoid scaled to a range, variance shared or per item (A.3)."""

import math
from typing import Any

import torch
from torch import Tensor

from mnar_recsys.data import RatingScale
from mnar_recsys.model.decoders.base import DrawnRatings, Grid, RatingDistribution
from mnar_recsys.model.decoders.location import HardDraw, LocationDecoder, LocationRatings, bin_masses
from mnar_recsys.model.decoders.rounded import RoundedRatings
from mnar_recsys.model.quadrature import gauss_hermite


class GaussianRatings(LocationRatings):
    """x | z ~ N(location, sd^2); see ``LocationRatings``."""

    def log_prob(self, ratings: Tensor) -> Tensor:
        """Log density per rating point: (..., I)."""
        standard = (ratings - self.location) / self.sd
        return -0.5 * standard.square() - torch.log(self.sd) - 0.5 * math.log(2 * math.pi)

    def mass(self, grid: Grid) -> Tensor:
        """Probability of each bin, the first and last open to the outside: (..., G, I)."""
        return bin_masses(torch.special.ndtr(self.standardised(grid.upper[:-1])))

    def on_levels(self, levels: Tensor) -> RoundedRatings:
        """Return the distribution of the nearest of ``levels`` (R,)."""
        return RoundedRatings(self.location, self.sd, levels)

    def draw(self, noise: Tensor) -> DrawnRatings:
        """Reparameterised draw, mean + sd * noise."""
        return HardDraw(self._given, self.sd, noise)


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
