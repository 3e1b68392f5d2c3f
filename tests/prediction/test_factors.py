"""The factors of a linear decoder: what they reproduce exactly, what they leave out, and implicit's own interface."""

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from factories import log_of, random_matrix
from implicit.recommender_base import RecommenderBase
from numpy.typing import NDArray
from scipy import sparse

from mnar_recsys import MNARRecommender
from mnar_recsys.errors import ConfigError, NotFittedError
from mnar_recsys.prediction.factors import ImplicitFactors, linear_factors

SMALL: dict[str, Any] = {
    "inference": "variational",
    "latent_size": 3,
    "embedding_size": 4,
    "code_size": 8,
    "samples": 4,
    "batch_size": 20,
    "max_steps": 40,
    "evaluate_every": 20,
    "learning_rate": 0.05,
    "device": "cpu",
}
LOG = log_of(random_matrix(60, 30, seed=3, density=0.3))
N = 7


def fit(**settings: Any) -> MNARRecommender:
    return MNARRecommender(**SMALL | settings).fit(LOG, seed=0)


@pytest.fixture(scope="module")
def ordinal() -> MNARRecommender:
    return fit(decoder="ordinal")


def rows_of(users: NDArray[np.int64]) -> sparse.csr_matrix:
    return sparse.csr_matrix(LOG.to_scipy())[users]


def top_unrated(values: NDArray[np.floating], n: int = N) -> NDArray[np.int64]:
    """Each user's n best unrated items by the values (N, P), best first."""
    values = values.copy()
    values[LOG.rows, LOG.items] = -np.inf
    return np.argsort(-values, axis=1, kind="stable")[:, :n]


@pytest.mark.parametrize("item_weights", ["point", "variational"])
@pytest.mark.parametrize("decoder", ["ordinal", "gaussian", "student-t"])
def test_top_n_is_that_of_the_expected_rating_at_the_mean_of_z(decoder: str, item_weights: str) -> None:
    model = fit(decoder=decoder, item_weights=item_weights)
    factors = linear_factors(model.predictor)
    with torch.no_grad():
        taste = torch.from_numpy(factors.users[None, :, :-1])
        expected = model.fitted.model.decoder.cells(taste).mean[0].double().numpy()
    users = np.arange(LOG.n_users)
    found, scores = ImplicitFactors(factors).recommend(users, rows_of(users), N=N)
    best = top_unrated(expected)
    # By value, not by index: equal expectations may come in either order.
    np.testing.assert_allclose(
        np.take_along_axis(expected, found, axis=1), np.take_along_axis(expected, best, axis=1), atol=2e-6
    )
    assert (np.diff(scores, axis=1) <= 0).all()
    assert np.unique(found).size > N  # tastes differ: the lists are not one list of popular items


def test_the_mean_of_z_is_the_one_that_predictions_are_made_with() -> None:
    model = fit(decoder="gaussian", item_weights="point", missing="ignorable", mean_margin=5.0)
    predictor = model.predictor
    (chunk,) = predictor._chunks(np.arange(LOG.n_users), np.zeros(LOG.n_users, dtype=np.int64))
    (posterior,) = chunk.posteriors
    expected = torch.einsum("sb,sbk->bk", posterior.share, posterior.taste)
    np.testing.assert_allclose(linear_factors(predictor).users[:, :-1], expected, atol=1e-6)


def test_top_n_is_nearly_that_of_the_predictions(ordinal: MNARRecommender) -> None:
    users = np.arange(LOG.n_users)
    pairs = np.repeat(users, LOG.n_items), np.tile(np.arange(LOG.n_items), LOG.n_users)
    mean = ordinal.predictor.predict(*pairs).mean.reshape(LOG.n_users, -1)
    found, _ = ordinal.to_implicit().recommend(users, rows_of(users), N=N)
    chosen, best, everything = (
        np.take_along_axis(mean, items, axis=1).mean() for items in (found, top_unrated(mean), top_unrated(mean, 15))
    )
    assert best - chosen < 0.1 * (best - everything)


def test_it_is_a_recommender_of_implicit(ordinal: MNARRecommender, tmp_path: Path) -> None:
    model = ordinal.to_implicit(num_threads=2)
    assert isinstance(model, RecommenderBase)
    users = np.array([5, 9])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ids, scores = model.recommend(users, rows_of(users), N=4)
        similar, cosines = model.similar_items(2, N=3)
        one, _ = model.recommend(5, rows_of(users[:1]), N=4)
    assert ids.shape == scores.shape == (2, 4)
    np.testing.assert_array_equal(one, ids[0])
    for user, items in zip(users, ids, strict=True):
        assert not set(items) & set(LOG.items[LOG.indptr[user] : LOG.indptr[user + 1]])
    assert similar[0] == 2
    assert cosines[0] == pytest.approx(1)
    model.save(tmp_path / "factors.npz")
    loaded = ImplicitFactors.load(str(tmp_path / "factors.npz"))
    np.testing.assert_array_equal(loaded.recommend(users, rows_of(users), N=4)[0], ids)
    with pytest.raises(NotImplementedError, match="to_implicit"):
        model.fit(rows_of(users))
    with pytest.raises(NotImplementedError):
        model.recommend(5, rows_of(users[:1]), recalculate_user=True)


def test_someone_without_ratings_has_the_prior_mean(ordinal: MNARRecommender) -> None:
    factors = ordinal.to_implicit().user_factors
    np.testing.assert_allclose(factors[0, :-1], 0, atol=0.02)  # the mean of 128 evenly spread points
    assert np.abs(factors[1:, :-1]).max() > 0.1
    assert (factors[:, -1] == 1).all()


def test_models_without_factors_are_refused() -> None:
    with pytest.raises(ConfigError, match="ordinal"):
        fit(decoder="categorical").to_implicit()
    with pytest.raises(ConfigError, match="agnostic"):
        fit(decoder="ordinal", missing="agnostic").to_implicit()
    with pytest.raises(NotFittedError):
        MNARRecommender().to_implicit()


def test_fitting_and_predicting_do_not_load_implicit() -> None:
    code = "import sys, mnar_recsys.recommender; sys.exit('implicit' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
