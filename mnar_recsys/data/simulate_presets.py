"""The named worlds of the simulator: who rates what, and how the choice depends on the rating."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mnar_recsys.errors import ConfigError

# The marginals of Yahoo! R3 as printed in papers: for songs drawn at random, and for songs people chose.
R3_RANDOM_MARGINAL = (0.515, 0.252, 0.150, 0.055, 0.028)
R3_SELECTED_MARGINAL = (0.314, 0.127, 0.158, 0.156, 0.245)


@dataclass(frozen=True)
class Preset:
    """One world of ratings from 1 to 5.

    A rating is a latent utility of variance 1 cut at four thresholds; the shares say how much of that
    variance comes from the user's offset, the item's offset, the inner product of tastes, and (the rest)
    noise that no model can know. The logit of its being observed is ``intercept + selection[rating] +
    activity[user] + popularity[item]``.

    For ``r3-like`` the selection comes out near the log-ratios of the two marginals, which are -.5, -.7, .05,
    1.0, 2.2: up to a constant, and stretched by about a seventh, because a logistic saturates where keen
    people meet popular items. It is neither linear nor monotone.
    """

    name: str
    """What ``simulate_ratings`` calls it."""
    meaning: str
    """One sentence for the user."""
    selection: tuple[float, ...] | None = None
    """Log-odds of being observed per level, from 1 to 5; only differences matter. None: solved for, so that
    the observed ratings have the marginal ``observed_marginal``."""
    observed_marginal: tuple[float, ...] = R3_SELECTED_MARGINAL
    """Shares of the levels among observed ratings, where ``selection`` is None."""
    rating_marginal: tuple[float, ...] = R3_RANDOM_MARGINAL
    """Shares of the levels among all cells, seen and unseen."""
    user_share: float = 0.15
    """Share of the utility's variance that is the user's offset."""
    item_share: float = 0.10
    """Share of the utility's variance that is the item's offset."""
    taste_share: float = 0.405
    """Share of the utility's variance that is the match of tastes. What the three leave, .345, is noise: with
    it the MSE of someone who knows all factors is about .475 squared rating points."""
    rank: int = 8
    """Dimension of the tastes."""
    activity_sd: float = 0.8
    """Standard deviation of the users' log-odds of rating."""
    popularity_sd: float = 0.8
    """Standard deviation of the items' log-odds of being rated."""
    min_ratings: int = 0
    """Users with fewer observed ratings are redrawn until none is left."""

    @property
    def levels(self) -> NDArray[np.float64]:
        """The rating levels, (R,), in rating points."""
        return np.arange(1.0, len(self.rating_marginal) + 1)

    @property
    def noise_share(self) -> float:
        """Share of the utility's variance that is noise."""
        return 1.0 - self.user_share - self.item_share - self.taste_share


_U_SHAPE = (0.8, -0.4, -0.8, -0.4, 0.8)

_ALL = (
    Preset("r3-like", "The marginals of Yahoo! R3: people rate what they love, and hardly what leaves them cold."),
    Preset("popularity", "Activity and popularity decide what is rated; the rating itself does not.", (0.0,) * 5),
    Preset("monotone", "The log-odds of rating rise by .6 a star.", (-1.2, -0.6, 0.0, 0.6, 1.2)),
    Preset("extremes", "People rate what they love or hate.", _U_SHAPE),
    Preset("self-censoring", "People keep extreme opinions to themselves.", tuple(-value for value in _U_SHAPE)),
    Preset(
        "at-least-10",
        "r3-like, but only people with 10 ratings or more are in the log, so that the mean is higher.",
        min_ratings=10,
    ),
)
PRESETS = {preset.name: preset for preset in _ALL}


def find_preset(name: str) -> Preset:
    """Return the preset called ``name``.

    Raises
    ------
    ConfigError
        If there is none of that name.
    """
    if name not in PRESETS:
        raise ConfigError(f"preset must be one of {', '.join(PRESETS)}; found {name!r}")
    return PRESETS[name]
