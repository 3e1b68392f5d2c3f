"""Rating logs whose complete ratings, mask and propensities are known.

Users are drawn in blocks, each from its own named random stream: memory is O(ratings + items + one block),
and any block of the truth can be computed again later. Time is O(users x items), about 35 ns a cell.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, ndtr

from mnar_recsys.checks import check_same_length
from mnar_recsys.data.log import RatingLog
from mnar_recsys.data.scale import RatingScale
from mnar_recsys.data.simulate_design import Design, make_design
from mnar_recsys.data.simulate_presets import find_preset
from mnar_recsys.data.vocab import Vocabulary
from mnar_recsys.errors import ConfigError, DataError
from mnar_recsys.rng import numpy_generator

_SURVEYED_USERS = 0.35
_SURVEY_ITEMS = 10
_LABEL_SHARE = 0.05
_MAX_COMPLETE_CELLS = 50_000_000


@dataclass(frozen=True, eq=False)
class Block:
    """Users ``start`` to ``start + B`` with all their cells."""

    start: int
    offset: NDArray[np.float32]  # (B,), utility
    factors: NDArray[np.float32]  # (B, rank)
    activity: NDArray[np.float32]  # (B,), log-odds
    ratings: NDArray[np.int8]  # (B, P), level 1..R
    propensity: NDArray[np.float32]  # (B, P), P(observed | rating, user, item)
    observed: NDArray[np.bool_]  # (B, P)


@dataclass(frozen=True, eq=False)
class Truth:
    """What generated a simulation. User and item ids are 1..N and 1..P; arrays follow the ids."""

    design: Design
    user_offset: NDArray[np.float32]  # (N,), utility
    user_factors: NDArray[np.float32]  # (N, rank)
    user_activity: NDArray[np.float32]  # (N,), log-odds

    @property
    def selection(self) -> NDArray[np.float64]:
        """Log-odds of being observed per level, (R,), mean zero over the levels."""
        return self.design.selection

    @property
    def rating_marginal(self) -> NDArray[np.float64]:
        """Shares of the levels among all cells, (R,), before ``min_ratings`` has any user redrawn."""
        return np.asarray(self.design.preset.rating_marginal)

    def block(self, start: int, stop: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
        """Return complete ratings and propensities of the users at ``start`` to ``stop``, each (b, P).

        Positions count from 0: the user with id 1 is at 0. Computed again from the seed, which costs as much
        time as simulating those users did.

        Raises
        ------
        DataError
            If the range is empty or outside the users.
        """
        if not 0 <= start < stop <= self.design.n_users:
            raise DataError(f"users must be a range within 0..{self.design.n_users}; found {start}..{stop}")
        size = self.design.users_per_block
        parts = []
        for number in range(start // size, (stop - 1) // size + 1):
            part = draw_block(self.design, number)
            rows = slice(max(start - part.start, 0), stop - part.start)
            parts.append((part.ratings[rows], part.propensity[rows]))
        ratings, propensity = zip(*parts, strict=True)
        return np.concatenate(ratings), np.concatenate(propensity)

    def complete_ratings(self) -> NDArray[np.int8]:
        """Return every rating, (N, P).

        Raises
        ------
        DataError
            If that is more than 50 million cells.
        """
        cells = self.design.n_users * self.design.n_items
        if cells > _MAX_COMPLETE_CELLS:
            raise DataError(
                f"complete ratings must be at most {_MAX_COMPLETE_CELLS:,} cells; found {cells:,}. "
                "Use block(start, stop)"
            )
        return self.block(0, self.design.n_users)[0]

    def level_probabilities(self, users: NDArray[np.generic], items: NDArray[np.generic]) -> NDArray[np.float64]:
        """Return P(rating = level | true factors) of pairs of ids, (n, R): the best any model could say."""
        rows, columns = self._positions("user", users), self._positions("item", items)
        check_same_length(users=rows, items=columns)
        design = self.design
        taste = np.einsum("nk,nk->n", self.user_factors[rows], design.item_factors[columns])
        known = self.user_offset[rows] + design.item_offset[columns] + taste
        below = ndtr((design.thresholds - known[:, None]) / np.sqrt(design.preset.noise_share))
        return np.asarray(np.diff(below, prepend=0.0, append=1.0, axis=1))

    def expected_rating(self, users: NDArray[np.generic], items: NDArray[np.generic]) -> NDArray[np.float64]:
        """Return E[rating | true factors] of pairs of ids, (n,), in rating points."""
        return np.asarray(self.level_probabilities(users, items) @ self.design.preset.levels)

    def _positions(self, kind: str, ids: NDArray[np.generic]) -> NDArray[np.int64]:
        total = self.design.n_users if kind == "user" else self.design.n_items
        positions = np.asarray(ids, dtype=np.int64) - 1
        if ((positions < 0) | (positions >= total)).any():
            raise DataError(f"{kind} ids must be from 1 to {total}; found {positions.min() + 1}..{positions.max() + 1}")
        return positions


@dataclass(frozen=True, eq=False)
class Simulation:
    """A self-selected log, a random survey of the same people, and the truth.

    The three logs share their vocabularies.
    """

    train: RatingLog
    """Ratings people chose to give (MNAR)."""
    test: RatingLog
    """Survey ratings of random items (MCAR); a few cells are in ``train`` too, with the same rating."""
    labels: RatingLog
    """Other survey cells, a twentieth of all, that a method may train on."""
    truth: Truth


def simulate_ratings(
    preset: str = "r3-like",
    *,
    n_users: int = 4000,
    n_items: int = 1000,
    seed: int = 0,
    ratings_per_user: float | None = None,
) -> Simulation:
    """Simulate a rating log with known truth.

    Parameters
    ----------
    preset
        A name of ``simulate_presets.PRESETS``.
    n_users, n_items
        At least 50 and 20. Everybody is in the vocabulary, with ratings or without.
    seed
        The same seed, preset and sizes give the same data.
    ratings_per_user
        Mean of the self-selected ratings. Default: 20, or 2 % of the items where there are fewer than 1,000.

    Raises
    ------
    ConfigError
        If the preset is unknown or a size is out of range.
    """
    design = make_design(find_preset(preset), n_users, n_items, seed, ratings_per_user)
    surveyed, survey_items = _draw_survey(design)
    people: list[tuple[NDArray[np.float32], ...]] = []
    train: list[tuple[NDArray[np.integer], ...]] = []
    survey_ratings = np.empty(survey_items.shape, dtype=np.int8)
    for block in _blocks(design):
        people.append((block.offset, block.factors, block.activity))
        rows, items = np.nonzero(block.observed)
        train.append(((rows + block.start).astype(np.int32), items.astype(np.int32), block.ratings[rows, items]))
        inside = slice(*np.searchsorted(surveyed, (block.start, block.start + len(block.offset))))
        survey_ratings[inside] = block.ratings[(surveyed[inside] - block.start)[:, None], survey_items[inside]]
    truth = Truth(design, *(np.concatenate(part) for part in zip(*people, strict=True)))
    is_label = _draw_labels(design, survey_ratings.size)
    survey = (np.repeat(surveyed, survey_items.shape[1]), survey_items.ravel(), survey_ratings.ravel())
    vocabularies = (
        Vocabulary.from_ids(np.arange(1, n_users + 1), "user"),
        Vocabulary.from_ids(np.arange(1, n_items + 1), "item"),
    )
    return Simulation(
        train=_as_log(design, vocabularies, *(np.concatenate(part) for part in zip(*train, strict=True))),
        test=_as_log(design, vocabularies, *(part[~is_label] for part in survey)),
        labels=_as_log(design, vocabularies, *(part[is_label] for part in survey)),
        truth=truth,
    )


def draw_block(design: Design, number: int) -> Block:
    """Draw block ``number`` of users, those with fewer ratings than the preset's minimum again and again."""
    start = number * design.users_per_block
    stop = min(start + design.users_per_block, design.n_users)
    if not 0 <= start < stop:
        raise ConfigError(f"block must be within the {design.n_users} users; found block {number}")
    block = _draw_users(design, number, 0, stop - start)
    attempt = 0
    while (short := np.flatnonzero(block.observed.sum(axis=1) < design.preset.min_ratings)).size:
        attempt += 1
        redrawn = _draw_users(design, number, attempt, len(short))
        for name in ("offset", "factors", "activity", "ratings", "propensity", "observed"):
            getattr(block, name)[short] = getattr(redrawn, name)
    return block


