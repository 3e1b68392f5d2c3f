"""p(s|x): what every missing model has in common, and the slope with a sign."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from mnar_recsys.config import Sign

# A typical strength of selection in nats a unit of rating (a star on 1-5). A log too small to move it stays near it:
# who states a sign states that there is selection. (At 0 the softplus would be flat.)
_INITIAL_SLOPE = 0.3


class MissingModel(nn.Module, ABC):
    """logit pi_ij = logit P(s_ij = 1 | x_ij) for items j, with a bias b_j for each item.

    Biases start at the items' log-odds of being rated: started at 0, the slope acts as a global bias in the first
    steps, since most cells are missing, and takes the wrong sign.
    """

    depends_on_rating = True

    def __init__(self, item_log_odds: Tensor) -> None:
        super().__init__()
        self.item_bias = nn.Parameter(item_log_odds.clone())

    @abstractmethod
    def logit(self, ratings: Tensor, items: slice | Tensor) -> Tensor:
        """Logit of pi for ratings in rating points, broadcastable to (..., Q, I): same shape, broadcast over I."""

    @abstractmethod
    def selection(self, ratings: Tensor) -> Tensor:
        """Log-odds that the rating adds, averaged over the items: (R,) -> (R,), in nats, up to a constant."""


class Slope(nn.Module):
    """A slope w (or one for each of ``size`` items), kept >= 0, <= 0 or free; nats a unit of rating."""

    def __init__(self, sign: Sign, size: int = 1) -> None:
        super().__init__()
        self.sign = sign
        start = 0.0 if sign == "free" else float(torch.log(torch.expm1(torch.tensor(_INITIAL_SLOPE))))
        self.raw = nn.Parameter(torch.full((size,), start))

    def forward(self) -> Tensor:
        """Return the slope (size,)."""
        if self.sign == "free":
            return self.raw
        slope = nn.functional.softplus(self.raw)
        return slope if self.sign == "positive" else -slope


def interpolate(x: Tensor, knots: Tensor, values: Tensor) -> Tensor:
    """Piecewise-linear function through (knots, values), each (R,) and knots rising; constant beyond the ends.

    As a sum of ramps, one a segment: a look-up of each cell's segment costs ten times as much.
    """
    result = values[0].expand_as(x)
    for r in range(len(knots) - 1):
        ramp = ((x - knots[r]) / (knots[r + 1] - knots[r])).clamp(0, 1)
        result = result + (values[r + 1] - values[r]) * ramp
    return result
