"""One seed, many independent streams.

A stream is named, so adding one never shifts the others, and a training step's noise depends on nothing but
(seed, step): resuming needs no generator state. No global generator is read or seeded anywhere.
"""

from zlib import crc32

import numpy as np


def _sequence(seed: int, *name: str | int) -> np.random.SeedSequence:
    key = tuple(part if isinstance(part, int) else crc32(part.encode()) for part in name)
    return np.random.SeedSequence(seed, spawn_key=key)


def numpy_generator(seed: int, *name: str | int) -> np.random.Generator:
    """Return the generator of the stream ``name`` of ``seed``, for example ``(0, "simulate", "mask")``."""
    return np.random.default_rng(_sequence(seed, *name))


def torch_seed(seed: int, *name: str | int) -> int:
    """Return a 63-bit seed for ``torch.Generator.manual_seed`` from the stream ``name`` of ``seed``."""
    return int(_sequence(seed, *name).generate_state(1, np.uint64)[0] >> np.uint64(1))
