"""The model inside RecBole: the same weights give the same numbers there and here."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from factories import log_of, random_matrix
from scipy import sparse

from baselines.recbole_models import recbole_fault
from evaluation.rating import mae, rmse
from mnar_recsys import MNARRecommender, RatingLog
from mnar_recsys.data import RatingScale, Split, split_ratings, write_inter_split
from mnar_recsys.errors import ConfigError, DataError

pytestmark = [pytest.mark.recbole, pytest.mark.filterwarnings("ignore")]
if (fault := recbole_fault()) is not None:
    pytest.skip(fault, allow_module_level=True)

from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.data.interaction import Interaction
from recbole.trainer import Trainer

from mnar_recsys.integrations.recbole_model import RecBoleMNAR, by_user
from mnar_recsys.integrations.recbole_model import log_of as log_of_dataset

SMALL: dict[str, Any] = {
    "inference": "variational",
    "latent_size": 2,
    "embedding_size": 4,
    "code_size": 8,
    "samples": 4,
    "batch_size": 20,
    "max_steps": 30,
    "evaluate_every": 10,
    "device": "cpu",
}
VALUES = {
    "eval_args": {"order": "RO", "group_by": None, "mode": "labeled"},
    "metrics": ["RMSE", "MAE"],
    "valid_metric": "RMSE",
}
Prepared = tuple[Any, Any, tuple[Any, Any, Any]]


@pytest.fixture(scope="module")
def split() -> Split:
    # Ids whose order as numbers, as text and in RecBole (by first appearance) all differ.
    rng = np.random.default_rng(0)
    # Two kinds of people who like two kinds of items: nothing that the means of items would know.
    matrix = 3 + 1.5 * np.outer(rng.choice([-1, 1], 60), rng.choice([-1, 1], 25)) + 0.4 * rng.normal(size=(60, 25))
    matrix = np.where(rng.random(matrix.shape) < 0.4, matrix.round().clip(1, 5), np.nan)
    log = log_of(matrix, RatingScale(1, 5, 1))
    users, items = 7 * rng.permutation(60) + 1, 13 * rng.permutation(25) + 2
    log = RatingLog.from_arrays(users[log.rows], items[log.items], log.ratings, scale="1,5")
    rest, test = split_ratings(log, 0.2, seed=0)
    train, valid = split_ratings(rest, 0.15, seed=1)
    return Split(mnar_train=train, mnar_valid=valid, mcar_test=test)


@pytest.fixture
def prepare(split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Prepared]]:
    """RecBole's configuration, data set and loaders; what it touches is put back."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", sys.argv[:1])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", os.environ.get("CUDA_VISIBLE_DEVICES", ""))
    names = set(vars(np))
    write_inter_split(split, tmp_path, "toy")

    def call(**changes: Any) -> Prepared:
        settings = {
            "data_path": str(tmp_path),
            "benchmark_filename": ["train", "valid", "test"],
            "load_col": {"inter": ["user_id", "item_id", "rating"]},
            "LABEL_FIELD": "rating",
            "train_neg_sample_args": None,
            "metric_decimal_place": 6,
            "gpu_id": "",
            "show_progress": False,
            "seed": 0,
            "mnar_scale": [1, 5],
            "mnar_settings": SMALL,
        }
        config = Config(model=RecBoleMNAR, dataset="toy", config_dict=settings | VALUES | changes)
        dataset = create_dataset(config)
        return config, dataset, data_preparation(config, dataset)

    yield call
    for name in set(vars(np)) - names:
        delattr(np, name)


def test_one_model_through_the_facade_through_recbole_and_through_implicit_agrees(
    split: Split, prepare: Callable[..., Prepared]
) -> None:
    fitted = MNARRecommender(**SMALL, missing="ignorable").fit(split.mnar_train, seed=0)
    config, dataset, (train, _, test) = prepare()
    model = RecBoleMNAR(config, train.dataset, fitted)

    # Every pair, by original id.
    users, items = split.mnar_train.users.ids, split.mnar_train.catalogue.ids
    pairs = np.repeat(users, len(items)), np.tile(items, len(users))
    inter = {
        field: torch.tensor([dataset.token2id(field, str(one)) for one in ids])
        for field, ids in zip(("user_id", "item_id"), pairs, strict=True)
    }
    ours = fitted.predict(*pairs)
    np.testing.assert_array_equal(model.predict(Interaction(inter)).numpy(), ours)

    # RecBole's Trainer and Evaluator, on the test.
    found = Trainer(config, model).evaluate(test, load_best_model=False)
    truth = split.mcar_test
    predicted = fitted.predict(truth.users.take(truth.rows), truth.catalogue.take(truth.items))
    assert found["rmse"] == pytest.approx(rmse(truth.ratings, predicted), abs=2e-6)
    assert found["mae"] == pytest.approx(mae(truth.ratings, predicted), abs=2e-6)

    # implicit's lists: those of the mean taste, so nearly those of the mean rating.
    rated = sparse.csr_matrix(split.mnar_train.to_scipy())
    found_items, _ = fitted.to_implicit().recommend(np.arange(len(users)), rated, N=3)
    mean = ours.reshape(len(users), -1)
    unrated = mean.copy()
    unrated[split.mnar_train.rows, split.mnar_train.items] = -np.inf
    best = np.argsort(-unrated, axis=1)[:, :3]
    lost = np.take_along_axis(mean, best, 1).mean() - np.take_along_axis(mean, found_items, 1).mean()
    assert 0 <= lost < 0.02


