"""Commands that measure time and memory: ``python -m benchmarks.step``, ``fit``, ``large``, ``predict``, ``read``."""
