"""Settings: frozen, validated, unknown keys refused. Every field says what it does."""

from mnar_recsys.config.model import FEW_ITEMS, SMALL_LOG, DecoderName, EstimatorName, MissingName, ModelConfig, Sign
from mnar_recsys.config.presets import PRESETS, preset
from mnar_recsys.config.settings import Settings
from mnar_recsys.config.training import (
    LEAST_STEPS_BETWEEN_LOOKS,
    SAMPLED_CELLS,
    CompileMode,
    Inference,
    Stop,
    TrainingConfig,
)

__all__ = [
    "FEW_ITEMS",
    "LEAST_STEPS_BETWEEN_LOOKS",
    "PRESETS",
    "SAMPLED_CELLS",
    "SMALL_LOG",
    "CompileMode",
    "DecoderName",
    "EstimatorName",
    "Inference",
    "MissingName",
    "ModelConfig",
    "Settings",
    "Sign",
    "Stop",
    "TrainingConfig",
    "preset",
]
