"""Posterior checks of the mask: right where the model is, equal to closed forms, and loud where the model is wrong."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from exact import level_probabilities
from factories import THREE_LEVELS, log_of, random_matrix, tiny_model
from numpy.typing import NDArray
from scipy.special import expit, logit
from scipy.stats import binom

from mnar_recsys import MNARRecommender, RatingLog
from mnar_recsys.data import RatingScale
from mnar_recsys.mask_checks import MaskCheck, MaskChecks, check_mask
from mnar_recsys.model.mnar_vae import MnarVae

P = 40


def model_of_all(**settings: object) -> MnarVae:
    """A tiny model with slope 1 a unit, on three levels."""
    model = tiny_model(log_of(random_matrix(20, P, seed=1)), missing="shared", sign="free", **settings)
    with torch.no_grad():
        model.missing.get_parameter("slope.raw").fill_(0.8)
        model.missing.item_bias.mul_(2).sub_(1.5)
    return model


def drawn_from(model: MnarVae, n_users: int, seed: int, *, slope: float = 0.8) -> RatingLog:
    """Draw latents, ratings and mask, from the raw parameters."""
    rng = np.random.default_rng(seed)
    z, activity = rng.standard_normal((2, n_users))
    p = level_probabilities(model, z)  # (N, P, R)
    x = (rng.random((n_users, P, 1)) > p.cumsum(-1)[..., :-1]).sum(-1) + 1.0
    log_odds = model.missing.item_bias.detach().numpy() + slope * (x - model.missing.centre) / 0.5
    if model.exposure.log_activity_sd is not None:
        log_odds += np.exp(model.exposure.log_activity_sd.item()) * activity[:, None]
    x[rng.random(x.shape) > expit(log_odds)] = np.nan
    return log_of(x, THREE_LEVELS)


@pytest.mark.parametrize("decoder", ["ordinal", "categorical"])
def test_data_of_the_model_itself_pass(decoder: str) -> None:
    model = model_of_all(decoder=decoder, user_activity=True)
    inside: dict[str, list[NDArray[np.bool_]]] = {"activity": [], "popularity": [], "level": []}
    p_values = []
    for seed in range(6):
        checks = check_mask(model, drawn_from(model, 300, seed), seed=seed)
        assert checks.n_users > 290
        for check in checks.all:
            inside[check.name].append(check.inside)
            p_values.append(check.p_value)
            assert (np.diff([check.low, check.predicted, check.high], axis=0) >= 0).all()
    for name, found in inside.items():
        assert np.mean(found) > 0.88, name  # 95 % intervals, conservative ones: 60, 60 and 18 of them
    assert np.mean(np.array(p_values) < 0.05) < 0.15
    # And they are sharp: most of an interval is the chance of each choice, a few percent of the count.
    level = checks.level
    assert ((level.high - level.low) < 8 * np.sqrt(level.predicted)).all()
    assert ((level.high - level.low) > 2 * np.sqrt(level.predicted)).all()


def constant_checks() -> tuple[MaskChecks, RatingLog, NDArray[np.float64]]:
    """A model whose mask depends on the item alone, with the shares of its log."""
    log = log_of(random_matrix(200, P, seed=3, density=0.2))
    model = tiny_model(log, missing="ignorable", decoder="categorical")
    known = log.select_users(np.flatnonzero(np.diff(log.indptr) > 0))
    share = np.bincount(known.items, minlength=P) / known.n_users
    with torch.no_grad():
        model.missing.item_bias.copy_(torch.from_numpy(logit(share)))
    return check_mask(model, log, replicates=600), known, share


def test_a_mask_of_the_items_alone_has_binomial_intervals() -> None:
    checks, log, share = constant_checks()
    n_users = log.n_users
    order = np.argsort(share * n_users, kind="stable").reshape(10, 4)
    by_group = share[order].sum(1)
    cells = n_users * 4 / 100
    variance = n_users * (share * (1 - share))[order].sum(1)
    np.testing.assert_allclose(checks.popularity.actual, n_users * by_group / cells, rtol=1e-9)
    np.testing.assert_allclose(checks.popularity.predicted, n_users * by_group / cells, rtol=0.02)
    width = 2 * 1.96 * np.sqrt(variance) / cells
    np.testing.assert_allclose(checks.popularity.high - checks.popularity.low, width, rtol=0.25)
    # Activity: tenths of order statistics of a sum of independent choices.
    rng = np.random.default_rng(0)
    counts = np.sort(binom.rvs(1, share, size=(400, n_users, P), random_state=rng).sum(-1), axis=1)
    tenths = np.stack([part.mean(1) for part in np.array_split(counts, 10, axis=1)], axis=1)
    np.testing.assert_allclose(checks.activity.predicted, tenths.mean(0), rtol=0.02)
    low, high = np.quantile(tenths, (0.025, 0.975), axis=0)
    np.testing.assert_allclose(checks.activity.low, low, atol=0.3)
    np.testing.assert_allclose(checks.activity.high, high, atol=0.3)
    assert checks.activity.p_value > 0.01
    assert checks.activity.groups[0] == "1 (least)"
    assert checks.level.groups == ("1", "2", "3")
    assert checks.level.actual.tolist() == np.bincount(log.ratings.astype(int), minlength=4)[1:].tolist()
    assert checks.level.predicted.sum() == pytest.approx(n_users * share.sum(), rel=0.02)


def test_a_spread_of_activity_that_the_model_lacks_is_seen() -> None:
    rng = np.random.default_rng(0)
    ratings = rng.integers(1, 4, size=(400, P)).astype(float)
    ratings[rng.random(ratings.shape) > expit(-1.5 + 1.2 * rng.standard_normal((400, 1)))] = np.nan
    log = log_of(ratings)
    common = {"exposure_size": 0, "exposure_sees_taste": False, "latent_size": 2, "item_weights": "point"}
    steps = {"max_steps": 120, "samples": 5, "device": "cpu", "stop": "never", "average_decay": 0}
    found = {}
    for has_activity in (False, True):
        model = MNARRecommender(user_activity=has_activity, missing="ignorable", **common, **steps).fit(log)
        found[has_activity] = check_mask(model.fitted.model, log)
    without = found[False].activity
    assert not without.inside[[0, 1, 8, 9]].any()
    assert without.p_value < 0.01
    assert without.actual[9] > 1.5 * without.predicted[9]
    assert "not reproduced" in without.verdict()
    assert "10 (most)" in without.verdict()
    assert found[False].popularity.p_value > 0.05  # each item has its bias
    assert found[True].activity.p_value > 0.05
    assert found[True].activity.inside.mean() >= 0.8
    assert "reproduced (p = " in found[True].activity.verdict()


def test_a_selection_of_the_wrong_sign_is_seen_by_level() -> None:
    model = model_of_all(decoder="categorical", user_activity=True)
    log = drawn_from(model, 300, 0, slope=-0.8)
    level = check_mask(model, log).level
    assert level.p_value < 0.01
    assert level.actual[0] > level.high[0]
    assert level.actual[2] < level.low[2]


@pytest.mark.parametrize("decoder", ["gaussian", "ordinal"])
def test_levels_of_other_scales_and_decoders(decoder: str) -> None:
    scale = RatingScale(1, 3) if decoder == "gaussian" else RatingScale(1, 3, 0.5)
    ratings = 1 + 2 * np.random.default_rng(0).random((30, 12))
    ratings = ratings if scale.step is None else np.round(2 * ratings) / 2
    log = log_of(np.where(np.isnan(random_matrix(30, 12)), np.nan, ratings), scale)
    model = tiny_model(log, decoder=decoder, missing="shared", item_weights="variational", user_activity=True)
    checks = check_mask(model, log, replicates=40, most_users=20)
    assert (checks.n_users, checks.n_known) == (20, 29)
    assert len(checks.level.groups) == (10 if scale.step is None else 5)
    assert checks.level.groups[0] == ("1 to 1.2" if scale.step is None else "1")
    actual = checks.activity.actual.sum() * 2  # tenths of two users
    assert checks.level.actual.sum() == pytest.approx(actual)
    assert checks.level.predicted.sum() == pytest.approx(checks.activity.predicted.sum() * 2, rel=1e-6)
    again = check_mask(model, log, replicates=40, most_users=20)
    assert again.table.equals(checks.table)


def test_cells_of_a_survey_count_on_neither_side() -> None:
    log = log_of(random_matrix(40, 12, seed=5))
    model = tiny_model(log, missing="ignorable")
    with torch.no_grad():
        model.missing.item_bias.fill_(30.0)  # everything is rated
    surveyed = np.arange(log.n_ratings) % 2 == 0
    marked = replace(log, surveyed=surveyed)
    shares: list[float] = []
    checks = check_mask(tiny_model(marked, missing="ignorable"), marked, on_share=shares.append)
    assert checks.level.actual.sum() == (~surveyed).sum()
    assert shares[-1] == 1.0
    assert shares == sorted(shares)
    everything = tiny_model(marked, missing="ignorable")
    with torch.no_grad():
        everything.missing.item_bias.fill_(30.0)
    counts = check_mask(everything, marked).level.predicted.sum()
    assert counts == 39 * 12 - surveyed.sum()


def test_a_group_that_never_changes() -> None:
    check = MaskCheck("level", ("1", "2"), *(np.array([5.0, 0.0]) for _ in range(4)), p_value=1.0)
    assert check.inside.all()
    assert check.table["inside"].all()
