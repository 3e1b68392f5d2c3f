"""Maps from (user, item) index pairs to a rating, shared by several methods.

Tables have N + 1 and P + 1 rows: the last is for the unknown user or item, gets no gradient, and stays 0.
"""

import torch
from torch import Tensor, nn


class MatrixFactorization(nn.Module):
    r"""x_ui = mu + a_u + b_i + p_u . q_i (Koren, Bell and Volinsky, IEEE Computer 42, 2009, eq. 4).

    Parameters
    ----------
    shape
        Numbers of users N and items P.
    size
        Number of factors.
    mean
        Where mu starts, in the unit of the target.
    offsets
        Whether there are a_u and b_i.
    """

    def __init__(self, shape: tuple[int, int], size: int, *, mean: float = 0.0, offsets: bool = True) -> None:
        super().__init__()
        users, items = shape
        self.mean = nn.Parameter(torch.tensor(float(mean)))
        self.user = _table(users, size)
        self.item = _table(items, size)
        self.user_offset = _table(users, 1, spread=0.0) if offsets else None
        self.item_offset = _table(items, 1, spread=0.0) if offsets else None

    def forward(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Return predictions of pairs of indices: (n,), (n,) -> (n,)."""
        value: Tensor = self.mean + (self.user(rows) * self.item(columns)).sum(-1)
        if self.user_offset is not None and self.item_offset is not None:
            value = value + self.user_offset(rows).squeeze(-1) + self.item_offset(columns).squeeze(-1)
        return value

    def penalty(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Return the squared norm of all that the pairs use, summed: a scalar."""
        total: Tensor = self.user(rows).square().sum() + self.item(columns).square().sum()
        if self.user_offset is not None and self.item_offset is not None:
            total = total + self.user_offset(rows).square().sum() + self.item_offset(columns).square().sum()
        return total


def _table(entries: int, size: int, spread: float = 0.1) -> nn.Embedding:
    table = nn.Embedding(entries + 1, size, padding_idx=entries)
    with torch.no_grad():
        table.weight.normal_(std=spread / max(size, 1) ** 0.5)
        table.weight[-1] = 0.0
    return table