def _blocks(design: Design) -> Iterator[Block]:
    return (draw_block(design, number) for number in range(-(-design.n_users // design.users_per_block)))


def _draw_users(design: Design, number: int, attempt: int, size: int) -> Block:
    preset, rng = design.preset, numpy_generator(design.seed, "users", number, attempt)
    offset = np.float32(np.sqrt(preset.user_share)) * rng.standard_normal(size, dtype=np.float32)
    factors = rng.standard_normal((size, preset.rank), dtype=np.float32)
    activity = np.float32(preset.activity_sd) * rng.standard_normal(size, dtype=np.float32)
    utility = rng.standard_normal((size, design.n_items), dtype=np.float32)  # (B, P)
    utility *= np.float32(np.sqrt(preset.noise_share))
    utility += factors @ design.item_factors.T
    utility += offset[:, None]
    utility += design.item_offset
    ratings = np.ones(utility.shape, dtype=np.int8)
    for threshold in design.thresholds.astype(np.float32):
        ratings += utility > threshold
    by_level = (design.selection + design.intercept).astype(np.float32)
    logit = np.take(by_level, ratings - 1, out=utility, mode="clip")
    logit += activity[:, None]
    logit += design.item_popularity
    propensity = expit(logit, out=logit)
    observed = rng.random(propensity.shape, dtype=np.float32) < propensity
    return Block(number * design.users_per_block, offset, factors, activity, ratings, propensity, observed)


def _draw_survey(design: Design) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the surveyed users' positions, rising (U,), and the distinct items of each, rising (U, 10)."""
    rng = numpy_generator(design.seed, "survey")
    users = np.sort(rng.choice(design.n_users, round(_SURVEYED_USERS * design.n_users), replace=False))
    items = rng.integers(design.n_items, size=(len(users), _SURVEY_ITEMS))
    # Redrawing whole rows that hold an item twice leaves the rest uniform over all sets of distinct items.
    while (again := np.flatnonzero((np.diff(np.sort(items, axis=1)) == 0).any(axis=1))).size:
        items[again] = rng.integers(design.n_items, size=(len(again), _SURVEY_ITEMS))
    return users, np.sort(items, axis=1)


def _draw_labels(design: Design, n_cells: int) -> NDArray[np.bool_]:
    is_label = np.zeros(n_cells, dtype=np.bool_)
    rng = numpy_generator(design.seed, "labels")
    is_label[rng.choice(n_cells, round(_LABEL_SHARE * n_cells), replace=False)] = True
    return is_label


def _as_log(
    design: Design,
    vocabularies: tuple[Vocabulary, Vocabulary],
    rows: NDArray[np.integer],
    items: NDArray[np.integer],
    ratings: NDArray[np.integer],
) -> RatingLog:
    """Return the log of cells sorted by user and item."""
    indptr = np.zeros(design.n_users + 1, dtype=np.int64)
    np.cumsum(np.bincount(rows, minlength=design.n_users), out=indptr[1:])
    scale = RatingScale(1.0, float(len(design.selection)), 1.0)
    return RatingLog(indptr, items.astype(np.int32), ratings.astype(np.float32), *vocabularies, scale)
