"""IPS and SNIPS against Monte Carlo, arithmetic by hand and an independent optimizer; the order on a simulator."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from weighted_cases import (
    STARS,
    assert_mean,
    error_on_test,
    rating_propensity,
    selected,
    single,
    small_cells,
    star_split,
)

from baselines.mf_ips import MfIps, MfIpsMul, MfSnips, WeightedFactors
from baselines.weighting import Propensities, PropensityLearner, ips_loss, ridge, snips_loss, torch_stream
from mnar_recsys.data import RatingLog, Split
from mnar_recsys.errors import ConfigError, DataError
from mnar_recsys.propensity.naive_bayes import NaiveBayes
from mnar_recsys.propensity.popularity import UserItemPopularity


def learner_of(model: MfIps, split: Split) -> WeightedFactors:
    learner: PropensityLearner = model._make_learner(split, 0)
    assert isinstance(learner, WeightedFactors)
    return learner


def test_ips_is_unbiased_for_the_mean_over_all_cells_and_the_naive_mean_is_not() -> None:
    cells = small_cells()
    errors, propensity = single(cells.errors), single(cells.propensity)
    estimates, naive = [], []
    for mask in map(torch.from_numpy, cells.masks(8000)):
        estimates.append(float(ips_loss(errors[mask], propensity[mask], len(errors))))
        naive.append(float(errors[mask].mean()))
    assert_mean(estimates, cells.errors.mean())
    assert np.mean(naive) > 1.2 * cells.errors.mean()


def test_a_batch_stands_for_its_share_of_the_cells() -> None:
    cells = small_cells(12)
    errors, propensity = single(cells.errors), single(cells.propensity)
    whole = ips_loss(errors, propensity, 100)
    halves = [ips_loss(errors[part], propensity[part], 50) for part in (slice(0, 6), slice(6, 12))]
    torch.testing.assert_close(torch.stack(halves).mean(), whole)


def test_snips_by_hand() -> None:
    # (1 / .5 + 4 / .25) / (1 / .5 + 1 / .25) = 18 / 6
    assert float(snips_loss(torch.tensor([1.0, 4.0]), torch.tensor([0.5, 0.25]))) == pytest.approx(3.0)


def test_propensities_below_the_quantile_are_raised_to_it() -> None:
    split = star_split()
    fitted = Propensities.fit(rating_propensity(), split, clip_quantile=0.6, seed=0)
    ratings = split.mnar_train.ratings.astype(float)
    floor = np.quantile(ratings / 10.0, 0.6)
    assert floor > 0.1
    np.testing.assert_allclose(fitted.of_log(split.mnar_train), np.maximum(ratings / 10.0, floor))
    whole = Propensities.fit(rating_propensity(), split, clip_quantile=0.0, seed=0)
    np.testing.assert_allclose(whole.of_log(split.mnar_train), ratings / 10.0)


def test_validation_is_the_self_normalised_error_of_clipped_predictions() -> None:
    split = star_split(20, 15).hold_out(0.3, seed=0)
    model = MfIps(propensity=rating_propensity(), clip_quantile=0.0).fit(split, seed=0)
    valid = split.mnar_valid
    assert valid is not None
    predicted = model.predict(valid.users.take(valid.rows), valid.catalogue.take(valid.items))
    weights = 10.0 / valid.ratings
    expected = (weights * np.square(predicted - valid.ratings)).sum() / weights.sum()
    assert model.validation_loss(split) == pytest.approx(expected, rel=1e-5)


def independent_objective(log: RatingLog, size: int, reg: float) -> Any:
    """The documented objective of MfIps with P(rated) = rating / 10, in numpy: a flat vector -> a number."""
    users, items = log.n_users, log.n_items
    ends = np.cumsum([1, users * size, items * size, users, items])

    def objective(flat: np.ndarray) -> float:
        _, p, q, a, b = np.split(flat, ends[:-1])
        taste = (p.reshape(users, size)[log.rows] * q.reshape(items, size)[log.items]).sum(axis=1)
        error = np.square(flat[0] + a[log.rows] + b[log.items] + taste - log.ratings)
        risk = (error / (log.ratings / 10.0)).sum() / (users * items)
        return float(risk + reg / log.n_ratings * np.square(flat[1:]).sum())

    return objective, int(ends[-1])


def test_training_reaches_the_minimum_that_an_independent_optimizer_finds() -> None:
    split, size, reg = star_split(), 2, 3.0
    log = split.mnar_train
    objective, length = independent_objective(log, size, reg)
    starts = np.random.default_rng(0).normal(scale=0.5, size=(4, length))
    best = min(minimize(objective, start, method="L-BFGS-B", options={"maxfun": 200_000}).fun for start in starts)
    model = MfIps(propensity=rating_propensity(), clip_quantile=0.0, size=size, reg=reg, learning_rate=0.02)
    learner = learner_of(model, split)
    for epoch in range(1500):
        learner.run_epoch(epoch)
    head = learner.head
    tables = (head.user, head.item, head.user_offset, head.item_offset)
    flat = [head.mean.detach().reshape(1)] + [table.weight[:-1].detach().ravel() for table in tables if table]
    assert objective(torch.cat(flat).double().numpy()) == pytest.approx(best, rel=2e-3)


def test_the_mean_is_not_penalised() -> None:
    head = learner_of(MfIps(propensity="uniform"), star_split()).head
    penalised, free = ridge(head.parameters(), 5.0, 100)
    assert penalised["weight_decay"] == pytest.approx(0.1)
    assert free == {"params": [head.mean], "weight_decay": 0.0}


def test_alternating_descent_moves_one_side_at_a_time() -> None:
    model = MfIpsMul(propensity=rating_propensity())
    learner = learner_of(model, star_split())

    def sides() -> tuple[torch.Tensor, torch.Tensor]:
        named = dict(learner.head.named_parameters())
        of_items = [named[name].detach().ravel() for name in ("item.weight", "item_offset.weight")]
        of_users = [named[name].detach().ravel() for name in ("mean", "user.weight", "user_offset.weight")]
        return torch.cat(of_users), torch.cat(of_items)

    users, items = sides()
    learner._pass(0, 0)
    users_after, items_after = sides()
    assert torch.equal(items, items_after)
    assert not torch.isclose(users, users_after).all()
    learner._pass(1, 0)
    assert torch.equal(users_after, sides()[0])
    assert not torch.isclose(items_after, sides()[1]).all()


def test_a_step_of_snips_does_not_depend_on_the_scale_of_the_propensities() -> None:
    cells = small_cells()
    errors, propensity = single(cells.errors), single(cells.propensity)
    torch.testing.assert_close(MfSnips().loss(errors, propensity, 60), MfSnips().loss(errors, 0.1 * propensity, 60))
    assert not torch.isclose(MfIps().loss(errors, propensity, 60), MfIps().loss(errors, 0.1 * propensity, 60))


@pytest.mark.parametrize(("labels", "expected"), [(True, NaiveBayes), (False, UserItemPopularity)])
def test_auto_reads_labels_where_there_are_any(labels: bool, expected: type) -> None:
    model = MfIps().fit(star_split(20, 15, labels=labels), seed=0)
    assert isinstance(model._learner.propensities.model, expected)
    assert model.needs_labels
    assert (model.n_labels > 0) == labels


def test_who_needs_labels() -> None:
    assert not MfIps(propensity="uniform").needs_labels
    assert MfIps(propensity="naive_bayes").needs_labels
    assert MfIpsMul().needs_labels
    assert not MfIps(propensity=rating_propensity()).needs_labels
    with pytest.raises(DataError, match="needs randomly collected ratings"):
        MfIpsMul().fit(star_split(), seed=0)


def test_a_given_model_is_not_changed_by_fitting() -> None:
    given = rating_propensity()
    MfIps(propensity=given).fit(star_split(), seed=0)
    assert given._log is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"propensity": "astrology"}, "propensity must be one of"),
        ({"clip_quantile": 1.0}, "clip_quantile must be at least 0 and below 1"),
        ({"reg": 0.0}, "reg must be a number above 0"),
        ({"size": -1}, "size must be a number above 0"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MfIps(**settings)


@pytest.mark.parametrize("make", [MfIps, MfSnips, MfIpsMul])
def test_the_seed_decides_everything(make: type[MfIps]) -> None:
    split = star_split(20, 15, labels=True)
    users, items = split.mnar_train.users.ids[:5], split.mnar_train.catalogue.ids[:5]
    first, again, other = (make().fit(split, seed=seed).predict(users, items) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other, atol=1e-6)


def test_a_stream_puts_the_global_generator_back() -> None:
    before = torch.random.get_rng_state()
    draws = []
    for name in ("a", "a", "b"):
        with torch_stream(0, name):
            draws.append(torch.rand(3))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert torch.equal(before, torch.random.get_rng_state())


def test_predictions_stay_on_the_scale_and_know_strangers() -> None:
    split = star_split(20, 15)
    model = MfIps(propensity=rating_propensity(), reg=0.01).fit(split, seed=0)
    log = split.mnar_train
    users = np.append(log.users.ids, "stranger")
    found = model.predict(np.repeat(users, 15), np.tile(log.catalogue.ids, len(users)))
    assert found.min() >= STARS.low
    assert found.max() <= STARS.high
    # The first user has no rating: predicted as one nobody knows.
    np.testing.assert_array_equal(found[:15], found[-15:])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "preset"), [(MfIps, "monotone"), (MfIps, "r3-like"), (MfSnips, "monotone"), (MfIpsMul, "r3-like")]
)
def test_true_propensities_beat_none_on_random_ratings(make: type[MfIps], preset: str) -> None:
    simulation, true = selected(preset)
    weighted, naive = make(propensity=true), MfIps(propensity="uniform", learning_rate=0.03)
    assert error_on_test(weighted, simulation) < error_on_test(naive, simulation) - 0.15
