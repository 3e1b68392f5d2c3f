"""Cross-validation: the parts of a log that are held out in turn."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mnar_recsys.data.log import RatingLog
from mnar_recsys.data.split import Split
from mnar_recsys.errors import ConfigError, DataError
from mnar_recsys.rng import numpy_generator

Positions = NDArray[np.int64]


@dataclass(frozen=True)
class RatingFolds:
    """A log's ratings in parts of about the same size; each is held out once.

    A splitter as scikit-learn has them: `split` yields positions of ratings, `get_n_splits` says how many folds there
    are. `roles` yields them as `Split` objects.

    Attributes
    ----------
    n_splits : int
        Folds, 2 or more.
    by : {"cell", "user"}
        What is held out: single ratings, or people with all that they rated. By cell tells how well people who are
        known are predicted; it takes the ratings for missing at random among the given ones, and it is not for a joint
        bound, where a rating that is hidden counts as one that was not given. By user tells how well new people are.
    seed : int
        Fixes who or what is in which fold.
    """

    n_splits: int = 5
    by: Literal["cell", "user"] = "user"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n_splits < 2:
            raise ConfigError(f"n_splits must be 2 or more; found {self.n_splits}")
        if self.by not in ("cell", "user"):
            raise ConfigError(f"by must be cell or user; found {self.by!r}")

    def get_n_splits(self, log: Any = None, y: Any = None, groups: Any = None) -> int:  # noqa: ARG002 - sklearn's
        """Return the number of folds; the arguments are not looked at."""
        return self.n_splits

    def split(self, log: RatingLog, y: Any = None, groups: Any = None) -> Iterator[tuple[Positions, Positions]]:  # noqa: ARG002
        """Yield the positions of the ratings to train on and of those held out, rising, for each fold.

        Ratings of a survey (see ``add_survey``) are held out with their user, but not one by one.

        Raises
        ------
        DataError
            If there are fewer users with ratings, or fewer ratings given by choice, than folds.
        """
        place = np.arange(log.n_ratings)
        if self.by == "user":
            units = np.flatnonzero(np.diff(log.indptr) > 0)
        else:
            units = place if log.surveyed is None else np.flatnonzero(~log.surveyed)
        if len(units) < self.n_splits:
            raise DataError(
                f"{self.n_splits} folds need as many {self.by}s with ratings; found {len(units)}. Ask for fewer folds"
            )
        shuffled = numpy_generator(self.seed, "folds", self.by).permutation(units)
        of_rating = log.rows if self.by == "user" else place
        for part in np.array_split(shuffled, self.n_splits):
            is_out = np.isin(of_rating, part)
            yield place[~is_out], place[is_out]

    def roles(self, data: RatingLog | Split) -> Iterator[Split]:
        """Yield each fold as a split: ``mnar_valid`` is held out of ``mnar_train``.

        Labels of a split that is given stay where they are; its test does not go along: it is for what was chosen on
        the folds, once.

        Raises
        ------
        DataError
            If the split has an ``mnar_valid`` already; or as for `split`.
        """
        whole = data.for_training() if isinstance(data, Split) else Split(data)
        if whole.mnar_valid is not None:
            raise DataError("this split has an mnar_valid already; make one without to draw folds")
        log = whole.mnar_train
        for _, out in self.split(log):
            is_out = np.zeros(log.n_ratings, dtype=np.bool_)
            is_out[out] = True
            yield replace(whole, mnar_train=log.select_ratings(~is_out), mnar_valid=log.select_ratings(is_out))
