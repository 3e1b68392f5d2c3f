"""Metrics with intervals, calibration, and the report of a run."""
