"""Settings that have a name."""

from collections.abc import Mapping

from mnar_recsys.config.model import ModelConfig
from mnar_recsys.config.settings import Settings
from mnar_recsys.config.training import TrainingConfig
from mnar_recsys.errors import ConfigError

# The paper's appendix A.3: no early stopping, Gaussian observation model, shared logistic missing model.
_YAHOO_R3 = Settings(
    model=ModelConfig(
        decoder="gaussian", missing="shared", sign="free", estimator="sampled", user_activity=False,
        latent_size=30, embedding_size=20, code_size=50, posterior_scale="shared", mean_margin=0,
        exposure_size=0, exposure_sees_taste=False, item_weights="point",
        weight_prior_sd=None, bias_prior_sd=None, exposure_prior_sd=None, selection_prior_sd=None,
    ),
    training=TrainingConfig(
        samples=20, proposal="encoder", batch_size=100, learning_rate=1e-3, slope_rate=1, average_decay=0,
        check_selection=False, max_steps=10_000, stop="never", evaluate_every=500
    ),
)  # fmt: skip

PRESETS: Mapping[str, Settings] = {"default": Settings(), "yahoo-r3": _YAHOO_R3}


def preset(name: str) -> Settings:
    """Return the settings of a preset; raise ConfigError with the known names if there is no such preset."""
    if name not in PRESETS:
        raise ConfigError(f"unknown preset '{name}'; known presets: {', '.join(PRESETS)}")
    return PRESETS[name]
