"""Settings of a model of a table: rows that are alike, features with numbers, some of them missing not at random."""

from collections.abc import Callable
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from mnar_recsys.config.base import FrozenSettings
from mnar_recsys.config.model import Sign
from mnar_recsys.errors import ConfigError

TableMissing = Literal["self-masking", "agnostic", "ignorable", "known", "invariant", "equivariant"]
_NEED_ROWS = ("agnostic", "invariant", "equivariant")


class TableSettings(FrozenSettings):
    """The parts of the model, their sizes and how it is trained (symbols of the paper in brackets)."""

    decoder: Literal["mlp", "linear", "conv"] = "mlp"
    """From z to what is expected of the features: an MLP (A.1), a linear map with one variance for all features (PPCA),
    or transposed convolutions (table A3)."""
    likelihood: Literal["gaussian", "student-t", "bernoulli"] = "gaussian"
    """p(x|z) around that: `bernoulli` is for features that are 0 or 1."""
    encoder: Literal["mlp", "set", "conv"] = "mlp"
    """From the observed values to q(z|x_obs): an MLP of the values with 0 for what is missing, a permutation-invariant
    set encoder, or convolutions (table A2)."""
    mask_input: bool = True
    """Whether an MLP or convolutional encoder sees the mask beside the values; in the paper it does not."""
    posterior: Literal["gaussian", "student-t"] = "gaussian"
    """Family of q(z|x_obs): independent Gaussians, or Student-t with learned degrees of freedom."""
    missing: TableMissing = "self-masking"
    """p(s|x): one logistic regression for each feature on its own value (`self-masking`), on all values of the row
    (`agnostic`), a given mechanism (`known`), one that is the same however the features are permuted (`invariant`,
    eq. 21) or that moves with the image (`equivariant`, eq. 22), or none (`ignorable`, which is MIWAE)."""
    sign: Sign = "free"
    """What is known of a self-masking: larger values are seen more often (`positive`) or less (`negative`)."""
    estimator: Literal["auto", "marginal", "sampled"] = "auto"
    """The missing values are summed out (`marginal`) or drawn (`sampled`, as in the paper). `auto`: marginal, unless
    the missing model looks at whole rows."""
    latent_size: int | None = Field(default=None, ge=1, le=1024)
    """Size of z [K]; none: one less than there are features, at most 50."""
    hidden: tuple[int, ...] = (128, 128)
    """Units of the hidden layers of the MLPs; tanh."""
    channels: tuple[int, ...] = (64, 128, 256)
    """Channels of the convolutional layers, each of which halves the image."""
    image_shape: tuple[int, int] | None = None
    """Height and width of the rows, where they are images."""
    least_sd: float = Field(default=1e-3, gt=0)
    """Lower bound of the standard deviation of the observation model, in units of a feature's standard deviation."""
    samples: int = Field(default=20, ge=1)
    """Importance samples in training [K in eq. 8]."""
    batch_size: int = Field(default=64, ge=1)
    """Rows in a step."""
    max_iter: int = Field(default=5_000, ge=1)
    """Steps. There is nothing to stop by: what is held out of an MNAR table is as biased as the rest (section 4.1)."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Step size of Adam."""
    n_models: int = Field(default=1, ge=1, le=100)
    """Models that are started from other weights and trained side by side; imputations average over them."""

    @classmethod
    def checked(cls, **values: Any) -> Self:
        """Return settings; raise ConfigError, in one line, if a value does not fit."""
        try:
            return cls(**values)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            reason = first["msg"].removeprefix("Value error, ")
            raise ConfigError(f"{where}: {reason}; found {first['input']!r}" if where else reason) from error

    @property
    def is_marginal(self) -> bool:
        """Whether the missing values are summed out."""
        return self.missing not in _NEED_ROWS and self.estimator != "sampled"

    @model_validator(mode="after")
    def _rows_are_drawn(self) -> Self:
        if self.missing in _NEED_ROWS and self.estimator == "marginal":
            raise ValueError(f"missing='{self.missing}' looks at whole rows and has no marginal form; leave estimator")
        return self

    @model_validator(mode="after")
    def _images_have_a_shape(self) -> Self:
        parts = {"decoder": self.decoder, "encoder": self.encoder, "missing": self.missing}
        needing = [name for name, value in parts.items() if value in ("conv", "equivariant")]
        if needing and self.image_shape is None:
            raise ValueError(f"{needing[0]}='{parts[needing[0]]}' needs image_shape, (height, width)")
        return self


LogOdds = Callable[[Any], Any]
"""A known mechanism: log-odds that values are observed, (..., P) in the units of the table -> (..., P)."""
