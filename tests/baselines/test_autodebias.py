"""The meta-gradient against finite differences, the loss and the step against numpy, recovery of a hidden level."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from factories import log_of, random_matrix
from weighted_cases import error_on_test, selected, star_split

from baselines.autodebias import AutoDebias, Batch, Debiasing, KnownCells, MetaLearner
from baselines.heads import predict_pairs
from baselines.mf_ips import MfIps
from baselines.weighting import RatedCells
from mnar_recsys.data import RatingScale
from mnar_recsys.errors import ConfigError, DataError


def doubled(cells: RatedCells) -> RatedCells:
    return replace(cells, ratings=cells.ratings.double(), propensity=cells.propensity.double())


def precise_learner(**settings: float) -> tuple[MetaLearner, Batch]:
    """A learner in double precision whose debiasing is far from its start, with a batch of 20 ratings."""
    model = AutoDebias(size=2, batch_size=20, **settings)
    learner = model._make_learner(star_split(8, 6, labels=True), 0)
    assert isinstance(learner, MetaLearner)
    generator = torch.Generator().manual_seed(1)
    for module in (learner.head, learner.debiasing):
        module.double()
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    learner.head.mean.requires_grad_(False)
    learner.rated, learner.labels = doubled(learner.rated), doubled(learner.labels)
    learner.steps = {name: step.double() for name, step in learner.steps.items()}
    return learner, learner._batch(np.arange(20), 0, 0)


def test_the_meta_gradient_agrees_with_finite_differences() -> None:
    learner, batch = precise_learner()
    parameters = dict(learner.debiasing.named_parameters())
    gradients = torch.autograd.grad(learner.meta_loss(batch), list(parameters.values()))
    width, largest = 1e-5, 0.0
    for (name, parameter), gradient in zip(parameters.items(), gradients, strict=True):
        for place in range(parameter.numel()):
            values = []
            for sign in (1.0, -1.0):
                with torch.no_grad():
                    parameter.view(-1)[place] += sign * width
                values.append(float(learner.meta_loss(batch).detach()))
                with torch.no_grad():
                    parameter.view(-1)[place] -= sign * width
            found = float(gradient.view(-1)[place])
            assert found == pytest.approx((values[0] - values[1]) / (2 * width), rel=1e-4, abs=1e-9), (name, place)
            largest = max(largest, abs(found))
    assert largest > 1e-3


def training_loss_by_hand(learner: MetaLearner, batch: Batch) -> float:
    """L_T's share of the batch, in numpy."""
    phi = {name: value.detach().numpy() for name, value in learner.debiasing.named_parameters()}
    rated = batch.rated

    def weight(part: str, rows: torch.Tensor, columns: torch.Tensor, kinds: np.ndarray) -> np.ndarray:
        return np.exp((phi[f"{part}.user"][rows] + phi[f"{part}.item"][columns] + phi[f"{part}.kind"][kinds]) / 5.0)

    def predicted(rows: torch.Tensor, columns: torch.Tensor) -> np.ndarray:
        head = {name: value.detach().numpy() for name, value in learner.head.named_parameters()}
        taste = (head["user.weight"][rows] * head["item.weight"][columns]).sum(axis=1)
        offsets = head["user_offset.weight"][rows, 0] + head["item_offset.weight"][columns, 0]
        return head["mean"] + offsets + taste

    levels = (rated.ratings.numpy() - 1).astype(int)
    on_rated = weight("rated", rated.rows, rated.columns, levels) * np.square(
        predicted(rated.rows, rated.columns) - rated.ratings.numpy()
    )
    kinds = batch.drawn_kinds.numpy()
    imputed = 3.0 + 2.0 * np.tanh(phi["squashed"][kinds])
    on_all = weight("all", batch.rows, batch.columns, (kinds < 5).astype(int)) * np.square(
        predicted(batch.rows, batch.columns) - imputed
    )
    norm = sum(float(p.detach().square().sum()) for p in learner.parameters.values())
    method, n = learner.method, len(learner.rated)
    return float(on_rated.sum() + method.imputation * 20 * on_all.mean() + method.reg * 20 / n * norm)


