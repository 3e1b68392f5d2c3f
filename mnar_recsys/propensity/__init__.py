"""Who rates what, apart from the joint model: one propensity model a file, and how far they can be trusted.

On the floor beside ``data`` because baselines train on propensities and evaluation weighs errors by them, each with a
fit of its own.
"""
