"""Maps from (user, item) index pairs to a rating, shared by several methods.

Tables have N + 1 and P + 1 rows: the last is for the unknown user or item, gets no gradient, and stays 0.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

_PAIRS_AT_ONCE = 2**16


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

    def zero_unrated(self, rows: Tensor, columns: Tensor) -> None:
        """Set to 0 all that no pair of the training ratings at (rows, columns) uses.

        A user or item without ratings keeps its random start through training; at 0 it is predicted as an unknown one.
        """
        for table, used in (
            (self.user, rows),
            (self.item, columns),
            (self.user_offset, rows),
            (self.item_offset, columns),
        ):
            if table is not None:
                zero_unused(table, used)


@torch.no_grad()
def zero_unused(table: nn.Embedding, used: Tensor) -> None:
    """Set to 0 every row of a table whose index is not in ``used``."""
    is_used = torch.zeros(len(table.weight), 1)
    is_used[used] = 1.0
    table.weight.mul_(is_used)


def _table(entries: int, size: int, spread: float = 0.1) -> nn.Embedding:
    table = nn.Embedding(entries + 1, size, padding_idx=entries)
    with torch.no_grad():
        table.weight.normal_(std=spread / max(size, 1) ** 0.5)
        table.weight[-1] = 0.0
    return table


def predict_pairs(
    head: Callable[[Tensor, Tensor], Tensor], rows: NDArray[np.integer], columns: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Return what a head says of pairs of indices, (n,), some at a time; a module is put in eval mode for good."""
    if isinstance(head, nn.Module):
        head.eval()
    found = np.empty(len(rows))
    with torch.no_grad():
        for start in range(0, len(rows), _PAIRS_AT_ONCE):
            part = slice(start, start + _PAIRS_AT_ONCE)
            pairs = (torch.tensor(index[part], dtype=torch.int64) for index in (rows, columns))
            found[part] = head(*pairs).numpy()
    return found
