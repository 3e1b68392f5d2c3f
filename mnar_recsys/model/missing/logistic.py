"""Logistic missing models: ignorable, shared slope, one slope an item, one weight a rating level."""

import torch
from torch import Tensor, nn

from mnar_recsys.config import Sign
from mnar_recsys.data import RatingScale
from mnar_recsys.model.indexing import take
from mnar_recsys.model.missing.base import TYPICAL_SELECTION, MissingModel, Slope, interpolate


class Ignorable(MissingModel):
    """logit pi_ij = b_j: the mask does not depend on the rating, which makes the model MIWAE (Mattei & Frellsen 2019).

    It keeps the items' biases so that its bound is comparable with that of the other missing models.
    """

    depends_on_rating = False

    def added(self, ratings: Tensor, items: slice | Tensor) -> Tensor:  # noqa: ARG002
        """Return nothing: (1, 1)."""
        return ratings.new_zeros(1, 1)

    def selection(self, ratings: Tensor) -> Tensor:
        """Return zeros: the rating adds nothing."""
        return torch.zeros_like(ratings)


class Logistic(MissingModel):
    """logit pi_ij = w x_ij + b_j with one slope for all items (the paper's model for ratings) or one each.

    Ratings enter centred at the training mean, in units of a quarter of the rating range, so that slope and bias
    are nearly orthogonal and step sizes suit any scale. On 1-5 a unit is one star. ``start``: see ``Slope``.
    """

    def __init__(
        self,
        item_log_odds: Tensor,
        scale: RatingScale,
        *,
        centre: float,
        sign: Sign,
        per_item: bool,
        start: float = TYPICAL_SELECTION,
    ) -> None:
        super().__init__(item_log_odds)
        self.slope = Slope(sign, 4.0, len(item_log_odds) if per_item else 1, start)
        self.per_item = per_item
        self.centre = centre
        self.unit = scale.half_width / 2

    def added(self, ratings: Tensor, items: slice | Tensor) -> Tensor:
        """Return w x."""
        return self._slope(items) * ((ratings - self.centre) / self.unit)

    def line(self, items: slice | Tensor) -> tuple[Tensor, Tensor]:
        """Return w in nats a rating point, and what it adds where the rating is 0."""
        slope = self._slope(items) / self.unit
        return slope, -slope * self.centre

    def _slope(self, items: slice | Tensor) -> Tensor:
        slope: Tensor = self.slope()
        return take(slope, items) if self.per_item else slope

    def slopes(self) -> Slope:
        """Return the slope, in nats a quarter of the scale."""
        return self.slope

    def log_prior(self, sd: float | None, item_weights: Tensor | None = None) -> Tensor | float:
        """Log density of the selection between the ends of the scale."""
        return self.slope.log_prior(sd, item_weights if self.per_item else None)

    def item_axes(self) -> dict[str, int]:
        """Return which tensors have a row for each item; see ``HasItemRows``."""
        return super().item_axes() | ({"slope.raw": 0} if self.per_item else {})

    def selection(self, ratings: Tensor) -> Tensor:
        """Return the mean slope times the centred rating: (R,)."""
        slope: Tensor = self.slope()
        return slope.mean() * (ratings - self.centre) / self.unit


class PerLevel(MissingModel):
    """logit pi_ij = w[x_ij] + b_j with sum_r w[r] = 0; with a sign, w rises (or falls) from level to level.

    Between levels, where a Gaussian decoder puts mass, w is interpolated.
    """

    def __init__(self, item_log_odds: Tensor, scale: RatingScale, *, sign: Sign) -> None:
        super().__init__(item_log_odds)
        self.levels: Tensor
        self.register_buffer("levels", torch.tensor(scale.levels, dtype=torch.float32), persistent=False)
        steps = len(self.levels) - 1
        self.increments = Slope(sign, float(steps), steps)

    def weights(self) -> Tensor:
        """W (R,), summing to 0."""
        rising = nn.functional.pad(torch.cumsum(self.increments(), 0), (1, 0))
        return rising - rising.mean()

    def slopes(self) -> Slope:
        """Return the increments from level to level, in nats."""
        return self.increments

    def log_prior(self, sd: float | None, item_weights: Tensor | None = None) -> Tensor | float:  # noqa: ARG002
        """Log density of the selection between the ends of the scale."""
        return self.increments.log_prior(sd)

    def selection(self, ratings: Tensor) -> Tensor:
        """Return w at the ratings, any shape."""
        return interpolate(ratings, self.levels, self.weights())
