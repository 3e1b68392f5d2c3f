"""From a fitted model to predictions: posterior draws, cells, tables, imputations."""

from mnar_recsys.prediction.predictor import UNKNOWN, Predictions, Predictor

__all__ = ["UNKNOWN", "Predictions", "Predictor"]
