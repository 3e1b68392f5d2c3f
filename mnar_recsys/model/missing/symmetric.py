"""Missing models that respect a symmetry of the rows (appendix C of the paper).

Both are for tables, whose values are about 0 with a standard deviation of about 1.
"""

from abc import abstractmethod

import torch
from torch import Tensor, nn

from mnar_recsys.model.missing.base import MissingModel


class Symmetric(MissingModel):
    """A missing model of whole rows, of which there is only ``row_logit``."""

    needs_row = True

    def __init__(self, item_log_odds: Tensor, n_features: int) -> None:
        super().__init__(item_log_odds)
        self.n_features = n_features

    def added(self, ratings: Tensor, items: slice | Tensor) -> Tensor:  # noqa: ARG002
        """Not defined for a cell alone: raise ValueError."""
        raise ValueError(f"the missing model {type(self).__name__} needs the whole row; use row_logit")

    @abstractmethod
    def row_logit(self, rows: Tensor) -> Tensor:
        """Logits of all cells of complete rows: (..., P) -> (..., P)."""

    def selection(self, ratings: Tensor) -> Tensor:
        """Return the log-odds that a value adds for its own feature in a row of zeros, averaged: (R,) -> (R,)."""
        rows = ratings[:, None, None] * torch.eye(self.n_features)  # (R, P, P)
        added = self.row_logit(rows) - self.row_logit(torch.zeros_like(rows))
        return added.diagonal(dim1=-2, dim2=-1).mean(-1)


class Invariant(Symmetric):
    """logit pi_j(x) = b_j + V_j tanh(mean_k phi(x_k)): the same for x with its features permuted (eq. 21).

    phi is an MLP of one value (Deep Sets, Zaheer et al. 2017). Which features are missing may differ, what decides it
    is what the row holds as a set.
    """

    def __init__(self, item_log_odds: Tensor, *, hidden: int = 16) -> None:
        super().__init__(item_log_odds, len(item_log_odds))
        self.phi = nn.Sequential(nn.Linear(1, hidden), nn.Tanh(), nn.Linear(hidden, hidden))
        self.weight = nn.Parameter(torch.zeros(len(item_log_odds), hidden))

    def row_logit(self, rows: Tensor) -> Tensor:
        """Logits of all cells of complete rows: (..., P) -> (..., P)."""
        summary = self.phi(rows[..., None]).mean(-2)  # (..., H)
        return torch.tanh(summary) @ self.weight.T + self.bias()


class Equivariant(Symmetric):
    """logit pi(x) = kernel * x + b, a circular convolution: it moves with the image (eq. 22).

    One bias for all pixels; the kernel's middle is the pixel's own slope.
    """

    def __init__(self, item_log_odds: Tensor, shape: tuple[int, int], *, size: int = 3) -> None:
        super().__init__(item_log_odds.mean()[None], len(item_log_odds))
        self.shape = shape
        self.convolution = nn.Conv2d(1, 1, size, padding=size // 2, padding_mode="circular", bias=False)
        nn.init.zeros_(self.convolution.weight)

    def row_logit(self, rows: Tensor) -> Tensor:
        """Logits of all cells of complete rows: (..., P) -> (..., P)."""
        images = rows.reshape(-1, 1, *self.shape)
        moved: Tensor = self.convolution(images)
        return moved.reshape(rows.shape) + self.item_bias
