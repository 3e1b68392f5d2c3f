"""p(s|x): what every missing model has in common, and the slope with a sign."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from mnar_recsys.config import Sign
from mnar_recsys.data import FeatureTable
from mnar_recsys.model.features import ItemEffect
from mnar_recsys.model.indexing import take

TYPICAL_SELECTION = 1.2
"""A typical selection between the ends of the scale, in nats (.3 a star on 1-5): where a slope with a sign starts, and
the median of its prior. A log too small to move it stays near it: who states a sign states that there is selection."""


# Where the softplus of a slope that has a sign is nothing.
_SHUT = -20.0
# Nats between the ends of the scale, below which slopes have no proportions to speak of.
_NO_SLOPE = 1e-3


class MissingModel(nn.Module, ABC):
    """logit pi_ij = logit P(s_ij = 1 | x_ij) for items j, with a bias b_j for each item.

    Biases start at the items' log-odds of being rated: started at 0, the slope acts as a global bias in the first
    steps, since most cells are missing, and takes the wrong sign.
    """

    depends_on_rating = True
    needs_row = False
    """Whether the log-odds of a cell depend on the other ratings of its row: then there is ``row_logit`` alone."""

    def __init__(self, item_log_odds: Tensor) -> None:
        super().__init__()
        self.item_bias = nn.Parameter(item_log_odds.clone())
        self.bias_shift: Tensor | None = None
        self.effect: ItemEffect | None = None

    def item_axes(self) -> dict[str, int]:
        """Return which tensors have a row for each item; see ``HasItemRows``."""
        return {"item_bias": 0}

    def know_items(self, table: FeatureTable) -> None:
        """Let features of the items decide where their biases are expected."""
        self.effect = ItemEffect(table, ())

    def bias(self, items: slice | Tensor = slice(None)) -> Tensor:
        """Return b_j of the items (I,), as drawn for this step where they move with the decoder's biases."""
        bias = self.item_bias if self.bias_shift is None else self.item_bias + self.bias_shift
        return take(bias if self.effect is None else bias + self.effect.of_items(), items)

    def added(self, ratings: Tensor, items: slice | Tensor) -> Tensor:  # noqa: ARG002
        """Log-odds that ratings in rating points, broadcastable to (..., Q, I), add to the items' biases: as broad.

        ``selection``, unless items differ.
        """
        return self.selection(ratings)

    def logit(self, ratings: Tensor, items: slice | Tensor) -> Tensor:
        """Logit of pi for ratings in rating points, broadcastable to (..., Q, I): same shape, broadcast over I."""
        return self.added(ratings, items) + self.bias(items)

    def row_logit(self, rows: Tensor) -> Tensor:
        """Logits of pi of all cells of complete rows in rating points: (..., P) -> (..., P)."""
        return self.logit(rows, slice(None))

    def line(self, items: slice | Tensor) -> tuple[Tensor, Tensor] | None:  # noqa: ARG002
        """Slope a rating point and intercept of ``added``, (1,) or (I,) each, where it is a line, else None."""
        return None

    def slopes(self) -> "Slope | None":
        """Return the slopes that say how strongly the rating is selected on, or None where there are none to learn."""
        return None

    def log_prior(self, sd: float | None, item_weights: Tensor | None = None) -> Tensor | float:  # noqa: ARG002
        """Log density, up to a constant, of the selection between the ends of the scale: a scalar. Here there is none.

        Where a sign is stated, log selection ~ N(log TYPICAL_SELECTION, sd^2); flat for ``None``. ``item_weights``
        (P,): how many items each stands for, where they are a sample.
        """
        return 0.0

    def log_density(self, sd: float | None) -> Tensor | float:
        """``log_prior`` with respect to the slopes as they are stored, for a sampler; see ``Slope.log_density``."""
        slopes = self.slopes()
        return 0.0 if slopes is None else slopes.log_density(sd)

    @abstractmethod
    def selection(self, ratings: Tensor) -> Tensor:
        """Log-odds that the rating adds, averaged over the items: (R,) -> (R,), in nats, up to a constant.

        Any shape, where it is the same for all items.
        """


class Slope(nn.Module):
    """Slopes w (one, or one for each of ``size`` items or steps), kept >= 0, <= 0 or free; nats a unit of rating.

    Parameters
    ----------
    sign : "positive", "negative" or "free"
        A free slope starts at 0, one with a sign at ``start`` (at 0 the softplus would be flat).
    units : float
        Units from one end of the scale to the other.
    start : float
        Nats between the ends of the scale at which slopes with a sign start.
    """

    def __init__(self, sign: Sign, units: float, size: int = 1, start: float = TYPICAL_SELECTION) -> None:
        super().__init__()
        self.sign = sign
        self.units = units
        raw = 0.0 if sign == "free" else float(torch.log(torch.expm1(torch.tensor(start / units))))
        self.raw = nn.Parameter(torch.full((size,), raw))
        self.held: Tensor | None = None
        self.is_shut = False

    def hold(self, strength: float) -> None:
        """Fix the slopes: so many nats between the ends of the scale, of either sign, in the proportions they have."""
        now = self().detach()
        total = self.units * now.mean()
        proportions = now / total if abs(float(total)) > _NO_SLOPE else torch.full_like(now, 1 / self.units)
        self.held = strength * proportions
        self.raw.requires_grad_(False)

    def shut(self) -> None:
        """Set the slopes to nothing, and learn them no more."""
        with torch.no_grad():
            self.raw.fill_(0.0 if self.sign == "free" else _SHUT)
        self.raw.requires_grad_(False)
        self.is_shut = True

    def forward(self) -> Tensor:
        """Return the slopes (size,)."""
        if self.held is not None:
            return self.held
        if self.sign == "free":
            return self.raw
        slope = nn.functional.softplus(self.raw)
        return slope if self.sign == "positive" else -slope

    def log_prior(self, sd: float | None, weights: Tensor | None = None) -> Tensor | float:
        """Log density of the selection between the ends, units times the mean slope; see ``MissingModel.log_prior``."""
        if sd is None or self.sign == "free" or self.held is not None or self.is_shut:
            return 0.0
        size: Tensor = self().abs()
        strength = self.units * (size.mean() if weights is None else size @ weights / weights.sum())
        return -0.5 * ((torch.log(strength) - math.log(TYPICAL_SELECTION)) / sd) ** 2

    def log_density(self, sd: float | None) -> Tensor | float:
        """Log density of ``raw``, up to a constant, where the selection between the ends has its prior (``log_prior``).

        Several slopes share the selection in proportions that are uniform a priori; without ``sd`` the selection
        itself is flat, as are free slopes. The density of n slopes of sum T is p(log T) / T^n, or 1 / T^(n - 1),
        and the softplus adds its derivative.
        """
        if self.sign == "free" or self.held is not None:
            return 0.0
        slopes = self().abs()
        power = len(slopes) - (sd is None)
        return self.log_prior(sd) - power * torch.log(slopes.sum()) + nn.functional.logsigmoid(self.raw).sum()


def interpolate(x: Tensor, knots: Tensor, values: Tensor) -> Tensor:
    """Piecewise-linear function through (knots, values), each (R,) and knots rising; constant beyond the ends.

    As a sum of ramps, one a segment: a look-up of each cell's segment costs ten times as much.
    """
    result = values[0].expand_as(x)
    for r in range(len(knots) - 1):
        ramp = ((x - knots[r]) / (knots[r + 1] - knots[r])).clamp(0, 1)
        result = result + (values[r + 1] - values[r]) * ramp
    return result
