"""A given mechanism: P(s = 1 | r) at some ratings, linear in the log-odds between them, or a map."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mnar_recsys.data import FeatureTable
from mnar_recsys.model.indexing import take
from mnar_recsys.model.missing.base import MissingModel, Slope, interpolate


class Known(MissingModel):
    """logit pi_ij = logit P(s = 1 | x_ij), as given; with ``adjust``, a learned rising affine map of it.

    With ``adjust`` the given log-odds are scaled by a slope >= 0 that starts at 1 and each item has a bias, so
    propensities known only up to scale (relative selection by level) can be used. A propensity that is constant in
    the rating is ignorable and changes nothing.

    Parameters
    ----------
    item_log_odds : Tensor
        (P,) log-odds of the items, where the biases start if ``adjust``.
    propensities : tuple of (rating, P(s = 1 | rating))
        At least two points; sorted here.
    """

    def __init__(self, item_log_odds: Tensor, propensities: tuple[tuple[float, float], ...], *, adjust: bool) -> None:
        super().__init__(item_log_odds)
        points = torch.tensor(sorted(propensities), dtype=torch.float32)
        self.ratings: Tensor
        self.log_odds: Tensor
        self.register_buffer("ratings", points[:, 0].contiguous(), persistent=False)
        self.register_buffer("log_odds", torch.logit(points[:, 1]), persistent=False)
        self.steepness: Slope | None = None
        if adjust:
            self.steepness = Slope("positive", 1.0)
            nn.init.constant_(self.steepness.raw, float(torch.log(torch.expm1(torch.tensor(1.0)))))
        else:
            self.item_bias = nn.Parameter(torch.zeros_like(item_log_odds), requires_grad=False)

    def know_items(self, table: FeatureTable) -> None:
        """Let features decide where the biases are expected, where there are any to learn; what is given stays."""
        if self.steepness is not None:
            super().know_items(table)

    def log_density(self, sd: float | None) -> Tensor | float:  # noqa: ARG002
        """Log density of the stored steepness, which is flat a priori."""
        return 0.0 if self.steepness is None else self.steepness.log_density(None)

    def selection(self, ratings: Tensor) -> Tensor:
        """Return the given log-odds at the ratings, adjusted if asked for: any shape."""
        given = interpolate(ratings, self.ratings, self.log_odds)
        if self.steepness is None:
            return given
        steepness: Tensor = self.steepness()
        return steepness * (given - self.log_odds.mean())


class KnownMap(MissingModel):
    """logit pi_j = log_odds(x)_j, as given: (..., P) -> (..., P), in the units in which ``log_odds`` is told.

    ``unit`` and ``centre`` (P,) take the model's values there, x = centre + unit * value. Nothing is learned.
    """

    def __init__(self, log_odds: Callable[[Tensor], Tensor], *, centre: Tensor, unit: Tensor) -> None:
        super().__init__(torch.zeros_like(centre))
        self.item_bias.requires_grad_(False)
        self.log_odds = log_odds
        self.centre: Tensor
        self.unit: Tensor
        self.register_buffer("centre", centre, persistent=False)
        self.register_buffer("unit", unit, persistent=False)

    def added(self, ratings: Tensor, items: slice | Tensor) -> Tensor:
        """Return the given log-odds; there are no biases."""
        return self.log_odds(take(self.centre, items) + take(self.unit, items) * ratings)

    def selection(self, ratings: Tensor) -> Tensor:
        """Return the mean log-odds of all features at these values: (R,) -> (R,)."""
        return self.added(ratings[:, None], slice(None)).expand(-1, len(self.centre)).mean(-1)
