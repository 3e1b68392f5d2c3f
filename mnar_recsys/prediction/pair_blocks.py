"""Which pairs are to be predicted: given ones, all, or each user's best, in blocks that fit into memory."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from mnar_recsys.errors import ConfigError, DataError
from mnar_recsys.prediction.predictions import UNKNOWN
from mnar_recsys.prediction.predictor import Predictor

if TYPE_CHECKING:
    from mnar_recsys.data import RatingLog

_PAIRS_AT_ONCE = 250_000
_USERS_AT_ONCE = 256


class PairRequest(Protocol):
    """Some pairs, named before they are listed: a few numbers, which may travel to another process."""

    def pairs(self, predictor: Predictor) -> "PairBlock":
        """Return them."""
        ...


@dataclass(frozen=True)
class PairBlock:
    """Pairs by index, ``UNKNOWN`` outside the log, with the ids they are written under: each (n,)."""

    users: NDArray[np.int64]
    items: NDArray[np.int64]
    user_ids: NDArray[np.generic]
    item_ids: NDArray[np.generic]

    def __len__(self) -> int:
        return len(self.users)

    def pairs(self, predictor: Predictor) -> "PairBlock":  # noqa: ARG002
        """Return itself."""
        return self


@dataclass(frozen=True)
class AllItems:
    """The users ``start`` to ``stop`` with every item of the catalogue."""

    start: int
    stop: int

    def pairs(self, predictor: Predictor) -> PairBlock:
        """Return them, by user."""
        users, n_items = np.arange(self.start, self.stop), predictor.log.n_items
        return _block(predictor.log, np.repeat(users, n_items), np.tile(np.arange(n_items), len(users)))


@dataclass(frozen=True)
class BestItems:
    """The users ``start`` to ``stop``, each with the ``n`` unrated items of the highest predicted mean."""

    start: int
    stop: int
    n: int

    def pairs(self, predictor: Predictor) -> PairBlock:
        """Return them, best first; of users who have rated everything, none."""
        log, users = predictor.log, np.arange(self.start, self.stop)
        items = np.tile(np.arange(log.n_items), len(users))
        mean = predictor.predict(np.repeat(users, log.n_items), items).mean.reshape(len(users), -1)
        rated = slice(log.indptr[self.start], log.indptr[self.stop])
        mean[log.rows[rated] - self.start, log.items[rated]] = -np.inf
        kept = np.argsort(-mean, axis=1, kind="stable")[:, : self.n]
        is_candidate = np.take_along_axis(mean, kept, axis=1).ravel() > -np.inf
        return _block(log, np.repeat(users, kept.shape[1])[is_candidate], kept.ravel()[is_candidate])


def given_pairs(
    log: "RatingLog",
    user_ids: NDArray[np.generic],
    item_ids: NDArray[np.generic],
    *,
    strict: bool,
    source: str = "",
) -> Iterator[PairBlock]:
    """Yield the given pairs; with ``strict`` raise DataError, beginning with ``source``, if one is outside the log."""
    users, items = log.users.index(user_ids), log.catalogue.index(item_ids)
    if strict:
        _refuse_unknown(f"{source}pair", "user", user_ids, users)
        _refuse_unknown(f"{source}pair", "item", item_ids, items)
    for start in range(0, len(users), _PAIRS_AT_ONCE):
        part = slice(start, start + _PAIRS_AT_ONCE)
        yield PairBlock(users[part], items[part], user_ids[part], item_ids[part])


def all_pairs(log: "RatingLog") -> Iterator[AllItems]:
    """Yield every user with every item of the catalogue."""
    step = max(1, _PAIRS_AT_ONCE // log.n_items)
    for start in range(0, log.n_users, step):
        yield AllItems(start, min(start + step, log.n_users))


def top_pairs(log: "RatingLog", n: int) -> Iterator[BestItems]:
    """Yield each user's ``n`` unrated items with the highest predicted mean, best first."""
    if n < 1:
        raise ConfigError(f"top-n must be at least 1; found {n}")
    step = max(1, min(_USERS_AT_ONCE, _PAIRS_AT_ONCE // log.n_items))
    for start in range(0, log.n_users, step):
        yield BestItems(start, min(start + step, log.n_users), n)


def _block(log: "RatingLog", users: NDArray[np.int64], items: NDArray[np.int64]) -> PairBlock:
    return PairBlock(users, items, log.users.take(users), log.catalogue.take(items))


def _refuse_unknown(place: str, label: str, ids: NDArray[np.generic], index: NDArray[np.int64]) -> None:
    unknown = np.flatnonzero(index == UNKNOWN)
    if len(unknown):
        more = f" (and {len(unknown) - 1} more such pairs)" if len(unknown) > 1 else ""
        raise DataError(
            f"{place} {unknown[0] + 1}: {label} {ids[unknown[:1]].tolist()[0]!r} is not in the training log{more}; "
            "leave out --strict to predict them from the prior"
        )
