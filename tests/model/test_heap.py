"""Freed memory that is kept, and what happens where the C library cannot be told."""

import ctypes
import resource
import sys
from contextlib import ExitStack

import pytest
import torch

from mnar_recsys.model import heap
from mnar_recsys.model.heap import keeping_freed_memory


def _pages_asked_for() -> int:
    """Return how many pages of memory ten arrays of 8 MB ask the system for, one after the other."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(20, 100_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"), reason="not glibc")
def test_arrays_made_again_and_again_cost_no_new_pages() -> None:
    with keeping_freed_memory():
        # 20,000 if each array's were new. The first may be; other threads may ask for some at any time.
        assert min(_pages_asked_for() for _ in range(5)) < 100


@pytest.mark.parametrize("depth", [1, 2])
def test_memory_is_given_back_once_at_the_end(monkeypatch: pytest.MonkeyPatch, depth: int) -> None:
    calls: list[str] = []
    monkeypatch.setattr(heap, "_call", lambda name, *_: calls.append(name))
    with ExitStack() as blocks:
        for _ in range(depth):
            blocks.enter_context(keeping_freed_memory())
        assert calls == ["mallopt", "mallopt"]
    assert calls == ["mallopt", "mallopt", "mallopt", "malloc_trim"]


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    with keeping_freed_memory():
        assert torch.ones(2).sum() == 2
