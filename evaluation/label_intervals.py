"""Metrics of binary labels on one set of test cells, by name, each with its interval."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from evaluation.intervals import Interval, bootstrap
from evaluation.labels import label_loss, label_squared_error
from evaluation.ranking import ALL_USERS, POSITIVE_USERS, Ranking, auc_interval
from mnar_recsys.errors import ConfigError, DataError

Floats = NDArray[np.float64]
Resample = Callable[..., list[Interval]]

_OF_CELLS = {"mse_label": label_squared_error, "nll": label_loss}
_WITH_CUTOFF = {*ALL_USERS, *POSITIVE_USERS, "f1"}


@dataclass(frozen=True, eq=False)
class LabelledPairs:
    """Test cells with what was found and what was predicted, n of them."""

    users: NDArray[np.generic]
    """The user of each, (n,): any ids."""
    labels: NDArray[np.bool_]
    """Whether the rating is positive, (n,)."""
    scores: Floats
    """What ranks, (n,)."""
    probability: Floats | None = None
    """Of a positive rating, (n,), where the method gives one."""


def label_intervals(
    pairs: LabelledPairs, metrics: Sequence[str], *, level: float = 0.95, resamples: int = 1000, seed: int = 0
) -> dict[str, Interval]:
    """Return metrics by the names of ``protocols``, in the order given.

    Those that need a probability are left out where there is none. An interval's ``n`` counts cells, or users where
    the metric is a mean over users.

    Raises
    ------
    ConfigError
        If a name is unknown or lacks its cutoff.
    DataError
        If the pairs lack what a metric needs: both labels, or a user with a positive.
    """
    cutoffs = {metric: _parse(metric) for metric in metrics}
    ranked = Ranking.of(pairs.users, pairs.labels, pairs.scores)
    resample = partial(bootstrap, level=level, resamples=resamples, seed=seed)
    found = _over_all_users(ranked, cutoffs, resample)
    found |= _over_positive_users(ranked, cutoffs, resample)
    found |= _over_cells(pairs, cutoffs, resample, level)
    if "auc" in cutoffs:
        scores = pairs.scores if pairs.probability is None else pairs.probability
        options = {"resamples": resamples, "seed": seed}
        found["auc"] = auc_interval(pairs.labels, scores, pairs.users, level=level, **options)
    return {metric: found[metric] for metric in metrics if metric in found}


def _parse(metric: str) -> tuple[str, int]:
    """Return the name and the cutoff, 0 where the metric has none."""
    name, at, cutoff = metric.partition("@")
    if name in _WITH_CUTOFF and cutoff.isdecimal():
        return name, int(cutoff)
    if not at and (name == "auc" or name in _OF_CELLS):
        return name, 0
    known = ", ".join(["auc", *_OF_CELLS, *(f"{base}@k" for base in sorted(_WITH_CUTOFF))])
    raise ConfigError(f"a metric must be one of {known}; found {metric!r}")


def _over_all_users(ranked: Ranking, cutoffs: Mapping[str, tuple[str, int]], resample: Resample) -> dict[str, Interval]:
    f1 = {metric: k for metric, (name, k) in cutoffs.items() if name == "f1"}
    wanted = {metric: (name, k) for metric, (name, k) in cutoffs.items() if name in ALL_USERS}
    for k in f1.values():
        wanted |= {f"{name}@{k}": (name, k) for name in ("precision", "recall")}
    if not wanted:
        return {}
    columns = list(wanted)

    def with_f1(means: Floats) -> Floats:
        of = {metric: means[..., place] for place, metric in enumerate(columns)}
        parts = [_harmonic_mean(of[f"precision@{k}"], of[f"recall@{k}"]) for k in f1.values()]
        return np.stack([*of.values(), *parts], axis=-1)

    table = np.stack([ALL_USERS[name](ranked, k) for name, k in wanted.values()], axis=1)
    intervals = resample(table, ranked.users, statistic=with_f1)
    return dict(zip([*columns, *f1], intervals, strict=True))


def _over_positive_users(
    ranked: Ranking, cutoffs: Mapping[str, tuple[str, int]], resample: Resample
) -> dict[str, Interval]:
    wanted = {metric: (name, k) for metric, (name, k) in cutoffs.items() if name in POSITIVE_USERS}
    if not wanted:
        return {}
    users = ranked.users[ranked.has_positive]
    if not len(users):
        raise DataError(f"{', '.join(wanted)} need a user with a positive test item; found none")
    table = np.stack([POSITIVE_USERS[name](ranked, k) for name, k in wanted.values()], axis=1)
    return dict(zip(wanted, resample(table, users), strict=True))


def _over_cells(
    pairs: LabelledPairs, cutoffs: Mapping[str, tuple[str, int]], resample: Resample, level: float
) -> dict[str, Interval]:
    if pairs.probability is None:
        return {}
    found = {}
    for metric in [metric for metric in cutoffs if metric in _OF_CELLS]:
        values = _OF_CELLS[metric](pairs.labels, pairs.probability)
        if np.isfinite(values).all():
            found[metric] = resample(values, pairs.users)[0]
        else:  # a label was given that the method had ruled out
            found[metric] = Interval(np.inf, np.inf, np.inf, level, len(values))
    return found


def _harmonic_mean(first: Floats, second: Floats) -> Floats:
    total = first + second
    return np.divide(2.0 * first * second, total, out=np.zeros_like(total), where=total > 0.0)