def test_the_training_loss_by_hand() -> None:
    learner, batch = precise_learner(imputation=0.7, reg=2.0)
    found = float(learner.training_loss(batch).detach())
    assert found == pytest.approx(training_loss_by_hand(learner, batch))


def test_a_step_is_the_gradient_times_the_step_of_its_row() -> None:
    learner, batch = precise_learner(learning_rate=0.3)
    after = learner.look_ahead(batch, through=False)
    table = learner.head.user.weight
    before, start, width = table.detach().clone(), {}, 1e-6
    for place in ((1, 0), (3, 1)):
        for sign in (1.0, -1.0):
            with torch.no_grad():
                table[place] = before[place] + sign * width
            start[sign] = training_loss_by_hand(learner, batch)
            with torch.no_grad():
                table[place] = before[place]
        slope = (start[1.0] - start[-1.0]) / (2 * width)
        # A user meets 20 n_u / n rated and 20 / 8 drawn cells in a batch of 20.
        count = np.bincount(learner.rated.rows, minlength=8)[place[0]]
        step = 0.3 / (1.0 + 20 * count / len(learner.rated) + 20 / 8)
        assert float(after["user.weight"].detach()[place]) == pytest.approx(
            float(before[place]) - step * slope, rel=1e-6
        )


def test_an_epoch_moves_predictions_and_debiasing_but_not_the_mean() -> None:
    learner = AutoDebias()._make_learner(star_split(labels=True), 0)
    assert isinstance(learner, MetaLearner)
    before = [{k: v.clone() for k, v in module.state_dict().items()} for module in (learner.head, learner.debiasing)]
    assert np.isfinite(learner.run_epoch(0))
    for module, old in zip((learner.head, learner.debiasing), before, strict=True):
        for name, value in module.state_dict().items():
            assert torch.equal(value, old[name]) == (name == "mean"), name


def test_kinds_of_cells() -> None:
    log = log_of([[1.0, np.nan, 3.0], [np.nan, 2.0, np.nan]])
    known = KnownCells.of_log(log)
    np.testing.assert_array_equal(known.kind_of(np.arange(6)), [0, 3, 2, 3, 1, 3])
    np.testing.assert_array_equal(known.values, [1.0, 2.0, 3.0])


def test_a_real_scale_has_five_kinds() -> None:
    log = log_of([[0.0, 19.0, np.nan], [20.0, 55.0, 100.0]], RatingScale(0.0, 100.0))
    known = KnownCells.of_log(log)
    np.testing.assert_array_equal(known.kind_of(np.arange(6)), [0, 0, 5, 1, 2, 4])
    np.testing.assert_allclose(known.values, [10.0, 30.0, 50.0, 70.0, 90.0])


def test_imputed_ratings_start_at_the_levels_and_the_level_of_the_labels_inside_the_scale() -> None:
    log = log_of(random_matrix(5, 4, levels=5), RatingScale(1, 5, 1))
    debiasing = Debiasing((5, 4), log, np.array([1.0, 2.0, 3.0, 4.0, 5.0, 1.7]))
    found = debiasing.imputed(torch.arange(6)).detach()
    torch.testing.assert_close(found, torch.tensor([1.2, 2.0, 3.0, 4.0, 4.8, 1.7]))


def test_labels_are_needed_and_counted() -> None:
    with pytest.raises(DataError, match="autodebias needs randomly collected ratings"):
        AutoDebias().fit(star_split(), seed=0)
    split = star_split(20, 15, labels=True)
    model = AutoDebias().fit(split, seed=0)
    assert model.needs_labels
    assert model.n_labels == split.n_labels
    with pytest.raises(ConfigError, match="imputation must be a number above 0"):
        AutoDebias(imputation=0.0)


@pytest.mark.slow
def test_finds_the_hidden_level_and_beats_inverse_propensities_alone() -> None:
    simulation, _ = selected("r3-like")
    model, plain = AutoDebias(), MfIps(propensity="naive_bayes", learning_rate=0.03)
    assert error_on_test(model, simulation, labels=True) < error_on_test(plain, simulation, labels=True)
    test = simulation.test
    bias = predict_pairs(model._learner.head, test.rows, test.items).mean() - test.ratings.mean()
    assert simulation.train.ratings.mean() - test.ratings.mean() > 1.0
    assert abs(bias) < 0.2
