"""On a small simulated log the sampled posterior predicts what was never rated better than the variational one."""

import numpy as np
import pytest

from mnar_recsys import MNARRecommender, simulate_ratings

pytestmark = pytest.mark.slow


def test_sampling_is_better_than_the_bound() -> None:
    data = simulate_ratings("monotone", n_users=150, n_items=100, seed=3, ratings_per_user=15)
    complete = data.truth.complete_ratings()
    unrated = np.ones(complete.shape, dtype=bool)
    unrated[data.train.rows, data.train.items] = False
    users, items = np.nonzero(unrated)
    errors = {}
    for inference in ("variational", "mcmc"):
        model = MNARRecommender(inference=inference, mcmc_warmup=60, mcmc_draws=60).fit(data.train, seed=0)
        predicted = model.predictor.predict(users, items).mean
        errors[inference] = np.square(predicted - complete[users, items]).mean()
    assert errors["mcmc"] < 0.96 * errors["variational"]
