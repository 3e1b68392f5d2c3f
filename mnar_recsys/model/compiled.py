"""Loops over cells in one compiled pass where a C++ compiler is at hand, operation by operation where not.

Operation by operation every intermediate is written to memory and read again; TorchInductor makes one loop of a whole
function, whose intermediates stay in registers. It takes some ten seconds the first time, and a few once its cache on
disk holds the result, so that short work is done without.
"""

import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch

from mnar_recsys.config import CompileMode
from mnar_recsys.model.heap import keeping_freed_memory

COMPILED_CELLS = 500_000_000
"""Visits of cells (draws x users x items x steps) from which compiling pays: about ten seconds without."""

# By default what many later operations read is written to memory and read again.
_ONE_LOOP = dict.fromkeys(
    ("realize_opcount_threshold", "realize_reads_threshold", "realize_acc_reads_threshold"), 10_000
)

P = ParamSpec("P")
R = TypeVar("R")

_active = False


@contextmanager
def compiling(mode: CompileMode, cell_visits: float, device: torch.device) -> Iterator[None]:
    """Let fused functions be compiled while the block runs, if that is wanted and pays, or is so already.

    Long work on the CPU also keeps the memory that it frees (``keeping_freed_memory``), compiled or not.

    Parameters
    ----------
    mode : {"auto", "on", "off"}
        "auto": on the CPU, if there is a C++ compiler and the work ahead is worth it. That depends on the settings and
        the log alone, not on times, so that equal runs give equal numbers.
    cell_visits : float
        Cells that will be visited at most.
    device : torch.device
        Where the tensors are.
    """
    global _active  # noqa: PLW0603 - which of two equal forms runs is a matter of the process, not of a model
    before = _active
    is_long = device.type == "cpu" and cell_visits >= COMPILED_CELLS
    _active = mode == "on" or (mode == "auto" and ((is_long and _has_compiler()) or before))
    try:
        with keeping_freed_memory() if is_long else nullcontext():
            yield
    finally:
        if _active and not before:
            # A function is compiled for a few shapes only; the next log has others. The disk still has them all.
            torch.compiler.reset()
        _active = before


def fused(function: Callable[P, R], *, any_shape: bool = True, one_loop: bool = False) -> Callable[P, R]:
    """Let a function of tensors be compiled where ``compiling`` says so.

    It must have the same result either way, to rounding. If the compiler fails, the plain form takes over.

    ``any_shape``: compile once for all shapes; if not, for each that it meets, which is faster where there is but one.
    ``one_loop``: keep all intermediates in registers, however many, and share the loop out among torch's threads:
    faster where all is made and read cell by cell, slower where sums over other axes would make it again.
    """
    compiled: Callable[P, R] | None = None
    broken = False

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        nonlocal compiled, broken
        if not _active or broken or torch.compiler.is_compiling():
            return function(*args, **kwargs)
        try:
            if compiled is None:
                compiled = _compile(function, any_shape, one_loop)
            with _without_deprecations():
                plain = {name: _plain(value) for name, value in kwargs.items()}
                return compiled(*map(_plain, args), **plain)
        except RuntimeError as error:
            # What is wrong with the arguments is wrong in the plain form, too, and says so there.
            result = function(*args, **kwargs)
            broken = True
            reason = str(error).strip().partition("\n")[0]
            warnings.warn(f"{function.__module__} could not be compiled, and is slower: {reason}", stacklevel=2)
            return result

    return call


def _plain(value: Any) -> Any:
    """Return what a function sees that knows nothing of gradients: the compiler asks after those of its inputs."""
    if torch.is_grad_enabled():
        return value
    if hasattr(value, "_make"):  # a named tuple
        return value._make(map(_plain, value))
    return value.detach() if isinstance(value, torch.Tensor) else value


def _compile(function: Callable[P, R], any_shape: bool, one_loop: bool) -> Callable[P, R]:
    # Not before it is needed: it imports the compiler, which takes seconds.
    with _without_deprecations():
        options: dict[str, str | int | bool | Callable[..., object]] = {"cpp.threads": 1}
        if one_loop:
            options = {"cpp.threads": torch.get_num_threads(), **_ONE_LOOP}
        return torch.compile(function, dynamic=any_shape, options=options)


@contextmanager
def _without_deprecations() -> Iterator[None]:
    """Keep to itself what torch's compiler uses of torch's own past."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def _has_compiler() -> bool:
    return any(shutil.which(name) for name in (os.environ.get("CXX"), "g++", "clang++") if name)
