"""Logs of the shape of Yahoo! R3, made up on the spot: many items, about twenty ratings a user."""

import numpy as np

from mnar_recsys.data import RatingLog, RatingScale

MEAN_RATINGS = 20


def made_up_log(n_users: int, n_items: int, *, mean_ratings: float = MEAN_RATINGS, seed: int = 0) -> RatingLog:
    """Return a log whose users differ in activity and items in popularity (log-normal, log-sd .8), ratings at random.

    It says nothing of anyone's taste: it is there for its shape.
    """
    rng = np.random.default_rng(seed)
    activity = rng.lognormal(0, 0.8, n_users)
    counts = np.maximum(rng.poisson(mean_ratings * activity / activity.mean()), 1)
    popularity = np.cumsum(rng.lognormal(0, 0.8, n_items))
    rows = np.repeat(np.arange(n_users), counts)
    items = np.searchsorted(popularity, rng.random(len(rows)) * popularity[-1])
    cells = np.unique(rows * np.int64(n_items) + items)
    ratings = rng.choice(5, len(cells), p=(0.31, 0.13, 0.16, 0.16, 0.24)) + 1.0
    return RatingLog.from_arrays(
        cells // n_items,
        cells % n_items,
        ratings,
        scale=RatingScale(1, 5, 1),
        user_ids=np.arange(n_users),
        catalogue=np.arange(n_items),
    )
