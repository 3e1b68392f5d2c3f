"""The imputation weights by hand, and that they are those of the variance: by enumerating all masks."""

from itertools import product

import numpy as np
import pytest
import torch
from weighted_cases import error_on_test, rating_propensity, selected, small_cells, star_split

from baselines.doubly_robust import Errors, JointLearner
from baselines.heads import predict_pairs
from baselines.mf_ips import MfIps
from baselines.mrdr import Mrdr

WEIGHTS = Mrdr(propensity="uniform").imputation_weights


def test_weights_by_hand() -> None:
    found = WEIGHTS(torch.tensor([0.5, 0.2, 0.1, 1.0]))
    torch.testing.assert_close(found, torch.tensor([2.0, 20.0, 90.0, 0.0]))


def test_the_weighted_loss_is_unbiased_for_the_variance_of_the_estimate() -> None:
    cells = small_cells(8)
    chance = cells.propensity
    errors = torch.tensor(cells.errors)
    wrong, weights = torch.tensor(cells.wrong), torch.tensor(chance)
    estimates, losses, probabilities = [], [], []
    for choice in product([False, True], repeat=8):
        mask = torch.tensor(choice)
        step = Errors(errors[mask], wrong[mask], weights[mask], wrong, 8)
        estimates.append(float(Mrdr(propensity="uniform").estimate(step)))
        losses.append(float((WEIGHTS(weights[mask]) * (errors - wrong)[mask].square()).sum()) / 8**2)
        probabilities.append(np.where(choice, chance, 1.0 - chance).prod())
    mean = np.dot(probabilities, estimates)
    assert mean == pytest.approx(cells.errors.mean())
    variance = np.dot(probabilities, np.square(estimates)) - mean**2
    assert np.dot(probabilities, losses) == pytest.approx(variance)


def test_the_imputation_loss_uses_them() -> None:
    learner = Mrdr(propensity=rating_propensity(), clip_quantile=0.0)._make_learner(star_split(), 0)
    assert isinstance(learner, JointLearner)
    log = learner.split.mnar_train
    chance = log.ratings / 10.0
    weights = (1.0 - chance) / chance**2
    squares = np.square(predict_pairs(learner.imputation, log.rows, log.items) - log.ratings)
    expected = (weights * squares).sum() / weights.sum()
    assert float(learner.imputation_loss(learner.rated).detach()) == pytest.approx(expected, rel=1e-5)


def test_nothing_is_imputed_where_everything_is_rated() -> None:
    learner = Mrdr(propensity="uniform")._make_learner(star_split(), 0)
    learner.rated.propensity.fill_(1.0)
    assert np.isfinite(learner.run_epoch(0))


@pytest.mark.slow
def test_true_propensities_beat_none_on_random_ratings() -> None:
    simulation, true = selected("r3-like")
    weighted, naive = Mrdr(propensity=true), MfIps(propensity="uniform", learning_rate=0.03)
    assert error_on_test(weighted, simulation) < error_on_test(naive, simulation) - 0.15
