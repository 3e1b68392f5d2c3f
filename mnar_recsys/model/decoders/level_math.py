"""What the decoders on rating levels share."""

import torch
from torch import Tensor

from mnar_recsys.model.indexing import lift

LARGEST_LOG_ODDS = 40.0
"""Beyond e^40 a product of two odds could overflow, and a sigmoid is 0 or 1 to single precision long before."""


def level_index(ratings: Tensor, levels: Tensor) -> Tensor:
    """Return the index of ratings that stand on evenly spaced levels, any shape."""
    return torch.round((ratings - levels[0]) / (levels[1] - levels[0])).long()


def gumbel(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Return standard Gumbel noise."""
    uniform = torch.rand(shape, generator=generator, device=generator.device)
    # In place: fresh arrays of this size cost more than the logarithms.
    return uniform.clamp_(1e-20, 1 - 1e-7).log_().neg_().log_().neg_()


def one_minus_pi_by_level(table: Tensor, offset: Tensor | None) -> list[Tensor]:
    """1 - sigmoid(table + offset) as 1 / (1 + e^table e^offset): for each level (I,) or, with an offset, (S, B, I).

    The table is (R, I), the offset (S, B), or (S, B, I). No exponential for each cell and level.
    """
    if offset is None:
        return list(torch.sigmoid(-table).unbind())
    odds = lift(torch.exp(offset.clamp(max=LARGEST_LOG_ODDS)))
    return [
        torch.mul(odds, level).add_(1).reciprocal_() for level in torch.exp(table.clamp(max=LARGEST_LOG_ODDS)).unbind()
    ]


def offset_gradient(by_cell: Tensor, axes: int) -> Tensor | None:
    """Return the gradient of an offset with so many axes from that of the cells (S, B, I)."""
    return None if axes == 0 else by_cell.sum(-1) if axes == 2 else by_cell
