"""Rows of some items, taken out of a model's tensors: a step that needs few items does not touch the others."""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn


@runtime_checkable
class HasItemRows(Protocol):
    """A module some of whose tensors have a row for each item."""

    def item_axes(self) -> dict[str, int]:
        """Return the names of these tensors, parameters or buffers, and the axis of the items in each."""
        ...


class ItemRows:
    """The tensors of a module that have a row for each item.

    ``take`` gives copies of some rows, to be used in place of the tensors (``torch.func.functional_call``): the module
    then is one of these items only. ``give_gradients`` hands the copies' gradients back, as sparse ones.
    """

    def __init__(self, module: nn.Module) -> None:
        tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        self._tensors: dict[str, tuple[Tensor, int]] = {}
        for prefix, part in module.named_modules():
            if isinstance(part, HasItemRows):
                for name, axis in part.item_axes().items():
                    full = f"{prefix}.{name}" if prefix else name
                    self._tensors[full] = tensors[full], axis

    def parameters(self) -> list[Tensor]:
        """Return those that are learned."""
        return [tensor for tensor, _ in self._tensors.values() if tensor.requires_grad]

    def take(self, items: Tensor) -> dict[str, Tensor]:
        """Return the rows of ``items`` (I,) by the tensors' names; those of learned tensors are leaves."""
        return {
            name: tensor.detach().index_select(axis, items).requires_grad_(tensor.requires_grad)
            for name, (tensor, axis) in self._tensors.items()
        }

    def give_gradients(self, items: Tensor, rows: dict[str, Tensor]) -> None:
        """Set the tensors' gradients from those of the rows that ``take`` gave; ``items`` must rise."""
        for name, (tensor, axis) in self._tensors.items():
            gradient = rows[name].grad
            if gradient is None:
                continue
            index = items[None]
            if axis == 1:
                channels = torch.arange(tensor.shape[0], device=items.device)
                index = torch.stack([channels.repeat_interleave(len(items)), items.repeat(len(channels))])
            values = gradient.flatten(0, axis)
            tensor.grad = torch.sparse_coo_tensor(
                index, values, tensor.shape, is_coalesced=True, check_invariants=False
            )
