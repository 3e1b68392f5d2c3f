"""Multiple imputation, Rubin's rules, and summaries in a case with a known answer."""

import numpy as np
import pytest
import torch
from factories import log_of, random_matrix, tiny_model
from scipy import stats

from mnar_recsys.data import RatingLog, RatingScale
from mnar_recsys.errors import ConfigError
from mnar_recsys.prediction import Predictor
from mnar_recsys.prediction import predictor as predictor_module
from mnar_recsys.prediction.impute import impute_blocks, rubin, summarize
from mnar_recsys.prediction.posterior import pick

LEVELS = np.array([1.0, 2.0, 3.0])


def test_rubins_rules_by_hand() -> None:
    # Estimates 1, 2, 3 with variances .5, .5, .8: mean 2, within .6, between 1, total .6 + 4/3 = 29/15.
    # Degrees of freedom 2 (1 + .6 / (4/3))^2 = 2 * 1.45^2 = 4.205.
    mean, low, high = rubin(np.array([[1.0], [2.0], [3.0]]), np.array([[0.5], [0.5], [0.8]]))
    half = stats.t.ppf(0.975, 4.205) * np.sqrt(29 / 15)
    np.testing.assert_allclose([mean[0], low[0], high[0]], [2, 2 - half, 2 + half])
    assert half == pytest.approx(3.789, abs=0.002)


def test_imputations_that_agree_leave_the_normal_interval() -> None:
    mean, low, high = rubin(np.full((5, 2), 3.0), np.full((5, 2), 0.04))
    np.testing.assert_allclose(mean, 3)
    np.testing.assert_allclose(high - mean, 1.959964 * 0.2, rtol=1e-5)
    np.testing.assert_allclose(mean - low, 1.959964 * 0.2, rtol=1e-5)


def test_one_imputation_is_not_enough() -> None:
    with pytest.raises(ConfigError, match="at least 2 imputations; found 1"):
        rubin(np.ones((1, 2)), np.ones((1, 2)))


def test_pick_has_the_given_probabilities_and_never_takes_an_impossible_one() -> None:
    shares = np.tile([0.0, 0.2, 0.0, 0.5, 0.3, 0.0], (20_000, 1))
    counts = np.bincount(pick(shares, np.random.default_rng(0)), minlength=6)
    assert counts[[0, 2, 5]].sum() == 0
    assert stats.chisquare(counts[[1, 3, 4]], [4000, 10_000, 6000]).pvalue > 1e-3
    unnormalised = np.bincount(pick(7 * shares, np.random.default_rng(0)), minlength=6)
    np.testing.assert_array_equal(unnormalised, counts)


@pytest.fixture(scope="module")
def log() -> RatingLog:
    return log_of(random_matrix(30, 6, seed=8))


@pytest.fixture(scope="module")
def predictor(log: RatingLog) -> Predictor:
    return Predictor(tiny_model(log, missing="shared", user_activity=True), log, draws=64)


def test_given_ratings_stay_and_the_rest_are_levels(predictor: Predictor) -> None:
    blocks = list(impute_blocks(predictor, 3, seed=1))
    complete = np.concatenate([block.complete for block in blocks], axis=1)
    rated = np.concatenate([block.rated for block in blocks])
    np.testing.assert_array_equal(np.concatenate([block.users for block in blocks]), np.arange(30))
    assert complete.shape == (3, 30, 6)
    dense = random_matrix(30, 6, seed=8)
    np.testing.assert_array_equal(rated, ~np.isnan(dense))
    for draw in complete:
        np.testing.assert_array_equal(draw[rated], dense[rated])
    assert np.isin(complete, LEVELS).all()
    assert (complete[0] != complete[1]).any()


def test_imputations_are_fixed_by_the_seed(predictor: Predictor) -> None:
    def complete(seed: int) -> np.ndarray:
        return np.concatenate([block.complete for block in impute_blocks(predictor, 2, seed=seed)], axis=1)

    np.testing.assert_array_equal(complete(1), complete(1))
    assert (complete(1) != complete(2)).any()
    with pytest.raises(ConfigError, match="at least 1; found 0"):
        next(impute_blocks(predictor, 0))


