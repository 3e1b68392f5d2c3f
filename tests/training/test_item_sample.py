"""Sampled items: known probabilities, and in expectation the exact log w and its exact gradient."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from factories import log_of, random_matrix
from numpy.typing import NDArray
from torch import Tensor

from mnar_recsys.config import Settings
from mnar_recsys.data import FeatureTable, RatingLog
from mnar_recsys.data.eligible import EligibleCells
from mnar_recsys.errors import ConfigError
from mnar_recsys.model.batch import make_batch
from mnar_recsys.model.build import build_model
from mnar_recsys.training import Trainer
from mnar_recsys.training.item_sample import ItemSampler, inclusion_probabilities, with_rated

SMALL = {
    "latent_size": 2, "embedding_size": 4, "code_size": 8, "samples": 1, "batch_size": 16, "device": "cpu",
    "stop": "never", "item_weights": "point", "weight_prior_sd": None, "bias_prior_sd": None, "gradient_clip": 1e6,
    "average_decay": 0, "proposal": "encoder",
}  # fmt: skip
COUNTS = np.array([0, 3, 40, 3, 1, 9, 0, 22, 5, 300])


@pytest.fixture(scope="module")
def log() -> RatingLog:
    matrix = random_matrix(16, 9, seed=3, density=0.3)
    matrix[0, 2] = 1.0
    rng = np.random.default_rng(0)
    return log_of(matrix).with_features(item_features=FeatureTable.from_array(rng.normal(size=(9, 2))))


def trainer_of(log: RatingLog, **changes: Any) -> Trainer:
    settings = Settings().replace(SMALL | changes)
    return Trainer(build_model(settings.model, log, 1), log, settings, seed=0)


def all_samples(counts: NDArray[np.int64], size: int) -> list[tuple[float, NDArray[np.int64], NDArray[np.float32]]]:
    """Return every sample that can occur, with its probability: samples change where u passes a boundary."""
    sampler = ItemSampler(counts, size)
    ordered = inclusion_probabilities(counts, size)[np.argsort(-counts, kind="stable")]
    edges = np.unique(np.concatenate([[0.0, 1.0], np.cumsum(ordered) % 1]))
    return [(b - a, *sampler.draw((a + b) / 2)) for a, b in pairwise(edges)]


@pytest.mark.parametrize("size", [1, 2, 5, 9])
def test_every_item_is_drawn_as_often_as_its_probability_says(size: int) -> None:
    probabilities = inclusion_probabilities(COUNTS, size)
    assert probabilities.sum() == pytest.approx(size)
    assert probabilities.min() > 0
    assert probabilities.max() <= 1
    frequency, weighted = np.zeros(len(COUNTS)), np.zeros(len(COUNTS))
    for share, items, weights in all_samples(COUNTS, size):
        assert len(np.unique(items)) == len(items) == size
        np.add.at(frequency, items, share)
        np.add.at(weighted, items, share * weights)
    np.testing.assert_allclose(frequency, probabilities, atol=1e-7)
    np.testing.assert_allclose(weighted, 1, atol=1e-6)


def test_popular_items_are_certain_and_weights_are_bounded() -> None:
    probabilities = inclusion_probabilities(COUNTS, 5)
    assert probabilities[9] == 1
    assert (np.diff(probabilities[np.argsort(COUNTS, kind="stable")]) >= 0).all()
    assert (1 / probabilities).max() <= 2 * len(COUNTS) / 5 + 1e-9
    np.testing.assert_array_equal(inclusion_probabilities(COUNTS, 10), 1)
    np.testing.assert_array_equal(ItemSampler(COUNTS, 99).draw(0.3)[0], np.arange(10))


def test_rated_items_join_with_weight_0() -> None:
    samples = (
        (np.array([1, 5, 8]), np.array([2, 3, 4], dtype=np.float32)),
        (np.array([2]), np.ones(1, dtype=np.float32)),
    )
    items, weights = with_rated(np.array([7, 2, 2, 5]), *samples)
    np.testing.assert_array_equal(items, [1, 2, 5, 7, 8])
    np.testing.assert_array_equal(weights[0], [2, 0, 3, 0, 4])
    np.testing.assert_array_equal(weights[1], [0, 1, 0, 0, 0])


@pytest.mark.parametrize(
    "changes",
    [
        {"decoder": "ordinal", "exposure_sees_taste": True},
        {"decoder": "categorical", "exposure_size": 0, "user_activity": False},
        {"decoder": "gaussian", "missing": "per-item", "gaussian_variance": "per-item", "sign": "free"},
        {"decoder": "gaussian", "missing": "ignorable", "exposure_size": 0, "user_activity": False},
        {"decoder": "ordinal", "missing": "ignorable"},
    ],
)
def test_log_w_and_its_gradient_are_exact_in_expectation(log: RatingLog, changes: dict[str, Any]) -> None:
    """With S = 1 the bound is log w, so its gradient is unbiased as well; averaged here over all samples."""
    whole, some = trainer_of(log, sampled_items="all", **changes), trainer_of(log, sampled_items=3, **changes)
    counts = np.bincount(log.items, minlength=log.n_items)
    exact = _gradients(whole, None)
    expected: dict[str, Tensor] = {}
    loss = 0.0
    for share, items, weights in all_samples(counts, 3):
        found, gradients = _gradients(some, (items, weights))
        loss += share * found
        for name, gradient in gradients.items():
            expected[name] = expected.get(name, torch.zeros(())) + share * gradient
    assert loss == pytest.approx(exact[0], rel=1e-5)
    assert expected.keys() == exact[1].keys()
    for name, gradient in exact[1].items():
        torch.testing.assert_close(expected[name], gradient, rtol=1e-3, atol=1e-5, msg=name)


def test_drawn_cells_are_those_on_offer(log: RatingLog) -> None:
    dense = np.random.default_rng(1).random((log.n_users, log.n_items)) < 0.5
    dense.flat[log.cells] = True
    some = replace(log, eligible=EligibleCells.from_cells(np.flatnonzero(dense), *dense.shape))
    batch = make_batch(some, np.arange(5))
    items, drawn, weights = torch.arange(1, 9), torch.tensor([2, 4, 7]), torch.zeros(8)
    rated_0 = batch.items == 0
    if rated_0.any():
        items, weights = torch.arange(9), torch.zeros(9)
    weights[torch.searchsorted(items, drawn)] = torch.tensor([2.0, 3.0, 4.0])
    found = batch.among(items, weights).unrated(len(items))
    torch.testing.assert_close(found, batch.unrated(log.n_items)[:, drawn] * torch.tensor([2.0, 3.0, 4.0]))


def _gradients(
    trainer: Trainer, drawn: tuple[NDArray[np.int64], NDArray[np.float32]] | None
) -> tuple[float, dict[str, Tensor]]:
    for optimizer in trainer.stepper.optimizers:
        optimizer.zero_grad(set_to_none=True)
    batch = make_batch(trainer.log, trainer._batch(0))
    found, _ = trainer.stepper.differentiate(0, batch, None if drawn is None else (drawn, drawn))
    gradients = {
        name: p.grad.to_dense() if p.grad.is_sparse else p.grad.clone()
        for name, p in trainer.model.named_parameters()
        if p.grad is not None
    }
    return float(found.loss.detach()), gradients


def test_all_items_drawn_is_training_on_all(log: RatingLog) -> None:
    """The lazy optimiser differs from the whole one in where it adds epsilon only."""
    priors = {"weight_prior_sd": 0.5, "bias_prior_sd": 0.5, "max_steps": 10, "samples": 4}
    whole, some = (trainer_of(log, sampled_items=setting, **priors) for setting in ("all", 18))
    for trainer in (whole, some):
        trainer.run()
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(some.model.state_dict()[name], value, rtol=2e-3, atol=1e-4, msg=name)


def test_a_step_leaves_the_rows_of_other_items_alone(log: RatingLog) -> None:
    no_features = replace(log, item_features=None)
    trainer = trainer_of(no_features, sampled_items=2, batch_size=1, max_steps=1)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    rated = set(make_batch(no_features, trainer._batch(0)).items.tolist())
    trainer.run()
    moved = (trainer.model.decoder.weight != before["decoder.weight"]).any(-1).any(0).nonzero().flatten().tolist()
    assert rated <= set(moved)
    assert len(moved) <= len(rated) + 2 < no_features.n_items


def test_settings_that_need_all_items_refuse_a_sample(log: RatingLog) -> None:
    with pytest.raises(ConfigError, match="sampled_items needs item_weights='point'"):
        trainer_of(log, sampled_items=3, item_weights="variational")
    with pytest.raises(ConfigError, match="no population_marginal"):
        trainer_of(log, sampled_items=3, population_marginal=(0.2, 0.3, 0.5))
    assert trainer_of(log).stepper.sampler is None
