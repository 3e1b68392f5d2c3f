"""Take entries of a parameter by item; sum cells under a mask."""

from torch import Tensor


def take(values: Tensor, items: slice | Tensor, dim: int = -1) -> Tensor:
    """Return ``values`` at ``items`` along ``dim``.

    ``index_select`` and not ``values[items]``: the backward pass of the latter adds with atomics on several threads,
    so that sums, and with them a resumed run, differ in the last bit.
    """
    if isinstance(items, slice):
        if items == slice(None):
            return values
        start, stop, _ = items.indices(values.shape[dim])
        return values.narrow(dim, start, stop - start)
    return values.index_select(dim, items)


def masked_sum(values: Tensor, mask: Tensor) -> Tensor:
    """Sum values (S, B, I) over the items where mask (B, I) is 1: (S, B), in their own precision under autocast too."""
    return (values * mask).sum(-1)


def sum_items(values: Tensor, item_weights: Tensor | None) -> Tensor:
    """Sum values (..., P) over the items, each as often as its weight (P,) says: (...)."""
    return values.sum(-1) if item_weights is None else values @ item_weights


def shifted(offset: Tensor | None, bias: Tensor) -> Tensor:
    """Add biases of items (I,) to an offset (S, B), (S, B, I) or none: (S, B, I), or (1, 1, I)."""
    return bias[None, None] if offset is None else lift(offset) + bias


def lift(offset: Tensor) -> Tensor:
    """Give an offset of users (S, B) the axis of the items, (S, B, 1); leave one of cells (S, B, I) as it is."""
    return offset.unsqueeze(-1) if offset.dim() == 2 else offset
