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


def odds(log_odds: Tensor) -> Tensor:
    """Return e^log_odds, kept between e^-40 and e^40.

    Of a table, to be called outside a compiled loop, which would make it again for every cell.
    """
    return torch.exp(log_odds.clamp(-LARGEST_LOG_ODDS, LARGEST_LOG_ODDS))


def one_minus_pi_by_level(table_odds: Tensor, offset: Tensor | None) -> list[Tensor]:
    """1 - sigmoid(table + offset) as 1 / (1 + e^table e^offset): for each level, as broad as table and offset.

    ``table_odds`` (R, 1) or (R, I): e^table; offset (S, B), (S, B, I) or (1, 1, I). No exponential for each cell and
    level.
    """
    if offset is None:
        return [(1 + level).reciprocal() for level in table_odds.unbind()]
    by_cell = lift(odds(offset))
    return [torch.mul(by_cell, level).add_(1).reciprocal_() for level in table_odds.unbind()]


def part_of(by_cell: Tensor, tensor: Tensor) -> Tensor:
    """Return what ``with_gradient`` wants of a tensor (..., 1) or (..., I): cells (S, B, I), or their sums (S, B).

    A sum over the users inside a compiled loop would run down the columns, and make all that it adds anew.
    """
    return by_cell.sum(-1) if tensor.shape[-1] == 1 else by_cell


def part_of_offset(by_cell: Tensor, offset: Tensor | None) -> Tensor:
    """Return what ``with_gradient`` wants of an offset (S, B), (S, B, I), (1, 1, I) or none."""
    return by_cell.sum(-1) if offset is not None and offset.dim() == 2 else by_cell


def offset_gradient(by_cell: Tensor, shape: torch.Size | None) -> Tensor | None:
    """Return the gradient of an offset of that shape, if there is one, from that of the cells (S, B, I)."""
    if shape is None:
        return None
    return by_cell.sum(-1) if len(shape) == 2 else by_cell.sum_to_size(shape)
