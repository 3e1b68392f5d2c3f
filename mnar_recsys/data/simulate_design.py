"""What is fixed before any user is drawn: the catalogue, the thresholds and the intercept of the mask."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit, ndtr

from mnar_recsys.data.simulate_presets import Preset
from mnar_recsys.errors import ConfigError
from mnar_recsys.rng import numpy_generator

MIN_USERS, MIN_ITEMS = 50, 20
# Cells a block of users holds: about 16 MB an array, whatever the catalogue's size.
_BLOCK_CELLS = 4_000_000
_ACTIVITY_NODES = 15


@dataclass(frozen=True, eq=False)
class Design:
    """A catalogue of P items and the constants that calibrate it over infinitely many users."""

    preset: Preset
    seed: int
    n_users: int
    n_items: int
    ratings_per_user: float
    """Expected observed ratings of a user, before ``min_ratings`` has any redrawn."""
    item_offset: NDArray[np.float32]  # (P,)
    item_factors: NDArray[np.float32]  # (P, rank)
    item_popularity: NDArray[np.float32]  # (P,), log-odds
    thresholds: NDArray[np.float64]  # (R - 1,), on the utility's scale
    intercept: float
    """Log-odds of being observed where activity, popularity and selection are zero."""
    selection: NDArray[np.float64]  # (R,), log-odds, mean zero over the levels

    @property
    def users_per_block(self) -> int:
        """Users that share one random stream; it depends on the number of items alone."""
        return max(1, _BLOCK_CELLS // self.n_items)

    def item_level_shares(self) -> NDArray[np.float64]:
        """Return P(rating = level) of each item over all users, (P, R)."""
        return _item_level_shares(self.preset, self.item_offset, self.item_factors, self.thresholds)

    def observed_marginal(self) -> NDArray[np.float64]:
        """Return the expected shares of the levels among observed ratings, (R,), before ``min_ratings``."""
        shares = self.item_level_shares()
        by_level = self.intercept + self.selection
        observed = _expected_counts(self.preset, shares, self.item_popularity, by_level)
        return np.asarray(observed / observed.sum())


def make_design(preset: Preset, n_users: int, n_items: int, seed: int, ratings_per_user: float | None) -> Design:
    """Draw a catalogue and calibrate it.

    The thresholds give exactly the preset's marginal in expectation over users, *given* the items drawn; the
    intercept, with the selection where it is solved for, gives exactly the mean number of ratings (and the
    observed marginal). That mean is 20, or 2 % of the items where they are fewer than 1,000.

    Raises
    ------
    ConfigError
        If a size is too small, or the mean does not fit the catalogue or the preset.
    """
    mean = min(20.0, 0.02 * n_items) if ratings_per_user is None else ratings_per_user
    _check_sizes(preset, n_users, n_items, mean)
    rng = numpy_generator(seed, "items")
    offset = rng.normal(scale=np.sqrt(preset.item_share), size=n_items).astype(np.float32)
    taste_sd = np.sqrt(preset.taste_share / preset.rank)
    factors = rng.normal(scale=taste_sd, size=(n_items, preset.rank)).astype(np.float32)
    popularity = rng.normal(scale=preset.popularity_sd, size=n_items).astype(np.float32)
    thresholds = _solve_thresholds(preset, offset, factors)
    shares = _item_level_shares(preset, offset, factors, thresholds)
    by_level = _solve_mask(preset, shares, popularity, mean)
    intercept = float(by_level.mean())
    return Design(
        preset=preset,
        seed=seed,
        n_users=n_users,
        n_items=n_items,
        ratings_per_user=mean,
        item_offset=offset,
        item_factors=factors,
        item_popularity=popularity,
        thresholds=thresholds,
        intercept=intercept,
        selection=by_level - intercept,
    )


def _check_sizes(preset: Preset, n_users: int, n_items: int, mean: float) -> None:
    if n_users < MIN_USERS or n_items < MIN_ITEMS:
        raise ConfigError(
            f"a simulation needs at least {MIN_USERS} users and {MIN_ITEMS} items; found {n_users} and {n_items}"
        )
    if not 0.0 < mean <= n_items / 2:
        raise ConfigError(f"ratings_per_user must be above 0 and at most half of the {n_items} items; found {mean:g}")
    if mean < preset.min_ratings:
        raise ConfigError(
            f"preset {preset.name} keeps users with {preset.min_ratings} ratings or more, so a mean must be "
            f"at least that; found {mean:g}. Use more items, or raise ratings_per_user"
        )


def _item_sd(preset: Preset, factors: NDArray[np.float32]) -> NDArray[np.float64]:
    taste = np.square(factors.astype(np.float64)).sum(axis=1)
    return np.asarray(np.sqrt(preset.user_share + taste + preset.noise_share))


def _solve_thresholds(preset: Preset, offset: NDArray[np.float32], factors: NDArray[np.float32]) -> NDArray[np.float64]:
    # Given item j a random user's utility is N(offset_j, sd_j^2): the population is a mixture of P normals.
    sd = _item_sd(preset, factors)
    cumulative = np.cumsum(preset.rating_marginal)[:-1]

    def excess(threshold: float, target: float) -> float:
        return float(ndtr((threshold - offset) / sd).mean() - target)

    return np.array([brentq(excess, -20.0, 20.0, args=(target,), xtol=1e-12) for target in cumulative])


def _item_level_shares(
    preset: Preset,
    offset: NDArray[np.float32],
    factors: NDArray[np.float32],
    thresholds: NDArray[np.float64],
) -> NDArray[np.float64]:
    below = ndtr((thresholds - offset[:, None]) / _item_sd(preset, factors)[:, None])  # (P, R - 1)
    return np.asarray(np.diff(below, prepend=0.0, append=1.0, axis=1))


def _expected_counts(
    preset: Preset,
    shares: NDArray[np.float64],
    popularity: NDArray[np.float32],
    by_level: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return a user's expected number of observed ratings of each level, (L,), the activity integrated out.

    Parameters
    ----------
    shares
        P(rating = level) of each item, (P, L), for the L levels that ``by_level`` gives the log-odds of.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(_ACTIVITY_NODES)
    logit = by_level + popularity[:, None].astype(np.float64)
    total = np.zeros(len(by_level))
    for node, weight in zip(nodes, weights / weights.sum(), strict=True):
        total += weight * (shares * expit(logit + preset.activity_sd * node)).sum(axis=0)
    return total


def _solve_mask(
    preset: Preset, shares: NDArray[np.float64], popularity: NDArray[np.float32], mean: float
) -> NDArray[np.float64]:
    """Return the intercept + selection, (R,), that give the mean and, if asked for, the observed marginal."""
    if preset.selection is not None:
        selection = np.asarray(preset.selection)
        return _solve_shift(preset, shares, popularity, selection, mean) + selection
    zero = np.zeros(1)
    targets = mean * np.asarray(preset.observed_marginal)
    return np.array(
        [_solve_shift(preset, shares[:, [level]], popularity, zero, target) for level, target in enumerate(targets)]
    )


def _solve_shift(
    preset: Preset,
    shares: NDArray[np.float64],
    popularity: NDArray[np.float32],
    by_level: NDArray[np.float64],
    target: float,
) -> float:
    available = float(shares.sum())
    if target >= available:
        raise ConfigError(
            f"ratings_per_user asks for {target:.3g} ratings of a level that a user gives only "
            f"{available:.3g} items; lower it"
        )

    def excess(shift: float) -> float:
        return float(_expected_counts(preset, shares, popularity, by_level + shift).sum() - target)

    return float(brentq(excess, -40.0, 40.0, xtol=1e-10))
