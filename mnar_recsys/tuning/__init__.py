"""A search for settings: the front is ``tune_settings``, what it finds a ``Tuning``."""

from mnar_recsys.tuning.result import Trial, Tuning
from mnar_recsys.tuning.search import BEST, TABLE, TRIALS, tune_settings

__all__ = ["BEST", "TABLE", "TRIALS", "Trial", "Tuning", "tune_settings"]
