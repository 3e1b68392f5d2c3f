"""AutoRec against its dense formula; what is unrated, unknown, or turned on its side."""

import numpy as np
import pytest
import torch
from sparse_rows_case import DENSE, MATRIX, RATED, drawn, gap_log, gradients_at, two_tastes, whole_batch

from baselines.autoencoders import AutoencoderLearner, SparseRows
from baselines.autorec import AutoRecItem, AutoRecNet, AutoRecUser
from mnar_recsys.data import RatingLog, Split
from mnar_recsys.errors import ConfigError


def test_sparse_rows_are_those_of_the_matrix() -> None:
    for by_item, matrix in ((False, MATRIX), (True, MATRIX.T)):
        rows = SparseRows.of_log(gap_log(), by_item=by_item)
        np.testing.assert_array_equal(rows.rated, np.flatnonzero((~np.isnan(matrix)).any(1)))
        wanted = np.array([3, len(matrix), 0, 2])  # one of them unknown, in any order
        batch = rows.batch(wanted)
        found = np.full((4, matrix.shape[1]), np.nan)
        found[batch.owners, batch.columns] = batch.values
        padded = np.vstack([matrix, np.full(matrix.shape[1], np.nan)])
        np.testing.assert_array_equal(found, padded[wanted])
        np.testing.assert_array_equal(batch.starts, np.searchsorted(batch.owners.numpy(), np.arange(4)))


def dense_output(net: AutoRecNet) -> torch.Tensor:
    """W sigmoid(V r + mu) + b with zeros for what is unrated, (7, 5)."""
    encoded = torch.sigmoid(DENSE @ net.first.weight[:-1] + net.first_bias)
    return encoded @ net.last.weight[:-1].T + net.last_bias.weight[:-1, 0]


def test_the_loss_is_the_dense_formula_over_rated_cells_and_so_is_its_gradient() -> None:
    method = AutoRecUser(hidden=3, reg=4.0)
    sparse, dense = drawn(method), drawn(method)
    assert isinstance(sparse, AutoRecNet)
    assert isinstance(dense, AutoRecNet)
    loss = sparse.loss(whole_batch(), 0, torch.Generator())
    squared = torch.where(RATED, dense_output(dense) - DENSE, 0.0).square().sum()
    norms = dense.first.weight.square().sum() + dense.last.weight.square().sum()
    expected = (squared + 0.5 * 4.0 * norms) / RATED.sum()
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    for mine, other in zip(sparse.parameters(), dense.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad)


def test_no_gradient_flows_through_unrated_cells() -> None:
    net = drawn(AutoRecUser(hidden=3, reg=1e-12))
    net.loss(whole_batch(), 0, torch.Generator()).backward()
    tables = [net.first.weight, net.last.weight, net.last_bias.weight]
    assert gradients_at(tables, 4) < 1e-10  # nobody rated item 4
    assert gradients_at(tables, 3) > 1e-3


def turned(log: RatingLog) -> RatingLog:
    return RatingLog.from_arrays(
        log.items, log.rows, log.ratings, scale=log.scale,
        user_ids=np.arange(log.n_items), catalogue=np.arange(log.n_users),
    )  # fmt: skip


def test_items_are_to_autorec_item_what_users_are_to_autorec_user() -> None:
    log, _ = two_tastes()
    held = Split(mnar_train=log).hold_out(0.2, seed=0)
    assert held.mnar_valid is not None
    sideways = Split(mnar_train=turned(held.mnar_train), mnar_valid=turned(held.mnar_valid))
    by_user = AutoRecUser(hidden=5, learning_rate=0.05).fit(held, seed=0)
    by_item = AutoRecItem(hidden=5, learning_rate=0.05).fit(sideways, seed=0)
    users, items = np.indices((80, 40)).reshape(2, -1)
    np.testing.assert_allclose(by_user.predict(users, items), by_item.predict(items, users), rtol=1e-5)


@pytest.mark.parametrize("method", [AutoRecUser, AutoRecItem])
def test_recovers_two_tastes(method: type[AutoRecItem]) -> None:
    log, complete = two_tastes()
    model = method(hidden=10, reg=1.0, learning_rate=0.02).fit(Split(mnar_train=log), seed=0)
    users, items = np.indices(complete.shape).reshape(2, -1)
    unseen = ~np.isin(users * 40 + items, log.cells)
    missed = model.predict(users[unseen], items[unseen]) - complete.ravel()[unseen]
    assert np.square(missed).mean() < 0.2 * complete.var()


def test_unrated_and_unknown_columns_are_predicted_at_the_mean() -> None:
    log = gap_log()
    model = AutoRecUser(hidden=3).fit(Split(mnar_train=log), seed=0)
    found = model.predict(np.array(["u0002", "u0002", "u0000", "new"], dtype=object), np.array([4, 99, 4, 99]))
    np.testing.assert_allclose(found, log.ratings.mean(), rtol=1e-6)


def test_a_user_without_ratings_is_an_unknown_user() -> None:
    model = AutoRecUser(hidden=3).fit(Split(mnar_train=gap_log()), seed=0)
    found = model.predict(np.array(["u0000", "new"], dtype=object), np.array([1, 1]))
    assert found[0] == found[1]


def test_a_pass_visits_every_row_with_ratings() -> None:
    learner = AutoencoderLearner(AutoRecUser(hidden=3, batch_size=2), Split(mnar_train=gap_log()), 0)
    visited: list[int] = []
    batch_of = learner.rows.batch
    object.__setattr__(learner.rows, "batch", lambda rows: (visited.extend(rows), batch_of(rows))[1])
    learner.run_epoch(0)
    assert sorted(visited) == list(learner.rows.rated)


@pytest.mark.parametrize("setting", ["hidden", "reg", "learning_rate", "batch_size", "patience"])
def test_settings_must_be_above_zero(setting: str) -> None:
    with pytest.raises(ConfigError, match=f"{setting} must be a number above 0; found 0"):
        AutoRecItem(**{setting: 0})
