"""The agnostic missing model: the choice to rate an item may depend on every rating of the row."""

import math

import torch
from torch import Tensor, nn

from mnar_recsys.config import Sign
from mnar_recsys.data import RatingScale
from mnar_recsys.model.missing.base import MissingModel, Slope

MAX_ITEMS = 2000
"""Items up to which each pair of them has a weight: 4 million numbers, and as many products a user and sample."""


class Agnostic(MissingModel):
    """logit pi_i = w x_i + M(x_i) + b, with one slope w_j for each item and M a map of the whole row (section 4.2).

    M is W x, the diagonal of W left out since w has it, or with ``hidden`` units V tanh(A x + a). Ratings enter as in
    ``Logistic``, and with M = 0 the model is its self-masking per item, from where it starts. Only the slopes have the
    stated sign. A row has no marginal form: its missing ratings must be drawn.

    Parameters
    ----------
    hidden : int
        Units of an MLP, or 0 for a linear map.
    prior_sd : float or None
        Standard deviation of what M adds to the log-odds of an item, if all ratings were a unit away from the mean:
        weights are N(0, prior_sd^2 / P), or with hidden units V is N(0, prior_sd^2 / hidden) and A N(0, 1 / P).
    """

    needs_row = True

    def __init__(
        self,
        item_log_odds: Tensor,
        scale: RatingScale,
        *,
        centre: float,
        sign: Sign,
        hidden: int,
        prior_sd: float | None,
    ) -> None:
        super().__init__(item_log_odds)
        n_items = len(item_log_odds)
        self.slope = Slope(sign, 4.0, n_items)
        self.centre = centre
        self.unit = scale.half_width / 2
        self.prior_sd = prior_sd
        self.weight = nn.Parameter(torch.zeros(n_items, hidden or n_items))
        self.inner: nn.Linear | None = None
        if hidden:
            self.inner = nn.Linear(n_items, hidden)
            nn.init.normal_(self.inner.weight, std=1 / math.sqrt(n_items))
            nn.init.zeros_(self.inner.bias)

    def added(self, ratings: Tensor, items: slice | Tensor) -> Tensor:  # noqa: ARG002
        """Not defined for a cell alone: raise ValueError."""
        raise ValueError("the agnostic missing model needs the whole row; use row_logit")

    def row_logit(self, rows: Tensor) -> Tensor:
        """Logits of all cells of complete rows in rating points: (..., P) -> (..., P)."""
        x = (rows - self.centre) / self.unit
        slope: Tensor = self.slope()
        if self.inner is None:
            cross = x @ (self.weight - torch.diag(self.weight.diagonal())).T
        else:
            cross = torch.tanh(self.inner(x)) @ self.weight.T
        return slope * x + cross + self.bias()

    def log_prior(self, sd: float | None, item_weights: Tensor | None = None) -> Tensor | float:  # noqa: ARG002
        """Log density of the selection between the ends of the scale, as far as the slopes have it, and of the map."""
        return self.slope.log_prior(sd) + self._log_map_prior()

    def _log_map_prior(self) -> Tensor | float:
        if self.prior_sd is None:
            return 0.0
        outer = -0.5 * self.weight.shape[1] * self.weight.square().sum() / self.prior_sd**2
        return outer if self.inner is None else outer - 0.5 * self.weight.shape[0] * self.inner.weight.square().sum()

    def selection(self, ratings: Tensor) -> Tensor:
        """Log-odds that an item's own rating adds, to first order around an average row: any shape."""
        slope: Tensor = self.slope()
        own = slope.mean()
        if self.inner is not None:
            steepness = 1 - torch.tanh(self.inner.bias).square()  # (H,)
            own = own + ((self.weight * steepness) @ self.inner.weight).diagonal().mean()
        return own * (ratings - self.centre) / self.unit
