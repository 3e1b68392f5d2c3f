"""Memory that is freed and asked for again: kept by the process while there is long work."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager, suppress

# Of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEPT_BYTES = 512 * 2**20
# What glibc itself comes to once a block of that size has been freed.
_LARGEST_BLOCK = 32 * 2**20

_depth = 0


@contextmanager
def keeping_freed_memory() -> Iterator[None]:
    """Let the process keep up to 512 MB that it has freed, while the block runs.

    glibc gives the free end of its heap back to the system, and each step asks for the same megabytes again: thousands
    of pages, each to be cleared before it is used, a third of the time of a step. Does nothing where the C library is
    another one. At the end of the outermost block what is free is given back.
    """
    global _depth  # noqa: PLW0603 - the heap is the process's
    _depth += 1
    if _depth == 1:
        _set(_MMAP_THRESHOLD, _LARGEST_BLOCK)
        _set(_TRIM_THRESHOLD, _KEPT_BYTES)
    try:
        yield
    finally:
        _depth -= 1
        if _depth == 0:
            _set(_TRIM_THRESHOLD, 2 * _LARGEST_BLOCK)
            _call("malloc_trim", 0)


def _set(option: int, value: int) -> None:
    _call("mallopt", option, value)


def _call(name: str, *arguments: int) -> None:
    with suppress(AttributeError, OSError, TypeError):  # another C library
        getattr(ctypes.CDLL(None), name)(*arguments)
