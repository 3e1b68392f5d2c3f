"""From a fitted model to predictions: posterior draws, cells, tables, imputations."""

from mnar_recsys.prediction.predictions import UNKNOWN, Predictions
from mnar_recsys.prediction.predictor import Predictor

__all__ = ["UNKNOWN", "Predictions", "Predictor"]
