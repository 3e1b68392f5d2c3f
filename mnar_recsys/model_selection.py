"""Choosing settings without randomly collected ratings: by the joint likelihood of people held out.

Each candidate is fitted to the same part of the users, with its own early stopping inside that part, and scored by the
bound on log p(x_obs, s) of the others. The same users, the same number of importance samples, missing ratings summed
out, a density scored as the probability that it rounds to the rating: then bounds of different decoders and missing
models compare. An ignorable missing model keeps the items' biases and the exposure, so it says as much of who rates
what as the others do.

What is compared is how well the log is explained, ratings and choice to rate together. Two explanations of the same log
can differ in what they say of the ratings that were never given, the sign of the selection above all: of that the
held-out bound says little.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mnar_recsys.candidates import CANDIDATES, make_candidates, needs_levels
from mnar_recsys.config import Settings
from mnar_recsys.data import RatingLog, add_survey
from mnar_recsys.errors import ConfigError, DataError, MnarError
from mnar_recsys.model.build import build_model
from mnar_recsys.model.mnar_vae import MnarVae
from mnar_recsys.model_card import selection_by_level
from mnar_recsys.prediction.unrated import mean_of_unrated
from mnar_recsys.prediction.user_bounds import user_bounds
from mnar_recsys.recommender import MNARRecommender, OnStep
from mnar_recsys.rng import numpy_generator
from mnar_recsys.training import Trainer

HELD_OUT_SHARE = 0.2
HELD_OUT_MOST = 1000
FEW_USERS = 100
"""Held-out users below which their standard error is itself a guess."""
_LEAST_USERS = 10
# What is compared is bounds, whichever way the chosen one is fitted in the end.
_COMPARED = {"inference": "variational"}
# Cells of held-out users, where that leaves FEW_USERS of them: what a score costs.
_CELLS = 1_000_000
# What a look at a fit that is still going on costs: not more than a step or two.
_ROUGH_USERS = 100
_ROUGH_SAMPLES = 30


@dataclass(frozen=True)
class CandidateScore:
    """What became of one candidate."""

    name: str
    settings: Settings
    """with every ``auto`` decided, as for all users together"""
    bounds: NDArray[np.float64]
    """of each held-out user, nats, (H,)"""
    selection: float
    """fitted, in nats between the ends of the scale; positive: people rate what they like"""
    mean_unrated: float
    """of the cells that the users fitted to did not rate, as predicted, in rating points"""
    seconds: float
    """of fitting and scoring"""


@dataclass(frozen=True, eq=False)
class HeldOutUsers:
    """Users who are held out of every fit, and how fits to the others are scored on them."""

    log: RatingLog
    part: RatingLog
    """without them; users without ratings stay"""
    users: NDArray[np.int64]
    """(H,) indices into ``log``"""
    seed: int

    @classmethod
    def draw(cls, log: RatingLog, seed: int) -> Self:
        """Hold out a fifth of the users with ratings; see ``select_settings``."""
        known = np.flatnonzero(np.diff(log.indptr) > 0)
        if len(known) < _LEAST_USERS:
            raise DataError(
                f"a choice of settings needs {_LEAST_USERS} users with ratings; found {len(known)}. Train with the "
                "settings as they are"
            )
        most = int(np.clip(_CELLS // log.n_items, FEW_USERS, HELD_OUT_MOST))
        size = min(max(round(HELD_OUT_SHARE * len(known)), 2), most)
        rng = numpy_generator(seed, "users held out for the choice")
        held_out = np.sort(rng.choice(known, size, replace=False))
        return cls(log, log.select_users(np.setdiff1d(np.arange(log.n_users), held_out)), held_out, seed)

    def check(self, settings: Settings) -> None:
        """Raise ConfigError if settings, resolved, do not fit the log."""
        model = build_model(settings.model, self.part, self.seed)
        Trainer(model, self.part, settings.replace(_COMPARED), seed=self.seed)

    def score(self, name: str, settings: Settings, on_step: OnStep | None = None) -> CandidateScore:
        """Fit resolved settings to the other users, and score the fit on these."""
        start = time.perf_counter()
        recommender = MNARRecommender(settings.replace(_COMPARED)).fit(self.part, seed=self.seed, on_step=on_step)
        bounds = user_bounds(
            recommender.fitted.model, self.log, self.users, seed=self.seed, on_levels=True, predictive=True
        )
        curve = list(selection_by_level(recommender.fitted).values())
        mean, _ = mean_of_unrated(recommender.predictor, self.seed)
        seconds = time.perf_counter() - start
        return CandidateScore(name, settings, bounds, curve[-1] - curve[0], mean, seconds)

    def rough_bound(self, model: MnarVae) -> float:
        """Return the mean bound of a few of them by a few samples, nats a user; comparable with others of its kind."""
        users = self.users[np.linspace(0, len(self.users) - 1, min(len(self.users), _ROUGH_USERS)).astype(np.int64)]
        found = user_bounds(
            model, self.log, users, seed=self.seed, on_levels=True, samples=_ROUGH_SAMPLES, predictive=True
        )
        return float(found.mean())


@dataclass(frozen=True)
class Selection:
    """The candidates in the order of preference, scored.

    The choice is the first one that lies within one standard error of the best (Breiman et al., Classification and
    Regression Trees, 1984). Among explanations that the log does not tell apart the order of preference decides, and
    not noise; nor simplicity, which here would mean to assume that there is no selection.
    """

    scores: tuple[CandidateScore, ...]

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row a candidate.

        ``candidate``, ``held_out`` (mean bound of a held-out user, nats), ``difference`` to the best and its standard
        error ``se`` (paired, over users), ``selection``, ``mean_unrated``, ``seconds``, ``within_se`` and ``chosen``.
        """
        bounds = np.stack([score.bounds for score in self.scores])  # (C, H)
        gaps = bounds - bounds[np.argmax(bounds.mean(1))]
        difference, error = gaps.mean(1), gaps.std(1, ddof=1) / np.sqrt(bounds.shape[1])
        within = difference + error >= 0
        return pd.DataFrame(
            {
                "candidate": [score.name for score in self.scores],
                "held_out": bounds.mean(1),
                "difference": difference,
                "se": error,
                "selection": [score.selection for score in self.scores],
                "mean_unrated": [score.mean_unrated for score in self.scores],
                "seconds": [score.seconds for score in self.scores],
                "within_se": within,
                "chosen": np.arange(len(within)) == np.argmax(within),
            }
        )

    @property
    def chosen(self) -> CandidateScore:
        """The candidate to fit to all users."""
        return self.scores[int(np.argmax(self.table["chosen"]))]

    @property
    def best(self) -> Settings:
        """Its settings: ``MNARRecommender(selection.best).fit(log)``."""
        return self.chosen.settings

    @property
    def n_users(self) -> int:
        """Held-out users."""
        return len(self.scores[0].bounds)

    def doubts(self) -> tuple[str, ...]:
        """Return what should be known before the choice is trusted, a sentence or two each."""
        tied = [score for score, is_tied in zip(self.scores, self.table["within_se"], strict=True) if is_tied]
        found = []
        if self.n_users < FEW_USERS:
            found.append(
                f"only {self.n_users} users are held out: the standard errors are rough, and differences of one or two "
                "of them mean nothing"
            )
        if len(tied) > 1:
            text = (
                f"{len(tied)} of the {len(self.scores)} candidates are within a standard error of the best: this log "
                f"does not tell them apart, and the first of them was taken, {self.chosen.name}"
            )
            if len({score.settings.model.missing == "ignorable" for score in tied}) > 1:
                text += "; with and without selection it fits as well, so look at `sensitivity`"
            found.append(text)
        if len({score.settings.model.sign for score in self.scores}) > 1:
            found.append(
                "the candidates differ in the sign of the selection, of which held-out likelihood says little: either "
                "sign can explain a log. State the one that you know to hold, or look at `sensitivity`"
            )
        if self.best.model.missing == "ignorable":
            found.append("the choice assumes that people rate whatever they think of an item: nothing is debiased")
        return tuple(found)


