"""Debiased rating predictions from self-selected rating logs: not-MIWAE for recommender systems."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mnar_recsys.config import Settings
    from mnar_recsys.data import RatingLog, Split
    from mnar_recsys.data.simulate import simulate_ratings
    from mnar_recsys.recommender import MNARRecommender

__all__ = ["MNARRecommender", "RatingLog", "Settings", "Split", "simulate_ratings"]

# Loaded on first use (PEP 562), so that reading data does not wait for torch.
_HOMES = {
    "MNARRecommender": "mnar_recsys.recommender",
    "RatingLog": "mnar_recsys.data",
    "Settings": "mnar_recsys.config",
    "Split": "mnar_recsys.data",
    "simulate_ratings": "mnar_recsys.data.simulate",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'mnar_recsys' has no attribute '{name}'")