def test_it_trains_under_recboles_trainer_and_comes_home(
    split: Split, prepare: Callable[..., Prepared], tmp_path: Path
) -> None:
    config, _, (train, valid, test) = prepare(
        epochs=30, train_batch_size=20, learning_rate=0.05, clip_grad_norm={"max_norm": 10.0}
    )
    model = RecBoleMNAR(config, train.dataset)
    trainer = Trainer(config, model)
    before = trainer.evaluate(valid, load_best_model=False)["rmse"]
    trainer.fit(by_user(config, train), valid, saved=False, verbose=False)
    losses = list(trainer.train_loss_dict.values())
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    assert trainer.best_valid_score < 0.8 * before

    home = model.recommender
    home.save(tmp_path / "model")
    truth = split.mcar_test
    ids = truth.users.take(truth.rows), truth.catalogue.take(truth.items)
    mean = MNARRecommender.load(tmp_path / "model").predict(*ids)
    assert trainer.evaluate(test, load_best_model=False)["rmse"] == pytest.approx(rmse(truth.ratings, mean), abs=2e-6)


def test_the_log_is_the_one_that_our_reader_makes(split: Split, prepare: Callable[..., Prepared]) -> None:
    config, _, (train, _, _) = prepare()
    log, expected = log_of_dataset(config, train.dataset), split.mnar_train
    assert log.users == expected.users
    assert log.catalogue == expected.catalogue
    np.testing.assert_array_equal(log.cells, expected.cells)
    np.testing.assert_array_equal(log.ratings, expected.ratings)


def test_the_loss_is_ours_however_the_users_come(prepare: Callable[..., Prepared]) -> None:
    config, _, (train, _, _) = prepare()
    losses = []
    for users in ([3, 5, 9], [9, 3, 5, 5, 3], [0, 3, 5, 9]):  # repeated, in another order, with the padding
        model = RecBoleMNAR(config, train.dataset)
        losses.append(float(model.calculate_loss(Interaction({"user_id": torch.tensor(users)})).detach()))
    assert losses[0] == losses[1] == losses[2]
    padding = model.calculate_loss(Interaction({"user_id": torch.tensor([0])}))
    padding.backward()
    assert float(padding) == 0
    # The same users by our own step, with the same weights and noise.
    from mnar_recsys.model.batch import make_batch
    from mnar_recsys.training.step import Stepper
    from mnar_recsys.training.workers import join_workers

    fitted = RecBoleMNAR(config, train.dataset).recommender.fitted
    tokens = train.dataset.id2token("user_id", np.array([3, 5, 9])).astype(int)
    batch = make_batch(fitted.log, np.sort(fitted.log.users.index(tokens)))
    n_users = int((np.diff(fitted.log.indptr) > 0).sum())
    stepper = Stepper(fitted.model, fitted.log, fitted.settings, n_users=n_users, seed=0, workers=join_workers())
    assert losses[0] == float(stepper.loss(1, batch).loss.detach())


def test_full_sort_is_predict_of_all_items(prepare: Callable[..., Prepared]) -> None:
    config, dataset, (train, _, test) = prepare(
        eval_args={"order": "RO", "group_by": "user", "mode": "full"}, metrics=["NDCG"], topk=[5], valid_metric="NDCG@5"
    )
    model = RecBoleMNAR(config, train.dataset).eval()
    users = torch.tensor([4, 2])
    scores = model.full_sort_predict(Interaction({"user_id": users})).view(2, -1)
    items = torch.arange(1, dataset.item_num)
    for user, row in zip(users, scores, strict=True):
        pairs = Interaction({"user_id": user.repeat(len(items)), "item_id": items})
        torch.testing.assert_close(row[1:], model.predict(pairs), atol=1e-5, rtol=0)
        assert row[0] == 1
    assert 0 < Trainer(config, model).evaluate(test, load_best_model=False)["ndcg@5"] < 1


def test_what_cannot_be_is_refused(prepare: Callable[..., Prepared]) -> None:
    config, _, (train, _, _) = prepare(mnar_settings={"latent": 3})
    with pytest.raises(ConfigError, match="unknown setting 'latent'"):
        RecBoleMNAR(config, train.dataset)
    config, _, (train, _, _) = prepare(mnar_settings=SMALL | {"inference": "mcmc"})
    with pytest.raises(ConfigError, match="cannot sample"):
        RecBoleMNAR(config, train.dataset)
    config, _, (train, _, _) = prepare(LABEL_FIELD="label", threshold={"rating": 3})
    with pytest.raises(DataError, match="leave threshold unset"):
        RecBoleMNAR(config, train.dataset)
    named = log_of(random_matrix(30, 8, seed=1, density=0.5), RatingScale(1, 5, 1))
    other = MNARRecommender(**SMALL).fit(named, seed=0)
    config, _, (train, _, _) = prepare()
    assert RecBoleMNAR(config, train.dataset, other)._rows.max() == -1  # u0001 and 1 are not the same
