"""What a search for settings has found."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mnar_recsys.config import Settings
from mnar_recsys.errors import DivergedError
from mnar_recsys.model_selection import FEW_USERS

Outcome = Literal["finished", "pruned", "diverged"]


@dataclass(frozen=True, eq=False)
class Trial:
    """One setting tried."""

    number: int
    """from 0, which is the settings that were given"""
    changes: Mapping[str, float]
    """what was searched"""
    outcome: Outcome
    looks: int
    """at the held-out users, while it was trained"""
    seconds: float
    bounds: NDArray[np.float64] | None = None
    """of each held-out user, nats, (H,); none unless it has finished"""
    selection: float = float("nan")
    """fitted, in nats between the ends of the scale"""
    mean_unrated: float = float("nan")
    """of unrated cells, as predicted, in rating points"""

    @classmethod
    def from_facts(cls, number: int, facts: Mapping[str, Any]) -> Self:
        """Read what was kept as JSON values, by the names of the fields."""
        bounds = facts.get("bounds")
        return cls(number, **{**facts, "bounds": None if bounds is None else np.asarray(bounds, dtype=np.float64)})


@dataclass(frozen=True, eq=False)
class Tuning:
    """All trials of a search."""

    settings: Settings
    """as they were given: trial 0"""
    trials: tuple[Trial, ...]

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row a trial, in order.

        ``trial``, ``outcome``, ``held_out`` (mean bound of a held-out user, nats), ``difference`` to trial 0 and its
        standard error ``se`` (paired, over users), ``selection``, ``mean_unrated``, ``looks``, ``seconds``, ``best``,
        and a column for each setting that was searched.
        """
        first = self.trials[0].bounds
        rows = []
        for trial in self.trials:
            gap = None if trial.bounds is None or first is None else trial.bounds - first
            rows.append(
                {
                    "trial": trial.number,
                    "outcome": trial.outcome,
                    "held_out": np.nan if trial.bounds is None else trial.bounds.mean(),
                    "difference": np.nan if gap is None else gap.mean(),
                    "se": np.nan if gap is None else gap.std(ddof=1) / np.sqrt(len(gap)),
                    "selection": trial.selection,
                    "mean_unrated": trial.mean_unrated,
                    "looks": trial.looks,
                    "seconds": trial.seconds,
                    "best": trial is self.best,
                    **trial.changes,
                }
            )
        return pd.DataFrame(rows)

    @cached_property
    def best(self) -> Trial:
        """The trial with the highest mean bound; raises DivergedError if none has finished."""
        finished = [trial for trial in self.trials if trial.bounds is not None]
        if not finished:
            raise DivergedError("no trial has finished; train the settings as they are to see why")
        return max(finished, key=lambda trial: float(np.mean(trial.bounds)))  # type: ignore[arg-type]

    @property
    def best_settings(self) -> Settings:
        """Its settings: ``MNARRecommender(tuning.best_settings).fit(log)``."""
        return self.settings.replace(self.best.changes)

    def doubts(self) -> tuple[str, ...]:
        """Return what should be known before the result is used, a sentence or two each."""
        best, found = self.table[self.table["best"]].iloc[0], []
        n_users = len(self.best.bounds) if self.best.bounds is not None else 0
        if n_users < FEW_USERS:
            found.append(f"only {n_users} users are held out: the standard errors are rough")
        if self.trials[0].bounds is None:
            found.append(
                "the bound of the settings that were given stops being finite: there is nothing to compare with"
            )
        elif self.best.number == 0:
            found.append("no trial was better than the settings that were given")
        elif best["difference"] <= 2 * best["se"]:
            found.append(
                f"the best trial is {best['difference']:.3f} nats a user (se {best['se']:.3f}) above the settings that "
                f"were given, and it is the best of {len(self.trials)}: this log hardly tells them apart"
            )
        if np.sign(best["selection"]) * np.sign(self.table["selection"].iloc[0]) < 0:
            found.append(
                "the sign of the fitted selection is another than with the settings that were given, of which the "
                "held-out bound says little: state the sign that you know to hold"
            )
        return tuple(found)
