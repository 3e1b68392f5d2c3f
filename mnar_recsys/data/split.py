"""Which ratings play which role, and the proof that the roles do not overlap."""

from dataclasses import dataclass, fields, replace
from functools import cached_property, reduce
from typing import Self

import numpy as np
from numpy.typing import NDArray

from mnar_recsys.data.log import RatingLog
from mnar_recsys.data.vocab import Vocabulary
from mnar_recsys.errors import ConfigError, DataError
from mnar_recsys.rng import numpy_generator

_NAMED_CELLS = 3


@dataclass(frozen=True, eq=False)
class Split:
    """Rating logs by role, on one set of users, items and rating scale.

    The vocabularies may differ between the logs given; after construction every log has the union of them, so
    an index means the same user or item in all four.

    Attributes
    ----------
    mnar_train : RatingLog
        Self-selected ratings to train on.
    mnar_valid : RatingLog or None
        Self-selected ratings held out for stopping and selection; shares no cell with ``mnar_train``.
    mcar_labels : RatingLog or None
        Ratings collected at random that may be trained on; shares no cell with ``mcar_test``.
    mcar_test : RatingLog or None
        Ratings collected at random, for scoring only.

    Raises
    ------
    DataError
        If two roles that must be apart share cells (with their count and the first of them), or scales
        differ.
    """

    mnar_train: RatingLog
    mnar_valid: RatingLog | None = None
    mcar_labels: RatingLog | None = None
    mcar_test: RatingLog | None = None

    def __post_init__(self) -> None:
        self._check_scales()
        self._align()
        _refuse_overlap("mnar_valid", self.mnar_valid, "mnar_train", self.mnar_train)
        _refuse_overlap("mcar_labels", self.mcar_labels, "mcar_test", self.mcar_test)

    def _logs(self) -> dict[str, RatingLog]:
        roles = {role.name: getattr(self, role.name) for role in fields(self)}
        return {name: log for name, log in roles.items() if log is not None}

    def _check_scales(self) -> None:
        for name, log in self._logs().items():
            if log.scale != self.mnar_train.scale:
                raise DataError(
                    f"{name} must have the rating scale of mnar_train, {self.mnar_train.scale.describe()};"
                    f" found {log.scale.describe()}. Read it with scale=train.scale"
                )

    def _align(self) -> None:
        logs = self._logs()
        users = reduce(Vocabulary.union, (log.users for log in logs.values()))
        catalogue = reduce(Vocabulary.union, (log.catalogue for log in logs.values()))
        for name, log in logs.items():
            object.__setattr__(self, name, log.reindex(users, catalogue))

    @cached_property
    def unseen(self) -> NDArray[np.bool_]:
        """Where a test cell has no rating by choice in ``mnar_train`` or ``mnar_valid``, (n_test,)."""
        if self.mcar_test is None:
            raise DataError("unseen cells need mcar_test; this split has none")
        seen = self.mnar_train.cells
        if self.mnar_valid is not None:
            seen = np.concatenate([seen, self.mnar_valid.cells])
        unseen = ~np.isin(self.mcar_test.cells, seen)
        unseen.flags.writeable = False
        return unseen

    @property
    def n_seen(self) -> int:
        """How many test cells were also rated by choice: scoring them scores ratings the model was given."""
        return int((~self.unseen).sum())

    @property
    def n_labels(self) -> int:
        """How many randomly collected ratings may be trained on; every result row carries it."""
        return 0 if self.mcar_labels is None else self.mcar_labels.n_ratings

    def describe(self) -> str:
        """Return one line with the size of each role, and of the test cells also rated by choice."""
        parts = [f"{name} {log.n_ratings}" for name, log in self._logs().items()]
        if self.mcar_test is not None:
            parts.append(f"test cells also in training {self.n_seen}")
        return ", ".join(parts)

    def for_training(self) -> Self:
        """Return the split without the test: all that a method may see."""
        return replace(self, mcar_test=None)

    def hold_out(self, fraction: float, *, seed: int) -> Self:
        """Return the split with a random part of ``mnar_train`` as ``mnar_valid``."""
        if self.mnar_valid is not None:
            raise DataError("this split has an mnar_valid already; make one without to draw another")
        train, valid = split_ratings(self.mnar_train, fraction, seed=seed)
        return replace(self, mnar_train=train, mnar_valid=valid)


def split_ratings(log: RatingLog, fraction: float, *, seed: int) -> tuple[RatingLog, RatingLog]:
    """Return the log without a random part of its ratings, and that part; both keep all users and items.

    Parameters
    ----------
    log : RatingLog
    fraction : float
        Share of the ratings in the second log, above 0 and below 1; rounded to at least one rating.
    seed : int
    """
    n_out = max(1, round(fraction * log.n_ratings))
    if not 0 < fraction < 1 or n_out >= log.n_ratings:
        raise ConfigError(f"fraction must leave ratings on both sides; found {fraction} of {log.n_ratings} ratings")
    is_out = np.zeros(log.n_ratings, dtype=bool)
    is_out[numpy_generator(seed, "split_ratings").permutation(log.n_ratings)[:n_out]] = True
    return log.select_ratings(~is_out), log.select_ratings(is_out)


def _refuse_overlap(label: str, log: RatingLog | None, other_label: str, other: RatingLog | None) -> None:
    if log is None or other is None:
        return
    shared = np.intersect1d(log.cells, other.cells, assume_unique=True)
    if not len(shared):
        return
    names = [
        f"({log.users.ids[cell // log.n_items]}, {log.catalogue.ids[cell % log.n_items]})"
        for cell in shared[:_NAMED_CELLS]
    ]
    more = ", ..." if len(shared) > _NAMED_CELLS else ""
    raise DataError(
        f"{label} and {other_label} must share no (user, item) cell; found {len(shared)} shared:"
        f" {', '.join(names)}{more}."
        f" Remove them from {label}"
    )
