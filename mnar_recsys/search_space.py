"""Where a search for settings looks: the numbers that are searched, and their ranges.

What a held-out bound cannot judge is no part of it: the sign of the selection and the prior of its strength say
something about people. Decoder and missing model are a choice of their own, see ``model_selection``.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mnar_recsys.config import Settings
from mnar_recsys.errors import ConfigError


@dataclass(frozen=True)
class Range:
    """From ``low`` to ``high``, both inside; whole numbers where both ends are."""

    low: float
    high: float
    is_log: bool = True
    """whether ratios count, and not differences"""

    @property
    def is_whole(self) -> bool:
        """Whether only whole numbers are meant."""
        return isinstance(self.low, int) and isinstance(self.high, int)


SPACE: Mapping[str, Range] = {
    "latent_size": Range(2, 40),
    "exposure_size": Range(1, 16),
    "embedding_size": Range(8, 64),
    "code_size": Range(16, 128),
    "weight_prior_sd": Range(0.1, 2.0),
    "bias_prior_sd": Range(0.1, 2.0),
    "exposure_prior_sd": Range(0.1, 2.0),
    "learning_rate": Range(1e-3, 5e-2),
    "batch_size": Range(25, 400),
}
"""Setting to its range."""
_LEARNED = ("weight_prior_sd", "bias_prior_sd", "exposure_prior_sd")


def search_space(
    settings: Settings, fixed: Iterable[str] = (), space: Mapping[str, Range] | None = None
) -> dict[str, Range]:
    """Return what there is to search around settings that a log has resolved.

    Parameters
    ----------
    settings : Settings
        The first trial. A part that they do without (no exposure, no prior) stays away, and prior scales that are
        learned because the items' weights are variational are not searched.
    fixed : iterable of str
        Settings that are not to be searched.
    space : mapping of str to Range, optional
        Default: ``SPACE``.

    Raises
    ------
    ConfigError
        If a range is of no setting or is empty, the first trial lies outside of one, or nothing is left to search.
    """
    values = {**settings.model.model_dump(), **settings.training.model_dump()}
    left_out = {*fixed, *(_LEARNED if settings.model.item_weights == "variational" else ())}
    if not values["exposure_size"]:
        left_out |= {"exposure_size", "exposure_prior_sd"}
    found = {}
    for name, one in (SPACE if space is None else space).items():
        if name not in values:
            raise ConfigError(f"cannot search '{name}': there is no such setting")
        value = values[name]
        if name in left_out or value is None:
            continue
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not one.low <= value <= one.high or one.low >= one.high or (one.is_log and one.low <= 0):
            raise ConfigError(
                f"'{name}' is to be searched from {one.low:g} to {one.high:g}, and the first trial has {value}; state "
                f"it (--set {name}={value}), so that it is not searched, or give a range that holds it"
            )
        found[name] = one
    if not found:
        raise ConfigError("nothing is left to search: all settings of the search space are given; leave one out")
    return found
