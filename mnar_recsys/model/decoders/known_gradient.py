"""Sums over cells whose gradient is found on the way, while all that it needs is in registers."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def with_gradient(sums: Tensor, *found: tuple[Tensor | None, Tensor | Sequence[Tensor]]) -> Tensor:
    """Return ``sums`` (S, B), differentiable: the derivatives of each sum by some tensors are known.

    ``found`` has such tensors, each with what its gradient is made of: a tensor of cells (S, B, ...) or of users (S, B)
    with the derivatives of its entries, each of one sum only; any other with the derivatives of all sums by it,
    (S, B, ...), or with a sequence of those by each of its rows. Tensors that need no gradient, and None, are left out.
    """
    known = [
        (tensor, [part] if isinstance(part, Tensor) else list(part))
        for tensor, part in found
        if tensor is not None and tensor.requires_grad
    ]
    tensors = [tensor for tensor, _ in known]
    parts = [part for _, rows in known for part in rows]
    summed = _KnownGradient.apply(sums, [len(rows) for _, rows in known], *tensors, *parts)  # type: ignore[no-untyped-call]
    assert isinstance(summed, Tensor)  # noqa: S101
    return summed


class _KnownGradient(torch.autograd.Function):
    """The sums, then as many parts as each tensor has rows, the tensors, the parts of all: see ``with_gradient``."""

    @staticmethod
    def forward(ctx: Any, sums: Tensor, rows: list[int], *tensors_and_parts: Tensor) -> Tensor:
        """Return the sums."""
        ctx.rows = rows
        ctx.shapes = [tensor.shape for tensor in tensors_and_parts[: len(rows)]]
        ctx.save_for_backward(*tensors_and_parts[len(rows) :])
        return sums.view_as(sums)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients."""
        parts = iter(ctx.saved_tensors)
        gradients = []
        for shape, rows in zip(ctx.shapes, ctx.rows, strict=True):
            gradients.append(_pulled(grad, [next(parts) for _ in range(rows)], shape))
        return None, None, *gradients, *[None] * sum(ctx.rows)


def _pulled(grad: Tensor, parts: Sequence[Tensor], shape: torch.Size) -> Tensor:
    if len(parts) == 1 and parts[0].shape == shape:
        return _times(grad, parts[0])
    pulled = [_dot(grad, part) for part in parts]
    return (pulled[0] if len(pulled) == 1 else torch.stack(pulled)).view(shape)


def _times(grad: Tensor, part: Tensor) -> Tensor:
    return part * grad.view(*grad.shape, *[1] * (part.dim() - 2))


def _dot(grad: Tensor, part: Tensor) -> Tensor:
    """Sum a part over samples and users, weighted: (S, B), (S, B, ...) -> (...)."""
    if torch.compiler.is_compiling():  # one loop with what made the part
        return _times(grad, part).sum((0, 1))
    pulled: Tensor = torch.tensordot(grad, part.to(grad.dtype), 2)
    return pulled
