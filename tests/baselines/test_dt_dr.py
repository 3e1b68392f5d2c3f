"""The penalty and the mask's likelihood by hand, what each term teaches, and propensities found on a simulator."""

import numpy as np
import pytest
import torch
from scipy.special import expit
from weighted_cases import error_on_test, selected, star_split

from baselines.dt_dr import ChoiceLogit, DisentangledLearner, DtDr, entanglement, mask_log_likelihood
from baselines.heads import MatrixFactorization, predict_pairs
from baselines.mf_ips import MfIps
from mnar_recsys.data import RatingLog, Split
from mnar_recsys.errors import ConfigError


def learner_of(model: DtDr) -> DisentangledLearner:
    learner = model._make_learner(star_split(), 0)
    assert isinstance(learner, DisentangledLearner)
    return learner


def everywhere(learner: DisentangledLearner) -> tuple[torch.Tensor, torch.Tensor]:
    users, items = learner.shape
    return torch.arange(users).repeat_interleave(items), torch.arange(items).repeat(users)


def test_entanglement_by_hand() -> None:
    primary = torch.tensor([[1.0, 0.0], [1.0, 2.0]])
    auxiliary = torch.tensor([[2.0], [-1.0]])
    # Products averaged over the two rows: (2 - 1) / 2 and (0 - 2) / 2; their mean square is (.25 + 1) / 2.
    assert float(entanglement(primary, auxiliary)) == pytest.approx(0.625)
    assert float(entanglement(primary[:, :1], torch.tensor([[1.0], [-1.0]]))) == 0.0


def test_the_penalty_counts_offsets_and_factors_of_both_sides() -> None:
    rating, auxiliary = (MatrixFactorization((2, 2), 1) for _ in range(2))
    tables = {"user": [[1.0], [1.0], [0.0]], "item": [[0.0], [0.0], [0.0]]}
    for head in (rating, auxiliary):
        for name, table in tables.items():
            getattr(head, name).weight.data = torch.tensor(table)
            getattr(head, f"{name}_offset").weight.data = torch.zeros(3, 1)
    auxiliary.user_offset.weight.data = torch.tensor([[3.0], [1.0], [0.0]])
    # Users: factor with factor 1, factor with offset 2, offset with either 0; items all 0.
    found = ChoiceLogit(rating, auxiliary).entanglement(torch.tensor([0, 1]), torch.tensor([0, 1]))
    assert float(found.detach()) == pytest.approx((1.0 + 4.0) / 4)


def test_the_mask_likelihood_is_the_bernoulli_one_over_all_cells() -> None:
    logit = np.random.default_rng(0).normal(size=40)
    is_rated = np.random.default_rng(1).random(40) < expit(logit)
    expected = np.where(is_rated, np.log(expit(logit)), np.log(1 - expit(logit))).sum() / is_rated.sum()
    logits = torch.tensor(logit)
    found = mask_log_likelihood(logits[torch.from_numpy(is_rated)], logits, 40 / is_rated.sum())
    assert float(found) == pytest.approx(expected)


def test_log_odds_by_hand() -> None:
    learner = learner_of(DtDr(size=2))
    logit = learner.logit
    with torch.no_grad():
        logit.slope.fill_(0.7)
        rows, columns = everywhere(learner)
        expected = logit.auxiliary(rows, columns) + 0.7 * (learner.head(rows, columns) - learner.head.mean)
        torch.testing.assert_close(logit(rows, columns), expected)
    assert float(logit.auxiliary.mean.detach()) == pytest.approx(
        np.log(len(learner.rated) / (108 - len(learner.rated)))
    )


def test_propensities_are_constants_in_the_risk_and_clipped() -> None:
    learner = learner_of(DtDr(clip_quantile=0.3))
    with torch.no_grad():
        learner.logit.auxiliary.user_offset.weight[:-1] = torch.linspace(-2, 2, 12).unsqueeze(1)
    rated = learner.take(np.arange(len(learner.rated)))
    assert not rated.propensity.requires_grad
    found = expit(predict_pairs(learner.logit, rated.rows.numpy(), rated.columns.numpy()))
    expected = np.maximum(found, np.quantile(found, 0.3))
    np.testing.assert_allclose(rated.propensity, expected, rtol=1e-5)
    np.testing.assert_allclose(learner.propensities.of_log(learner.split.mnar_train), expected, rtol=1e-5)


def test_the_risk_teaches_no_auxiliary_part_and_the_mask_teaches_both() -> None:
    learner = learner_of(DtDr(disentangling=1e-12))
    with torch.no_grad():
        learner.logit.slope.fill_(1.0)
    drawn = everywhere(learner)
    auxiliary, primary = learner.logit.auxiliary.user_offset.weight, learner.head.user_offset
    assert primary is not None
    with_mask = torch.autograd.grad(learner.prediction_loss(learner.rated, drawn), [auxiliary, primary.weight])
    learner.method.likelihood = 0.0
    loss = learner.prediction_loss(learner.rated, drawn)
    without = torch.autograd.grad(loss, [auxiliary, primary.weight])
    assert float(without[0].abs().max()) < 1e-9
    assert float(with_mask[0].abs().max()) > 1e-3
    assert float((with_mask[1] - without[1]).abs().max()) > 1e-3


def test_settings_are_checked_and_no_label_is_read() -> None:
    with pytest.raises(ConfigError, match="disentangling must be a number above 0"):
        DtDr(disentangling=0.0)
    assert not DtDr().needs_labels
    assert DtDr().fit(star_split(20, 15, labels=True), seed=0).n_labels == 0


@pytest.mark.slow
def test_finds_that_liked_cells_are_rated_and_gains_by_it() -> None:
    simulation, _ = selected("r3-like")
    model = DtDr()
    naive = MfIps(propensity="uniform", learning_rate=0.03)
    assert error_on_test(model, simulation) < error_on_test(naive, simulation) - 0.1
    learner = model._learner
    assert isinstance(learner, DisentangledLearner)
    assert float(learner.logit.slope.detach()) > 0.4
    train = simulation.train
    truth = simulation.truth.block(0, train.n_users)[1][train.rows, train.items]
    found = learner.propensities.of_log(Split(mnar_train=train).mnar_train)
    assert np.corrcoef(np.log(found), np.log(truth))[0, 1] > 0.55


def test_a_log_in_which_everything_is_rated_is_fitted() -> None:
    rows, columns = np.indices((6, 5)).reshape(2, -1)
    log = RatingLog.from_arrays(rows, columns, 1.0 + (rows + columns) % 5, scale="1,5")
    fitted = DtDr(size=2).fit(Split(mnar_train=log), seed=0)
    predicted = fitted.predict(rows, columns)
    assert np.isfinite(predicted).all()
    assert np.corrcoef(predicted, 1.0 + (rows + columns) % 5)[0, 1] > 0