def select_settings(
    log: RatingLog,
    candidates: Mapping[str, Settings] | None = None,
    *,
    settings: Settings | None = None,
    labels: RatingLog | None = None,
    seed: int = 0,
    on_candidate: Callable[[CandidateScore], None] | None = None,
    on_step: OnStep | None = None,
) -> Selection:
    """Compare candidates by the joint bound of held-out users.

    A fifth of the users with ratings, 1,000 at most, are held out of every fit; fewer where there are more than 1,000
    items, but not below 100. With ``labels`` the held-out users' randomly collected ratings count like their others.

    Parameters
    ----------
    log : RatingLog
        Self-selected ratings.
    candidates : mapping of str to Settings, optional
        By name, in the order of preference; see ``make_candidates``. Default: ``CANDIDATES``, without those that need
        rating levels where the scale has none.
    settings : Settings, optional
        What the default candidates have in common.
    labels : RatingLog, optional
        Randomly collected ratings, as for ``MNARRecommender.fit``.
    seed : int
        Fixes who is held out, all fits and all scores.
    on_candidate : callable, optional
        Called with each score as it is known.
    on_step : callable, optional
        As for ``MNARRecommender.fit``, for each fit.

    Raises
    ------
    ConfigError
        If a candidate does not fit the log, two are the same, or there are fewer than two.
    DataError
        If fewer than 10 users have ratings.
    DivergedError
        If the bound of a candidate stops being finite; the message names it.
    """
    if labels is not None:
        log = add_survey(log, labels)
    decided = decide(log, candidates, settings)
    users = HeldOutUsers.draw(log, seed)
    for name, chosen in decided.items():  # refused before hours of work, not after
        with _named(name):
            users.check(chosen)
    scores = []
    for name, chosen in decided.items():
        with _named(name):
            scores.append(users.score(name, chosen, on_step))
        if on_candidate:
            on_candidate(scores[-1])
    return Selection(tuple(scores))


def decide(
    log: RatingLog, candidates: Mapping[str, Settings] | None = None, settings: Settings | None = None
) -> dict[str, Settings]:
    """Return the candidates with every ``auto`` decided by the whole log; see ``select_settings``."""
    has_levels = log.scale.levels is not None
    if candidates is None:
        candidates = make_candidates(CANDIDATES, settings)
        candidates = {name: one for name, one in candidates.items() if has_levels or not needs_levels(one)}
    if len(candidates) < 2:
        raise ConfigError(f"a choice needs two or more candidates; found {len(candidates)}. Add one")
    decided: dict[str, Settings] = {}
    for name, one in candidates.items():
        chosen = one.resolve_for(log)
        if chosen.model.missing == "agnostic":
            raise ConfigError(
                f"candidate '{name}' cannot be compared: a missing model of whole rows has no exact bound; leave it out"
            )
        compared = chosen.replace(_COMPARED)
        twin = next((other for other, known in decided.items() if known.replace(_COMPARED) == compared), None)
        if twin is not None:
            same = (
                "are the same for this log"
                if decided[twin] == chosen
                else ("differ in inference only, and all are compared by variational fits")
            )
            raise ConfigError(f"candidates '{twin}' and '{name}' {same}; leave one of them out")
        decided[name] = chosen
    return decided


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Say in an error which candidate it is about."""
    try:
        yield
    except MnarError as error:
        raise type(error)(f"candidate '{name}': {error}") from error
