"""Does a fitted model reproduce who rates what? Posterior predictive checks of the mask.

Masks are drawn anew from the fitted model, each user's latents from their posterior given the user's own ratings and
mask, and compared with the actual one: by the users' activity, by the items' popularity, and by rating (Gelman, Meng &
Stern, Posterior predictive assessment of model fitness, Statistica Sinica 1996). The intervals contain the chance of
each choice to rate, the spread of the latents, and that of the items' weights where they have a posterior. Since the
latents know the actual mask, such checks are conservative: a model that is right fails them more rarely than the
intervals say.

A model that fails is wrong about who rates what. One that passes need not be right about the selection: the number of
ratings at each level can be matched by other ratings with another selection.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mnar_recsys.data import RatingLog
from mnar_recsys.model.mnar_vae import MnarVae
from mnar_recsys.prediction.replicated_masks import SAMPLES, MaskReplicator, MaskTally
from mnar_recsys.rng import numpy_generator

REPLICATES = 200
"""Masks drawn."""
INTERVAL = 0.95
MOST_USERS = 500
GROUPS = 10
_LEAST_USERS = 100
# Cells (users x items x draws), where that leaves _LEAST_USERS: what the checks cost.
_CELLS = 500_000_000
_ALARM = 0.05
_MEANING = {
    "activity": "How many ratings people give",
    "popularity": "How often items are rated",
    "level": "How many ratings of each level there are",
}


@dataclass(frozen=True, eq=False)
class MaskCheck:
    """Actual and predicted numbers of a few groups of users, items or ratings, each (G,)."""

    name: str
    """``activity``, ``popularity`` or ``level``"""
    groups: tuple[str, ...]
    actual: NDArray[np.float64]
    predicted: NDArray[np.float64]
    """mean over the drawn masks"""
    low: NDArray[np.float64]
    """lower end of the interval that holds INTERVAL of the drawn masks"""
    high: NDArray[np.float64]
    p_value: float
    """share of the masks, drawn and actual, that lie at least as far from the mean as the actual one does, by the sum
    over the groups of the squared distance in standard deviations"""

    @property
    def inside(self) -> NDArray[np.bool_]:
        """Where the actual number lies in the interval, (G,)."""
        return (self.low <= self.actual) & (self.actual <= self.high)

    @property
    def table(self) -> pd.DataFrame:
        """A row a group."""
        columns = {"group": self.groups, "actual": self.actual, "predicted": self.predicted, "low": self.low}
        return pd.DataFrame({"check": self.name, **columns, "high": self.high, "inside": self.inside})

    def verdict(self) -> str:
        """Return in words whether the model reproduces the numbers."""
        if self.p_value >= _ALARM:
            return f"{_MEANING[self.name]}: reproduced (p = {self.p_value:.2f})."
        worst = int(np.argmax(np.abs(self.actual - self.predicted) / np.maximum(self.high - self.low, 1e-9)))
        return (
            f"{_MEANING[self.name]}: not reproduced (p = {self.p_value:.3f}); {int((~self.inside).sum())} of "
            f"{len(self.groups)} groups lie outside their {INTERVAL:.0%} intervals. Farthest off is group "
            f"{self.groups[worst]}, with {in_figures(self.actual[worst])} actual and "
            f"{in_figures(self.predicted[worst])} predicted."
        )


@dataclass(frozen=True, eq=False)
class MaskChecks:
    """The three checks, on a sample of users."""

    activity: MaskCheck
    """Ratings of a user, tenths of the users by how many they give. In a drawn mask the tenths are by its own numbers:
    those who give most in the actual one do so by chance, too, and would not quite do it again."""
    popularity: MaskCheck
    """Percentage of the cells that are rated; tenths of the items by how many ratings they have in the log. Items
    have a bias each, fitted to just these numbers: a gap is a fit cut short, or a mechanism that was given."""
    level: MaskCheck
    """Ratings at each level, predicted sum_ij p(r | z_i) pi_ij(r); on a real scale, in equal parts of it."""
    n_users: int
    """users checked"""
    n_known: int
    """users with ratings, of whom they are a sample"""

    @property
    def all(self) -> tuple[MaskCheck, ...]:
        """The checks in the order to show them."""
        return self.activity, self.popularity, self.level

    @property
    def table(self) -> pd.DataFrame:
        """A row a check and group: ``check group actual predicted low high inside``."""
        return pd.concat([check.table for check in self.all], ignore_index=True)


def check_mask(
    model: MnarVae,
    log: RatingLog,
    *,
    seed: int = 0,
    replicates: int = REPLICATES,
    most_users: int = MOST_USERS,
    on_share: Callable[[float], None] | None = None,
) -> MaskChecks:
    """Draw masks from a fitted model, and compare them with the actual one.

    Cells of a survey (see ``add_survey``) count on neither side. Users without ratings are left out, as they were of
    the fit.

    Parameters
    ----------
    model : MnarVae
        Fitted.
    log : RatingLog
        The ratings that it was fitted to.
    seed : int
        Fixes users, latents and masks.
    replicates : int
        Masks to draw.
    most_users : int
        Users to check at most, a random sample; fewer where there are more than 1,400 items, but not below 100.
    on_share : callable, optional
        Called as work goes on with the share of it that is done, rising to 1.
    """
    known = np.flatnonzero(np.diff(log.indptr) > 0)
    most = min(most_users, max(_CELLS // (log.n_items * (SAMPLES + replicates)), _LEAST_USERS))
    rng = numpy_generator(seed, "users of the mask checks")
    users = np.sort(rng.choice(known, min(most, len(known)), replace=False))
    tally = MaskTally(log, users, GROUPS)
    actual, drawn = tally.actual(), MaskReplicator(model, log, tally, seed).draw(replicates, on_share)
    activity = _by_rank(actual.by_user), _by_rank(drawn.by_user)
    percent = len(users) * tally.group_sizes / 100
    return MaskChecks(
        _compare("activity", _tenths(len(activity[0])), *activity),
        _compare("popularity", _tenths(len(percent)), actual.by_group / percent, drawn.by_group / percent),
        _compare("level", tally.level_names, actual.by_level, drawn.by_level),
        len(users),
        len(known),
    )


def in_figures(number: float) -> str:
    """Return a number with the digits that say something."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _by_rank(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean count of tenths of the users, from the fewest ratings to the most: (..., U) -> (..., G)."""
    parts = np.array_split(np.sort(counts, axis=-1), min(GROUPS, counts.shape[-1]), axis=-1)
    return np.stack([part.mean(-1) for part in parts], axis=-1)


def _tenths(count: int) -> tuple[str, ...]:
    names = [f"{number}" for number in range(1, count + 1)]
    names[0], names[-1] = "1 (least)", f"{count} (most)"
    return tuple(names)


def _compare(name: str, groups: tuple[str, ...], actual: NDArray[np.float64], drawn: NDArray[np.float64]) -> MaskCheck:
    """Compare actual numbers (G,) with those of drawn masks (M, G)."""
    mean = drawn.mean(0)
    low, high = np.quantile(drawn, [(1 - INTERVAL) / 2, (1 + INTERVAL) / 2], axis=0)
    # A group that is the same in every mask has no spread; any distance is then as far as can be.
    spread = np.maximum(drawn.std(0, ddof=1), 1e-6 + 1e-4 * mean)
    distance = np.square((drawn - mean) / spread).sum(-1)
    own = float(np.square((actual - mean) / spread).sum())
    p_value = float((1 + (distance >= own).sum()) / (1 + len(drawn)))
    return MaskCheck(name, groups, actual, mean, low, high, p_value)
