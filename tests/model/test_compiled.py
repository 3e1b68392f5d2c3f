"""Fused functions compiled: the same numbers as without, when they are compiled, and what happens if they cannot be."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from mnar_recsys.model import compiled
from mnar_recsys.model.compiled import COMPILED_CELLS, compiling, fused
from mnar_recsys.model.decoders import GaussianRatings, LevelRatings, OrdinalRatings
from mnar_recsys.model.quadrature import gauss_hermite

CPU = torch.device("cpu")
LEVELS = torch.arange(1.0, 6.0)

needs_compiler = pytest.mark.skipif(not compiled._has_compiler(), reason="no C++ compiler")


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def gaussian(offset: Tensor | None, unrated: Tensor, S: int, *, by_item: bool = False) -> tuple[Tensor, list[Tensor]]:
    B, I = unrated.shape  # noqa: E741
    mean, slope, intercept = drawn(S, B, I), drawn(I if by_item else 1, seed=1), drawn(I, seed=2)
    cells = GaussianRatings(mean, torch.tensor([0.8]), gauss_hermite(8))
    return cells.sum_log_unrated_linear(slope, intercept, offset, unrated), [mean, slope, intercept]


def gaussian_by_item(offset: Tensor | None, unrated: Tensor, S: int) -> tuple[Tensor, list[Tensor]]:
    return gaussian(offset, unrated, S, by_item=True)


def gaussian_drawn(offset: Tensor | None, unrated: Tensor, S: int) -> tuple[Tensor, list[Tensor]]:
    mean, slope, intercept = drawn(S, *unrated.shape), drawn(1, seed=1), drawn(1, seed=2)
    cells = GaussianRatings(mean, torch.tensor([0.8]), gauss_hermite(8)).draw(drawn(*mean.shape, seed=3).detach())
    return cells.sum_log_unrated_linear(slope, intercept, offset, unrated), [mean, slope, intercept]


def ordinal(offset: Tensor | None, unrated: Tensor, S: int) -> tuple[Tensor, list[Tensor]]:
    score, cuts, table = drawn(S, *unrated.shape), torch.tensor([-2.0, -0.5, 0.3, 2.0], requires_grad=True), drawn(5, 1)
    return OrdinalRatings(score, cuts, LEVELS, 0.5).sum_log_unrated(table, offset, unrated), [score, cuts, table]


def categorical(offset: Tensor | None, unrated: Tensor, S: int) -> tuple[Tensor, list[Tensor]]:
    B, I = unrated.shape  # noqa: E741
    logits, table = drawn(S, B, 5, I), drawn(5, I, seed=1)
    return LevelRatings(logits, LEVELS, 0.5).sum_log_unrated(table, offset, unrated), [logits, table]


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("term", [gaussian, gaussian_by_item, gaussian_drawn, ordinal, categorical])
def test_compiled_terms_and_their_gradients_are_the_plain_ones(term: Callable[..., Any]) -> None:
    generator = torch.Generator().manual_seed(9)
    for number, (S, B, I, has_offset) in enumerate([(3, 4, 37, True), (2, 7, 50, True), (2, 7, 50, False)]):  # noqa: E741
        unrated = (torch.rand(B, I, generator=generator) < 0.9).float()
        offset = drawn(S, B, I, seed=number + 5) if has_offset else None

        def of(offset: Tensor | None = offset, unrated: Tensor = unrated, S: int = S) -> list[Tensor]:
            value, wanted = term(offset, unrated, S)
            return [value, *torch.autograd.grad(value.sum(), wanted + ([] if offset is None else [offset]))]

        with compiling("on", 0.0, CPU):
            found = of()
        for mine, plain in zip(found, of(), strict=True):
            torch.testing.assert_close(mine, plain, rtol=1e-5, atol=1e-5)


def counted(
    monkeypatch: pytest.MonkeyPatch, error: Exception | None = None
) -> tuple[Callable[[Tensor], Tensor], list[str]]:
    """Return a fused function that doubles, and a list of which of its forms were called; one may fail."""
    calls: list[str] = []

    def double(x: Tensor) -> Tensor:
        calls.append("plain")
        return 2 * x

    def fake_compile(function: Callable[[Tensor], Tensor], **_: object) -> Callable[[Tensor], Tensor]:
        def call(x: Tensor) -> Tensor:
            calls.append("compiled")
            if error is not None:
                raise error
            return function(x)

        return call

    monkeypatch.setattr(torch, "compile", fake_compile)
    return fused(double), calls


def test_short_work_is_not_compiled_nor_work_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    double, calls = counted(monkeypatch)
    monkeypatch.setattr(compiled.shutil, "which", lambda name: f"/bin/{name}")
    x = torch.ones(2)
    for mode, cells, device in (
        ("auto", COMPILED_CELLS - 1, CPU),
        ("off", 1e18, CPU),
        ("auto", 1e18, torch.device("cuda")),
    ):
        with compiling(mode, cells, device):
            assert torch.equal(double(x), 2 * x)
    assert calls == ["plain"] * 3
    with compiling("auto", COMPILED_CELLS, CPU):
        double(x)
        with compiling("off", 0, CPU):  # as a fit inside a fit
            double(x)
        double(x)
    double(x)
    assert calls[3:] == ["compiled", "plain", "plain", "compiled", "plain", "plain"]
    monkeypatch.setattr(compiled.shutil, "which", lambda _: None)
    with compiling("auto", 1e18, CPU):
        double(x)
    assert calls[9:] == ["plain"]


def test_a_compiler_that_fails_costs_one_warning_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    double, calls = counted(monkeypatch, RuntimeError("no header\nand much more"))
    x = torch.ones(2)
    with compiling("on", 0, CPU):
        with pytest.warns(UserWarning, match="could not be compiled, and is slower: no header$"):
            assert torch.equal(double(x), 2 * x)
        assert torch.equal(double(x), 2 * x)
    assert calls == ["compiled", "plain", "plain"]


def test_what_is_wrong_with_the_arguments_is_said_as_without(monkeypatch: pytest.MonkeyPatch) -> None:
    double, _ = counted(monkeypatch, RuntimeError("compiled"))
    with compiling("on", 0, CPU), pytest.raises(TypeError):
        double(None)
