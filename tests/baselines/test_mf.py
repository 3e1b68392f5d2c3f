"""MF against a matrix of known rank, against offsets alone, and its penalty by hand."""

import numpy as np
import pytest
import torch

from baselines.bias import BiasBaseline
from baselines.fitting import batches, fit_to_convergence, squared_error, with_validation
from baselines.heads import MatrixFactorization, predict_pairs
from baselines.mf import Mf
from mnar_recsys.data import RatingLog, Split
from mnar_recsys.errors import ConfigError, DivergedError


def noisy_offsets(n_users: int = 150, n_items: int = 60) -> tuple[RatingLog, RatingLog]:
    """Ratings that are offsets and noise, a third of the cells to train on and another third to test with."""
    rng = np.random.default_rng(0)
    user, item = np.indices((n_users, n_items)).reshape(2, -1)
    ratings = 3 + rng.normal(0, 0.7, n_users)[user] + rng.normal(0, 0.7, n_items)[item] + rng.normal(0, 0.7, len(user))
    part = rng.integers(3, size=len(user))
    ids = {"user_ids": np.arange(n_users), "catalogue": np.arange(n_items), "scale": "-5,11,real"}
    return tuple(RatingLog.from_arrays(user[part == k], item[part == k], ratings[part == k], **ids) for k in (0, 1))


def test_recovers_the_unseen_cells_of_a_matrix_of_rank_one() -> None:
    rng = np.random.default_rng(1)
    complete = 3 + np.outer(rng.uniform(-1.4, 1.4, 50), rng.uniform(-1.4, 1.4, 40))
    user, item = np.nonzero(rng.random(complete.shape) < 0.5)
    log = RatingLog.from_arrays(user, item, complete[user, item], scale="1,5,real")
    model = Mf(size=2, reg=1e-4, learning_rate=0.02, batch_size=128).fit(Split(mnar_train=log), seed=0)
    user, item = np.indices(complete.shape).reshape(2, -1)
    missed = model.predict(user, item) - complete.ravel()
    assert np.square(missed).mean() < 0.005 * complete.var()


def test_is_nearly_as_good_as_the_offsets_where_there_is_nothing_else() -> None:
    train, test = noisy_offsets()
    users, items = test.rows.astype(np.int64), test.items.astype(np.int64)
    errors = {
        name: np.square(model.fit(Split(mnar_train=train), seed=0).predict(users, items) - test.ratings).mean()
        for name, model in (("mf", Mf(size=2)), ("bias", BiasBaseline()))
    }
    assert errors["mf"] < 1.08 * errors["bias"]  # the price of factors that fit some noise
    assert errors["bias"] < 0.6 * test.ratings.var()  # or the comparison would say nothing


def test_a_strong_penalty_leaves_the_mean() -> None:
    train, test = noisy_offsets()
    found = Mf(reg=1e4).fit(Split(mnar_train=train), seed=0).predict(test.rows, test.items)
    np.testing.assert_allclose(found, train.ratings.mean(), atol=0.1)


def test_penalty_and_prediction_by_hand() -> None:
    head = MatrixFactorization((2, 2), 2, mean=3.0)
    with torch.no_grad():
        head.user.weight[0], head.item.weight[1] = torch.tensor([1.0, 2.0]), torch.tensor([3.0, -1.0])
        assert head.user_offset is not None
        assert head.item_offset is not None
        head.user_offset.weight[0], head.item_offset.weight[1] = 0.5, -0.25
    row, column = torch.tensor([0]), torch.tensor([1])
    assert float(head(row, column).detach()) == pytest.approx(3 + 0.5 - 0.25 + 3 - 2)
    assert float(head.penalty(row, column).detach()) == pytest.approx(1 + 4 + 9 + 1 + 0.25 + 0.0625)


def test_the_unknown_and_the_unrated_have_neither_offset_nor_factors() -> None:
    train, _ = noisy_offsets(40, 20)
    log = train.select_ratings((train.rows != 3) & (train.items != 5))
    model = Mf(reg=0.01).fit(Split(mnar_train=log), seed=0)
    for table in (model.factors.user, model.factors.item, model.factors.user_offset, model.factors.item_offset):
        assert table is not None
        assert not table.weight[-1].any()
        assert not table.weight[3 if len(table.weight) == 41 else 5].any()
    mean = float(model.factors.mean.detach())
    np.testing.assert_allclose(model.predict(np.array([3, 999]), np.array([5, 999])), mean, rtol=1e-6)
    assert model.predict(np.array([3]), np.array([0])) == model.predict(np.array([999]), np.array([0]))


def test_pairs_are_predicted_the_same_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    head = MatrixFactorization((5, 4), 3)
    rows, columns = np.indices((6, 5)).reshape(2, -1)
    whole = predict_pairs(head, rows, columns)
    monkeypatch.setattr("baselines.heads._PAIRS_AT_ONCE", 7)
    np.testing.assert_array_equal(predict_pairs(head, rows, columns), whole)


class Scripted:
    """A learner whose held-out loss after each pass is written down."""

    def __init__(self, split: Split, losses: tuple[float, ...]) -> None:
        self.split, self.losses, self.passes = split, losses, 0

    def run_epoch(self, epoch: int) -> float:
        assert epoch == self.passes
        self.passes += 1
        return self.losses[epoch]

    def validation_loss(self) -> float:
        return self.losses[self.passes - 1]


def test_the_final_fit_sees_all_ratings_for_the_best_number_of_passes() -> None:
    split = Split(mnar_train=noisy_offsets(20, 10)[0])
    losses = (3.0, 2.0, 1.0, 1.5, 0.5, 0.6, 0.7, 0.1)
    final = fit_to_convergence(lambda part, _: Scripted(part, losses), split, 0, patience=2)
    assert final.passes == 5  # two passes without gain end it at 0.5; the 0.1 behind is never reached
    assert final.split is split


def test_validation_is_what_is_given_or_a_tenth() -> None:
    split = Split(mnar_train=noisy_offsets(20, 10)[0])
    held = with_validation(split, 0)
    assert held.mnar_valid is not None
    assert held.mnar_valid.n_ratings == round(0.1 * split.mnar_train.n_ratings)
    assert with_validation(held, 1) is held


def test_a_loss_that_is_not_finite_stops_the_fit() -> None:
    split = Split(mnar_train=noisy_offsets(20, 10)[0])
    with pytest.raises(DivergedError, match="pass 2; lower learning_rate"):
        fit_to_convergence(lambda part, _: Scripted(part, (1.0, float("nan"))), split, 0)


def test_batches_hold_everything_once_and_differ_by_pass() -> None:
    first = np.concatenate(list(batches(10, 4, 0, "a", 0)))
    assert sorted(first) == list(range(10))
    assert [len(part) for part in batches(10, 4, 0, "a", 0)] == [4, 4, 2]
    assert not np.array_equal(first, np.concatenate(list(batches(10, 4, 0, "a", 1))))


def test_error_is_that_of_clipped_predictions() -> None:
    log = RatingLog.from_arrays([1, 2], [1, 2], [5.0, 1.0], scale="1,5")
    assert squared_error(log, np.array([7.0, 3.0])) == pytest.approx(2.0)


@pytest.mark.parametrize("setting", ["size", "reg", "learning_rate", "batch_size"])
def test_settings_must_be_above_zero(setting: str) -> None:
    with pytest.raises(ConfigError, match=f"{setting} must be a number above 0; found 0"):
        Mf(**{setting: 0})
