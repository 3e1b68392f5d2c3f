"""All settings of a fit, and what a log decides of them."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, Protocol, Self

from pydantic import ValidationError, model_validator
from pydantic_core import ErrorDetails

from mnar_recsys.config.base import FrozenSettings
from mnar_recsys.config.model import FEW_ITEMS, SMALL_LOG, ModelConfig
from mnar_recsys.config.training import SAMPLED_CELLS, TrainingConfig
from mnar_recsys.errors import ConfigError

# What pydantic says otherwise, in its own words.
_WANTED = {
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "bool_parsing": "true or false",
}


def _wanted(error: ErrorDetails) -> str:
    """Return what pydantic wants of a value in place of what it has, to go on after "expected"."""
    return _WANTED.get(error["type"], error["msg"].removeprefix("Input should be "))


class HasSize(Protocol):
    """A rating log, as far as settings look at it."""

    @property
    def n_ratings(self) -> int:
        """Number of ratings."""

    @property
    def n_users(self) -> int:
        """Number of users."""

    @property
    def n_items(self) -> int:
        """Number of items."""

    @property
    def scale(self) -> Any:
        """Its scale, with levels or none."""


class Settings(FrozenSettings):
    """Everything that decides a fit, apart from the data and the seed."""

    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()

    @model_validator(mode="after")
    def _can_be_sampled(self) -> Self:
        if self.training.inference == "mcmc":
            for key, found, needed in (
                ("item_weights", self.model.item_weights, "variational"),
                ("estimator", self.model.estimator, "marginal"),
            ):
                if found not in ("auto", needed):
                    raise ValueError(f"inference 'mcmc' needs {key} '{needed}'; found '{found}'")
            if self.model.missing == "agnostic":
                raise ValueError("inference 'mcmc' needs a missing model of single cells; found missing 'agnostic'")
        return self

    @model_validator(mode="after")
    def _mode_can_be_sought(self) -> Self:
        if self.training.proposal == "newton" and self.model.estimator == "sampled":
            raise ValueError("proposal 'newton' needs estimator 'marginal'; found 'sampled'")
        return self

    def replace(self, values: Mapping[str, Any]) -> Self:
        """Return settings with fields changed by name, wherever they live; text is parsed as the field's type.

        Raises
        ------
        ConfigError
            If a name is unknown or a value does not fit, naming both.
        """
        parts = {"model": self.model.model_dump(), "training": self.training.model_dump()}
        for key, value in values.items():
            part = next((name for name, fields in parts.items() if key in fields), None)
            if part is None:
                known = sorted(key for fields in parts.values() for key in fields)
                near = get_close_matches(key, known, n=2, cutoff=0.7)
                hint = f"did you mean {' or '.join(near)}?" if near else f"known settings: {', '.join(known)}"
                raise ConfigError(f"unknown setting '{key}'; {hint}")
            parts[part][key] = value
        return self.from_dict(parts)

    def changes(self) -> dict[str, Any]:
        """Return by name, as JSON values, what differs from the defaults: ``Settings().replace`` gives these again."""
        own, default = (one.model_dump(mode="json") for one in (self, type(self)()))
        return {
            key: value for part, fields in own.items() for key, value in fields.items() if value != default[part][key]
        }

    def resolve_for(self, log: HasSize) -> Self:
        """Return settings in which every ``auto`` is decided by a log."""
        has_levels = log.scale.levels is not None
        return self.resolve(has_levels=has_levels, n_ratings=log.n_ratings, n_users=log.n_users, n_items=log.n_items)

    def resolve(self, *, has_levels: bool, n_ratings: int, n_users: int, n_items: int) -> Self:
        """Return settings in which every ``auto`` is decided by what a log is like; see ``ModelConfig.resolve``."""
        model, training, n_cells = self.model, self.training, n_users * n_items
        wanted = training.sampled_items
        all_items = n_items <= FEW_ITEMS if wanted == "auto" else wanted == "all"
        if training.inference == "mcmc" and model.item_weights == "auto":
            model = model.model_copy(update={"item_weights": "variational"})
        elif training.stop == "held-out" and model.item_weights == "auto":
            model = model.model_copy(update={"item_weights": "point"})
        model = model.resolve(has_levels=has_levels, n_ratings=n_ratings, all_items=all_items)
        decided: dict[str, Any] = {}
        if training.inference == "auto":
            is_small = n_ratings < SMALL_LOG and n_cells <= SAMPLED_CELLS
            is_possible = model.item_weights == "variational" and model.estimator == "marginal"
            sampled = is_small and is_possible and training.stop == "auto"
            decided["inference"] = "mcmc" if sampled else "variational"
        if training.proposal == "auto":
            decided["proposal"] = "newton" if model.estimator == "marginal" else "encoder"
        if training.stop == "auto":
            decided["stop"] = "converged" if model.item_weights == "variational" else "held-out"
        if training.learning_rate == "auto":
            decided["learning_rate"] = 0.03 if model.item_weights == "variational" else 0.01
        if training.rate_cuts == "auto":
            stop = decided.get("stop", training.stop)
            decided["rate_cuts"] = 0 if stop == "held-out" and all_items and training.average_decay else 1
        return self.model_copy(update={"model": model, "training": training.model_copy(update=decided)})

    def checks_selection(self, log: HasSize) -> bool:
        """Whether a fit with these, resolved, is followed by one without selection, if ``missing`` was left to a log.

        Not on small logs that are fitted to all their users: there it is the stated sign that decides, and not what a
        bound can tell.
        """
        training = self.training
        converges = training.inference == "variational" and training.stop == "converged"
        can_tell = training.stop == "held-out" or (converges and log.n_ratings >= SMALL_LOG)
        return training.check_selection and can_tell

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Validate nested settings, as read from JSON; raise ConfigError with the first problem in one line."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            if first["type"] == "value_error":  # from a validator of ours, which says all there is to say
                raise ConfigError(str(first["ctx"]["error"])) from error
            # A setting that may be a word or a number has an error for each.
            each = [one for one in error.errors() if one["loc"][:2] == first["loc"][:2]]
            place = ".".join(map(str, first["loc"][1 : None if len(each) == 1 else 2])) or "settings"
            wanted = " or ".join(dict.fromkeys(map(_wanted, each)))
            raise ConfigError(f"setting {place}: expected {wanted}; found {first['input']!r}") from error
