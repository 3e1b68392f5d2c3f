"""The doubly robust estimate against Monte Carlo, the joint loop piece by piece, the NFM head by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from weighted_cases import (
    Cells,
    assert_mean,
    error_on_test,
    rating_propensity,
    selected,
    single,
    small_cells,
    star_split,
)

from baselines.doubly_robust import Errors, JointLearner, MfDrJl, NfmDrJl
from baselines.fitting import seeded
from baselines.heads import predict_pairs
from baselines.mf_ips import MfIps
from baselines.nfm import NeuralFactorizationMachine
from baselines.weighting import descend
from mnar_recsys.data import Split


def estimates(cells: Cells, imputed: np.ndarray, propensity: np.ndarray, count: int = 8000) -> list[float]:
    true, guess, weights = single(cells.errors), single(imputed), single(propensity)
    found = []
    for mask in map(torch.from_numpy, cells.masks(count)):
        errors = Errors(true[mask], guess[mask], weights[mask], guess, len(true))
        found.append(float(MfDrJl(propensity="uniform").estimate(errors)))
    return found


def learner_of(model: MfDrJl, split: Split) -> JointLearner:
    learner = model._make_learner(split, 0)
    assert isinstance(learner, JointLearner)
    return learner


def test_unbiased_with_right_propensities_and_wrong_imputed_errors() -> None:
    cells = small_cells()
    assert_mean(estimates(cells, cells.wrong, cells.propensity), cells.errors.mean())


def test_exact_with_right_imputed_errors_and_wrong_propensities() -> None:
    cells = small_cells()
    wrong = np.full_like(cells.propensity, 0.3)
    np.testing.assert_allclose(estimates(cells, cells.errors, wrong, 50), cells.errors.mean(), rtol=1e-5)


def test_biased_where_both_are_wrong() -> None:
    cells = small_cells()
    found = estimates(cells, cells.wrong, np.full_like(cells.propensity, 0.3))
    assert abs(np.mean(found) - cells.errors.mean()) > 10 * np.std(found) / np.sqrt(len(found))


def test_a_step_estimates_the_mean_over_all_cells_without_bias() -> None:
    learner = learner_of(MfDrJl(propensity=rating_propensity(), clip_quantile=0.0, batch_size=7), star_split())
    rated, (users, items) = learner.rated, learner.shape
    everywhere = (torch.arange(users).repeat_interleave(items), torch.arange(items).repeat(users))
    with torch.no_grad():
        whole = float(learner.prediction_loss(rated, everywhere))
        steps = []
        for trial in range(800):
            index = np.random.default_rng(trial).choice(len(rated), size=7, replace=False)
            steps.append(float(learner.prediction_loss(rated.take(index), learner._draw(14, 0, trial))))
    assert_mean(steps, whole)


def test_drawn_cells_are_uniform() -> None:
    learner = learner_of(MfDrJl(propensity="uniform"), star_split())
    rows, columns = learner._draw(200_000, 0, 0)
    counts = np.bincount(rows.numpy() * learner.shape[1] + columns.numpy(), minlength=learner.n_cells)
    expected = 200_000 / learner.n_cells
    assert len(counts) == learner.n_cells
    # The chi-squared statistic has mean C - 1 and variance 2 (C - 1).
    statistic = (np.square(counts - expected) / expected).sum()
    assert abs(statistic - learner.n_cells) < 4 * np.sqrt(2 * learner.n_cells)


def test_the_imputation_loss_by_hand() -> None:
    learner = learner_of(MfDrJl(propensity=rating_propensity(), clip_quantile=0.0), star_split())
    log = learner.split.mnar_train
    imputed = predict_pairs(learner.imputation, log.rows, log.items)
    weights = 10.0 / log.ratings
    expected = (weights * np.square(imputed - log.ratings)).sum() / weights.sum()
    assert float(learner.imputation_loss(learner.rated).detach()) == pytest.approx(expected, rel=1e-5)


def test_the_prediction_loss_leaves_the_imputation_model_alone() -> None:
    learner = learner_of(MfDrJl(propensity=rating_propensity()), star_split())
    learner.prediction_loss(learner.rated, learner._draw(50, 0, 0)).backward()
    assert all(parameter.grad is None for parameter in learner.imputation.parameters())
    assert all(parameter.grad is not None for parameter in learner.head.parameters())


def test_predictions_learn_the_imputed_ratings_of_unrated_cells() -> None:
    # With ratings equal to the imputed ones the correction is 0, and drawn cells alone can teach the unrated ones.
    learner = learner_of(MfDrJl(propensity="uniform", size=4, reg=1e-3, learning_rate=0.05), star_split())
    with torch.no_grad():
        for table in (learner.imputation.user, learner.imputation.item):
            table.weight.mul_(20.0)
        imputed = learner.imputation(learner.rated.rows, learner.rated.columns)
    learner.rated = replace(learner.rated, ratings=imputed)
    learner.imputation_optimizer = torch.optim.SGD(learner.imputation.parameters(), lr=0.0)
    for epoch in range(300):
        learner.run_epoch(epoch)
    users, items = learner.shape
    rows, columns = np.arange(users).repeat(items), np.tile(np.arange(items), users)
    target = predict_pairs(learner.imputation, rows, columns)
    assert target.std() > 0.3
    assert np.abs(predict_pairs(learner.head, rows, columns) - target).max() < 0.1


def test_nfm_by_hand() -> None:
    head = NeuralFactorizationMachine((3, 2), 2, mean=3.0)
    values = {
        "user.weight": [[1.0, 2.0], [0.5, -1.0], [0.0, 1.0], [0.0, 0.0]],
        "item.weight": [[2.0, 1.0], [-1.0, 1.0], [0.0, 0.0]],
        "user_offset.weight": [[0.1], [0.2], [0.3], [0.0]],
        "item_offset.weight": [[-0.5], [0.5], [0.0]],
        "deep.1.weight": [[1.0, 0.0], [1.0, -2.0]],
        "deep.1.bias": [0.5, 1.0],
        "deep.4.weight": [[2.0, -1.0]],
    }
    head.load_state_dict({name: torch.tensor(value) for name, value in values.items()}, strict=False)
    found = predict_pairs(head, np.array([0, 1, 3]), np.array([0, 1, 2]))
    # Pooled (2, 2), hidden relu(2.5, -1); pooled (-.5, -1), hidden relu(0, 2.5); pooled 0, hidden relu(.5, 1).
    np.testing.assert_allclose(found, [3 + 0.1 - 0.5 + 5.0, 3 + 0.2 + 0.5 - 2.5, 3 + 1.0 - 1.0], rtol=1e-6)


def test_nfm_learns_an_interaction() -> None:
    generator = torch.Generator().manual_seed(0)
    rows, columns = torch.arange(12).repeat_interleave(9), torch.arange(9).repeat(12)
    taste = torch.randn(12, generator=generator)[rows] * torch.randn(9, generator=generator)[columns]
    head = seeded(lambda: NeuralFactorizationMachine((12, 9), 8, dropout=0.0), 0, "test")
    optimizer = torch.optim.Adam(head.parameters(), lr=0.02)
    for _ in range(300):
        descend(optimizer, (head(rows, columns) - taste).square().mean())
    residual = taste.numpy() - predict_pairs(head, rows.numpy(), columns.numpy())
    assert np.square(residual).mean() < 0.02 * np.square(taste.numpy()).mean()


def test_dropout_is_off_in_predictions_and_follows_the_seed_in_training() -> None:
    split = star_split(15, 12)
    users, items = split.mnar_train.users.ids[:5], split.mnar_train.catalogue.ids[:5]
    before = torch.random.get_rng_state()
    models = [NfmDrJl(propensity="uniform").fit(split, seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(before, torch.random.get_rng_state())
    first, again, other = (model.predict(users, items) for model in models)
    np.testing.assert_array_equal(first, models[0].predict(users, items))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.slow
@pytest.mark.parametrize(("make", "preset"), [(MfDrJl, "monotone"), (MfDrJl, "r3-like"), (NfmDrJl, "r3-like")])
def test_true_propensities_beat_none_on_random_ratings(make: type[MfDrJl], preset: str) -> None:
    simulation, true = selected(preset)
    weighted, naive = make(propensity=true, learning_rate=0.05), MfIps(propensity="uniform", learning_rate=0.03)
    assert error_on_test(weighted, simulation) < error_on_test(naive, simulation) - 0.15
