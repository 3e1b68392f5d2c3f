"""x W' + b by the faster of the two libraries of matrix products that torch comes with."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

# Products of fewer numbers take less time than the choice.
_WORTH_A_CHOICE = 1_000_000


def affine(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x weight' + bias: x (..., K), weight (P, K), bias (P,) or none -> (..., P).

    ``torch.nn.functional.linear``, but on processors with AVX-512 by oneDNN. torch takes MKL, which keeps to AVX2 on
    processors that are not Intel's: at K = 30 its products of floats and their gradients take two to four times as
    long. oneDNN's instructions follow what the processor has.
    """
    rows = x.numel() // max(x.shape[-1], 1)
    if torch.compiler.is_compiling() or rows * weight.numel() < _WORTH_A_CHOICE or not _has_onednn(x):
        return linear(x, weight, bias)
    flat = _Affine.apply(x.reshape(rows, -1), weight, bias)  # type: ignore[no-untyped-call]
    return flat.view(*x.shape[:-1], -1)  # type: ignore[no-any-return]


def _has_onednn(x: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
    )


class _Affine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """X (n, K), weight (P, K), bias (P,) -> (n, P)."""
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Return the gradients."""
        x, weight = ctx.saved_tensors
        by_x, by_weight, by_bias = ctx.needs_input_grad
        return (
            _product(grad, weight.T) if by_x else None,
            # Twice as fast as the transpose's own product.
            _product(x.T, grad.T).T if by_weight else None,
            grad.sum(0) if by_bias else None,
        )


def _product(left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return left right' + bias."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(left, right, bias, "none", [], "")
    return product
