"""Student-t decoder: as the Gaussian one, with tails whose weight is learned."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, softplus

from mnar_recsys.data import RatingScale
from mnar_recsys.model.decoders.base import DrawnRatings, Grid, RatingDistribution
from mnar_recsys.model.decoders.location import HardDraw, LocationDecoder, LocationRatings, Squashed, bin_masses
from mnar_recsys.model.decoders.rounded import RoundedRatings
from mnar_recsys.model.decoders.student_math import (
    cdf,
    log_density,
    quadrature_nodes,
    quadrature_weights,
    quantile,
)

INITIAL_DF = 8.0
MIN_DF = 2.0


class StudentTRatings(LocationRatings):
    """x | z ~ location + sd * t(df), df (1,); see ``LocationRatings``.

    The standard deviation of x is sd * sqrt(df / (df - 2)). Expectations are by quadrature over nodes far out into the
    tails; of a square they lack what lies beyond, which is little unless df is near 2.
    """

    def __init__(self, location: Tensor | Squashed, sd: Tensor, df: Tensor, rule: tuple[Tensor, Tensor]) -> None:
        super().__init__(location, sd, rule)
        self.df = df

    def log_prob(self, ratings: Tensor) -> Tensor:
        """Log density per rating point: (..., I)."""
        return log_density((ratings - self.location) / self.sd, self.df) - torch.log(self.sd)

    def mass(self, grid: Grid) -> Tensor:
        """Probability of each bin, the first and last open to the outside: (..., G, I)."""
        return bin_masses(cdf(self.standardised(grid.upper[:-1]), self.df))

    def on_levels(self, levels: Tensor) -> RoundedRatings:
        """Return the distribution of the nearest of ``levels`` (R,)."""
        return RoundedRatings(self.location, self.sd, levels, lambda x: cdf(x, self.df))

    def draw(self, noise: Tensor) -> DrawnRatings:
        """Reparameterised draw, location + sd * the quantile of the noise: it has gradients in df, too."""
        return HardDraw(self._given, self.sd, quantile(noise, self.df))


class StudentTDecoder(LocationDecoder):
    """x_ij | z ~ low + (high - low) sigmoid(w_j . z + c_j) + sd * t(df); see ``LocationDecoder`` for other parameters.

    A few ratings far from what the taste explains then neither widen the spread of all others nor bend the taste.

    Parameters
    ----------
    df : float or None
        Degrees of freedom, above 2; None to learn one number for all items, from INITIAL_DF.
    """

    def __init__(
        self, item_means: Tensor, scale: RatingScale, *, df: float | None, initial_sd: float, **options: Any
    ) -> None:
        start = INITIAL_DF if df is None else df
        # So that the ratings start with the standard deviation asked for.
        super().__init__(item_means, scale, initial_sd=initial_sd * math.sqrt((start - MIN_DF) / start), **options)
        raw = torch.log(torch.expm1(torch.tensor([start - MIN_DF], dtype=torch.float64)))
        self.raw_df = nn.Parameter(raw.float(), requires_grad=df is None)
        nodes, log_jacobian = quadrature_nodes()
        self.nodes: Tensor
        self.log_jacobian: Tensor
        self.register_buffer("nodes", nodes, persistent=False)
        self.register_buffer("log_jacobian", log_jacobian, persistent=False)

    @property
    def df(self) -> Tensor:
        """Degrees of freedom: (1,)."""
        return MIN_DF + softplus(self.raw_df)

    def log_density(self) -> Tensor:
        """Log density of the log sd as in ``LocationDecoder``, and of the raw df where df ~ Gamma(2, .1).

        The prior is that of Juarez & Steel (2010).
        """
        total = super().log_density()
        if not self.raw_df.requires_grad:
            return total
        df = self.df
        return total + (torch.log(df) - 0.1 * df + logsigmoid(self.raw_df)).sum()

    def distribution(self, natural: Tensor, items: slice | Tensor) -> RatingDistribution:
        """Student-t of each cell from natural parameters (..., 1, I), or of its nearest level: see ``on_levels``."""
        df = self.df
        rule = self.nodes, quadrature_weights(self.nodes, self.log_jacobian, df)
        ratings = StudentTRatings(self.location(natural), self.sd(items), df, rule)
        return ratings if self.rounded_to is None else ratings.on_levels(self.rounded_to)

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Return uniform noise inside (0, 1), (S, B, I)."""
        return torch.rand(shape, generator=generator, device=generator.device).clamp_(1e-7, 1 - 1e-7)
