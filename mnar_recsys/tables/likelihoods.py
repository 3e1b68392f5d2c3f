"""p(x|z) of every feature from its natural parameters: the recommender's distributions, in the units of the model."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from mnar_recsys.model.decoders import GaussianRatings, Grid, LevelRatings, RatingDistribution, StudentTRatings
from mnar_recsys.model.decoders.level_math import gumbel
from mnar_recsys.model.decoders.student_math import quadrature_nodes, quadrature_weights
from mnar_recsys.model.decoders.student_t import INITIAL_DF, MIN_DF
from mnar_recsys.model.quadrature import gauss_hermite

# The slope of a mask that is a threshold grows without bound, and with it what a quadrature needs. In training that may
# be a little off, in imputations it must not.
_NODES, _FINE_NODES = 16, 64
_GRID_BINS = 512
_SOFT_TEMPERATURE = 0.5


class Likelihood(nn.Module, ABC):
    """Distributions of the features given z, and what goes with them."""

    n_channels: int
    """natural parameters of a feature"""

    @abstractmethod
    def forward(self, natural: Tensor) -> RatingDistribution:
        """Return the distribution of each cell: natural parameters (..., C, P) -> cells (..., P)."""

    @abstractmethod
    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Return noise for draws of cells of this shape (..., P)."""

    @abstractmethod
    def grid(self, low: float, high: float) -> Grid:
        """Return bins for quantiles and draws, for values observed between ``low`` and ``high``."""


class _Spread(nn.Module):
    """A standard deviation: one for all features, or the second natural parameter of each cell; with a floor."""

    def __init__(self, *, shared: bool, least: float) -> None:
        super().__init__()
        self.least = least
        self.raw = nn.Parameter(torch.tensor(math.log(math.expm1(1.0)))) if shared else None

    def forward(self, natural: Tensor) -> Tensor:
        raw = natural[..., 1, :] if self.raw is None else self.raw
        return self.least + softplus(raw)


class Gaussian(Likelihood):
    """x | z ~ N(mean, sd^2): both of each cell, or ``shared_sd`` for all features, as in PPCA."""

    def __init__(self, *, shared_sd: bool, least_sd: float) -> None:
        super().__init__()
        self.n_channels = 1 if shared_sd else 2
        self.sd = _Spread(shared=shared_sd, least=least_sd)
        for name, count in (("rule", _NODES), ("fine_rule", _FINE_NODES)):
            self.register_buffer(name, torch.stack(gauss_hermite(count)), persistent=False)

    def forward(self, natural: Tensor) -> RatingDistribution:
        """Return the Gaussian of each cell; in ``eval`` mode with a finer quadrature."""
        rule = self.get_buffer("rule" if self.training else "fine_rule")
        return GaussianRatings(natural[..., 0, :], self.sd(natural), (rule[0], rule[1]))

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Return standard normal noise."""
        return torch.randn(shape, generator=generator)

    def grid(self, low: float, high: float) -> Grid:
        """Return bins that reach as far beyond the observed values on either side as these are apart."""
        return _wide_grid(low, high)


class StudentT(Likelihood):
    """x | z ~ location + sd * t(df), with learned degrees of freedom, one number for all features."""

    def __init__(self, *, shared_sd: bool, least_sd: float) -> None:
        super().__init__()
        self.n_channels = 1 if shared_sd else 2
        self.sd = _Spread(shared=shared_sd, least=least_sd)
        self.raw_df = nn.Parameter(torch.tensor([math.log(math.expm1(INITIAL_DF - MIN_DF))]))
        nodes, log_jacobian = quadrature_nodes()
        self.nodes: Tensor
        self.log_jacobian: Tensor
        self.register_buffer("nodes", nodes, persistent=False)
        self.register_buffer("log_jacobian", log_jacobian, persistent=False)

    def forward(self, natural: Tensor) -> RatingDistribution:
        """Return the Student-t of each cell."""
        df = MIN_DF + softplus(self.raw_df)
        rule = self.nodes, quadrature_weights(self.nodes, self.log_jacobian, df)
        return StudentTRatings(natural[..., 0, :], self.sd(natural), df, rule)

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Return uniform noise inside (0, 1)."""
        return torch.rand(shape, generator=generator).clamp_(1e-7, 1 - 1e-7)

    def grid(self, low: float, high: float) -> Grid:
        """Return bins that reach as far beyond the observed values on either side as these are apart."""
        return _wide_grid(low, high)


class Bernoulli(Likelihood):
    """x | z is 1 with probability sigmoid(logit), else 0: rating levels, of which there are two."""

    n_channels = 1

    def __init__(self) -> None:
        super().__init__()
        self.levels: Tensor
        self.register_buffer("levels", torch.tensor([0.0, 1.0]), persistent=False)

    def forward(self, natural: Tensor) -> RatingDistribution:
        """Return the levels of each cell."""
        logits = torch.cat([torch.zeros_like(natural), natural], -2)
        return LevelRatings(logits, self.levels, _SOFT_TEMPERATURE)

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Return standard Gumbel noise (..., 2, P)."""
        return gumbel((*shape[:-1], 2, shape[-1]), generator)

    def grid(self, low: float, high: float) -> Grid:  # noqa: ARG002
        """Return the two levels."""
        return Grid(self.levels, self.levels, self.levels)


def _wide_grid(low: float, high: float) -> Grid:
    width = max(high - low, 1.0)
    edges = torch.linspace(low - width, high + width, _GRID_BINS + 1)
    return Grid(edges[:-1], (edges[:-1] + edges[1:]) / 2, edges[1:])
