"""Memory that is freed and asked for again: kept by the process while there is long work."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

# Of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEPT_BYTES = 512 * 2**20
# What glibc itself comes to once a block of that size has been freed.
_LARGEST_BLOCK = 32 * 2**20


@contextmanager
def keeping_freed_memory() -> Iterator[None]:
    """Let the process keep up to 512 MB that it has freed, while the block runs.

    glibc gives the free end of its heap back to the system, and each step asks for the same megabytes again: thousands
    of pages, each to be cleared before it is used, a third of the time of a step. Does nothing where the C library is
    another one. At the end what is free is given back.
    """
    try:
        library = ctypes.CDLL(None)
        set_option, trim = library.mallopt, library.malloc_trim
    except (AttributeError, OSError, TypeError):
        yield
        return
    set_option(_MMAP_THRESHOLD, _LARGEST_BLOCK)
    set_option(_TRIM_THRESHOLD, _KEPT_BYTES)
    try:
        yield
    finally:
        set_option(_TRIM_THRESHOLD, 2 * _LARGEST_BLOCK)
        trim(0)