def test_draws_average_to_the_predicted_mean_and_spread(predictor: Predictor) -> None:
    users, items = np.nonzero(np.isnan(random_matrix(30, 6, seed=8)))
    draws = predictor.draw(users, items, 1500, np.random.default_rng(3))
    found = predictor.predict(users, items)
    z = (draws.mean(0) - found.mean) / (found.sd / np.sqrt(1500))
    assert np.abs(z).max() < 4.5
    assert np.square(z).mean() == pytest.approx(1, abs=0.4)
    np.testing.assert_allclose(draws.std(0), found.sd, rtol=0.15)


def test_draws_of_a_density_stay_on_a_real_scale() -> None:
    scale = RatingScale(1, 3)
    log = log_of(random_matrix(20, 4, seed=8), scale)
    model = tiny_model(log, decoder="gaussian", missing="shared")
    with torch.no_grad():
        model.decoder.log_sd.fill_(-1.5)
    predictor = Predictor(model, log, draws=64)
    users, items = np.nonzero(np.isnan(random_matrix(20, 4, seed=8)))
    draws = predictor.draw(users, items, 800, np.random.default_rng(0))
    assert ((draws >= 1) & (draws <= 3)).all()
    assert len(np.unique(draws)) > 1000  # not the centres of bins
    found = predictor.predict(users, items)
    inside = (found.mean - 3 * found.sd > 1) & (found.mean + 3 * found.sd < 3)  # clipping does not matter there
    assert inside.any()
    error = found.sd / np.sqrt(800)
    assert (np.abs(draws.mean(0) - found.mean)[inside] < 4 * error[inside] + 0.01).all()


def test_cells_of_a_user_share_one_draw_of_tastes_however_they_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    log = log_of(np.where(np.eye(3, 6) > 0, 2.0, np.nan))
    model = tiny_model(log, missing="ignorable")
    with torch.no_grad():  # level 1 of everything for half of the tastes, level 3 of everything for the others
        model.decoder.weight.copy_(torch.tensor([-1e4, 0, 1e4])[:, None, None].expand(3, 6, 1))
        model.decoder.bias.zero_()
        model.encoder.mean.weight.zero_()
        model.encoder.mean.bias.zero_()
        model.decoder.weight[:, [0, 1, 2]] = 0  # what was rated says nothing
    predictor = Predictor(model, log, draws=64)
    users, items = np.repeat([0, 1, 2], 3), np.tile([3, 4, 5], 3)
    whole = predictor.predict(users, items, probabilities=(0.5,))
    monkeypatch.setattr(predictor_module, "_CELLS_AT_ONCE", 1)  # one pair at a time
    monkeypatch.setattr(predictor_module, "_USERS_AT_ONCE", 2)
    drawn = predictor.draw(users, items, 60, np.random.default_rng(0)).reshape(60, 3, 3)
    assert (drawn == drawn[:, :, :1]).all()
    assert set(np.unique(drawn)) == {1.0, 3.0}
    assert (drawn[:, 0, 0] != drawn[:, 1, 0]).any()  # people draw apart
    cut = predictor.predict(users, items, probabilities=(0.5,))
    for name in ("mean", "sd", "mean_se", "quantiles", "propensity", "ess"):
        np.testing.assert_allclose(getattr(cut, name), getattr(whole, name), rtol=1e-5)


