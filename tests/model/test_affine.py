"""Matrix products by oneDNN: the numbers of torch's own, and who takes which."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import linear

from mnar_recsys.model import affine as module
from mnar_recsys.model.affine import affine

needs_onednn = pytest.mark.skipif(not module._has_onednn(torch.ones(1)), reason="no oneDNN on AVX-512")


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).requires_grad_()


@needs_onednn
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("shape", [(4, 50), (200,)])
def test_large_products_and_their_gradients_are_those_of_torch(shape: tuple[int, ...], has_bias: bool) -> None:
    x, weight = drawn(*shape, 13, seed=0), drawn(500, 13, seed=1)
    bias = drawn(500, seed=2) if has_bias else None
    mine, theirs = affine(x, weight, bias), linear(x, weight, bias)
    assert mine.grad_fn is not None
    assert "_Affine" in repr(mine.grad_fn.next_functions)
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)
    wanted = [x, weight, *([] if bias is None else [bias])]
    pull = drawn(*shape, 500, seed=3).detach()
    for one, other in zip(
        torch.autograd.grad((mine * pull).sum(), wanted),
        torch.autograd.grad((theirs * pull).sum(), wanted),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@needs_onednn
def test_only_what_needs_a_gradient_gets_one() -> None:
    x, weight = drawn(200, 13, seed=0).detach(), drawn(500, 13, seed=1)
    affine(x, weight, torch.zeros(500)).sum().backward()
    assert x.grad is None
    torch.testing.assert_close(weight.grad, x.sum(0).expand(500, 13), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("rows", "dtype"), [(2, torch.float32), (200, torch.float64), (200, torch.bfloat16)])
def test_small_products_and_other_numbers_are_torchs(rows: int, dtype: torch.dtype) -> None:
    x, weight, bias = drawn(rows, 13, seed=0).to(dtype), drawn(500, 13, seed=1).to(dtype), drawn(500, seed=2).to(dtype)
    assert torch.equal(affine(x, weight, bias), linear(x, weight, bias))


def test_without_onednn_the_products_are_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    x, weight = drawn(200, 13, seed=0), drawn(500, 13, seed=1)
    assert torch.equal(affine(x, weight), linear(x, weight))