def selective_world(n_users: int, copies: int) -> tuple[RatingLog, np.ndarray, Predictor]:
    """Ratings without tastes, self-selected by a known mechanism, and the model that knows all of it."""
    rng = np.random.default_rng(4)
    p = np.array([[0.5, 0.3, 0.2], [0.2, 0.6, 0.2], [0.1, 0.3, 0.6], [0.34, 0.33, 0.33]])
    p = np.tile(p, (copies, 1))
    pi = np.array([0.1, 0.3, 0.7])
    complete = np.stack([rng.choice(3, size=n_users, p=share) for share in p], axis=1)
    matrix = np.where(rng.random(complete.shape) < pi[complete], LEVELS[complete], np.nan)
    matrix[0, :4] = [1, 2, 3, np.nan]
    log = log_of(matrix)
    points = tuple(zip(LEVELS, pi, strict=True))
    model = tiny_model(log, missing="known", known_propensities=points)
    with torch.no_grad():
        model.decoder.weight.zero_()
        model.decoder.bias.copy_(torch.log(torch.from_numpy(p.T)))
    return log, LEVELS[complete], Predictor(model, log, draws=16)


def test_summaries_recover_the_truth_that_the_log_hides() -> None:
    # 16 items, so that nearly everybody has rated one: people without any rating count as never asked.
    log, complete, predictor = selective_world(1500, copies=4)
    items = summarize(predictor, "item", draws=20)
    truth = np.tile([1.7, 2.0, 2.5, 1.99], 4)
    assert items["id"].tolist() == list(range(16))
    half = (items["upper"] - items["lower"]).to_numpy() / 2
    z = (items["debiased"].to_numpy() - truth) / (half / 1.96)
    assert np.abs(z).max() < 2
    # With W the variance of complete-data means and B that between imputations, intervals rest on W + B. Here the
    # parameters are known and not estimated, so that the estimates vary by W - B only.
    whole = 1.96 * complete.std(0) / np.sqrt(1500)
    expected = 2 * np.mean(whole**2 / half**2) - 1
    assert np.square(z).mean() == pytest.approx(expected, abs=3 * expected * np.sqrt(2 / 16))
    assert ((half > 1.1 * whole) & (half < 1.5 * whole)).all()
    # Among those rated, level r has the share p_r pi_r: the naive mean is that of another population.
    chosen = np.array([0.05, 0.09, 0.14]), np.array([0.02, 0.18, 0.14])
    for place, share in enumerate(chosen):
        biased = (share @ LEVELS) / share.sum()
        assert items["naive_lower"][place] < biased < items["naive_upper"][place]
        assert items["naive_lower"][place] > truth[place] + 0.1
    np.testing.assert_array_equal(items["ratings"], np.bincount(log.items, minlength=16))

    population = summarize(predictor, "population", draws=20)
    assert len(population) == 1
    assert population["lower"][0] < truth.mean() < population["upper"][0]
    assert population["naive_lower"][0] > truth.mean() + 0.2
    assert population["ratings"][0] == log.n_ratings


def test_summary_of_users() -> None:
    log, _, predictor = selective_world(200, copies=1)
    users = summarize(predictor, "user", draws=400, seed=2)
    assert users["id"].tolist() == log.users.ids.tolist()
    # u0000 gave 1, 2, 3; the fourth item is left, p(x | s = 0) of it is known.
    hidden = np.array([0.34, 0.33, 0.33]) * [0.9, 0.7, 0.3]
    expected = (1 + 2 + 3 + (hidden @ LEVELS) / hidden.sum()) / 4
    assert users["debiased"][0] == pytest.approx(expected, abs=3 * 0.75 / 4 / np.sqrt(400))
    assert users["naive"][0] == 2.0
    assert users["naive_upper"][0] - 2 == pytest.approx(stats.t.ppf(0.975, 2) / np.sqrt(3))
    without = users["ratings"] == 0
    assert without.any()
    assert users.loc[without, "naive"].isna().all()
    assert users["debiased"].notna().all()
    assert users.loc[users["ratings"] == 1, "naive_lower"].isna().all()


def test_unknown_summary_is_refused(predictor: Predictor) -> None:
    with pytest.raises(ConfigError, match="'planet' is unknown; use item, user or population"):
        summarize(predictor, "planet")  # type: ignore[arg-type]
