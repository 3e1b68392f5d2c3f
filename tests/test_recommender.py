"""The façade: four statements, resuming, model folders, new users, and properties of predictions."""

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from factories import log_of, random_matrix
from hypothesis import given, settings
from hypothesis import strategies as st

from mnar_recsys import MNARRecommender, RatingLog
from mnar_recsys.data import FeatureTable, RatingScale
from mnar_recsys.errors import ConfigError, DataError, ModelFolderError, NotFittedError
from mnar_recsys.prediction.cells import RATED, UNRATED
from mnar_recsys.training import BoundTerms, Trainer

SMALL: dict[str, Any] = {
    "inference": "variational",
    "latent_size": 2,
    "embedding_size": 4,
    "code_size": 8,
    "samples": 4,
    "batch_size": 16,
    "validation_samples": 10,
    "evaluate_every": 5,
    "max_steps": 20,
    "device": "cpu",
}
MATRIX = random_matrix(50, 8, seed=5, density=0.4)
MATRIX[:, 7] = np.nan  # an item that nobody rated


@pytest.fixture(scope="module")
def log() -> RatingLog:
    return log_of(MATRIX)


@pytest.fixture(scope="module")
def fitted(log: RatingLog) -> MNARRecommender:
    return MNARRecommender(**SMALL).fit(log, seed=0)


@pytest.fixture(scope="module")
def gaussian() -> MNARRecommender:
    log = log_of(random_matrix(50, 8, seed=5, density=0.4, levels=5), RatingScale(1, 5))
    return MNARRecommender(decoder="gaussian", **SMALL).fit(log, seed=0)


def weights(model: MNARRecommender) -> dict[str, torch.Tensor]:
    return model.fitted.model.state_dict()


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_four_statements_from_file_to_predictions(tmp_path: Path, log: RatingLog) -> None:
    path = tmp_path / "ratings.csv"
    log.to_pandas().to_csv(path, index=False)
    ratings = RatingLog.read_csv(path)
    model = MNARRecommender(**SMALL).fit(ratings, seed=0)
    users, items = np.array(["u0001", "u0002"], dtype=object), np.array([0, 3])
    mean = model.predict(users, items)
    low, high = model.predict_quantiles(users, items, (0.05, 0.95))
    assert mean.shape == low.shape == high.shape == (2,)
    assert ((mean >= 1) & (mean <= 3) & (low <= high)).all()


def test_ids_may_be_plain_lists_and_pairs_may_be_none(fitted: MNARRecommender) -> None:
    assert fitted.predict(["u0001"], [0]).shape == (1,)
    assert fitted.predict(np.array([], dtype=object), np.array([], dtype=int)).shape == (0,)
    empty = fitted.predict_full(
        np.array([], dtype=object), np.array([], dtype=int), probabilities=(0.1, 0.9), levels=True
    )
    assert empty.quantiles.shape == (2, 0)
    assert empty.levels is not None
    assert empty.levels.shape == (0, 3)


def test_what_is_not_in_the_log_is_cold(fitted: MNARRecommender) -> None:
    users = np.array(["u0001", "u0000", "nobody", "u0001", "u0001"], dtype=object)
    found = fitted.predict_full(users, [0, 0, 0, 7, 99])
    assert found.cold.tolist() == [False, True, True, True, True]
    # Someone without ratings and someone unheard of are the same to the model.
    assert found.mean[1] == found.mean[2]


def test_bad_requests_are_refused(fitted: MNARRecommender, gaussian: MNARRecommender) -> None:
    with pytest.raises(NotFittedError, match="fit"):
        MNARRecommender().predict(["u0001"], [0])
    with pytest.raises(DataError, match="users"):
        fitted.predict(["u0001", "u0002"], [0])
    with pytest.raises(DataError):
        fitted.predict([1], [0])  # the log's users are text
    for probability in (0.0, 1.0, -1.0, np.nan):
        with pytest.raises(ConfigError, match="probabilities"):
            fitted.predict_quantiles(["u0001"], [0], (probability,))
    with pytest.raises(ConfigError, match="levels"):
        gaussian.predict_levels(["u0001"], [0])
    with pytest.raises(ConfigError, match="unknown setting"):
        MNARRecommender(latent=3)
    for settings_ in ({"decoder": "categorical"}, {"decoder": "ordinal"}, {"missing": "per-level"}):
        with pytest.raises(ConfigError, match="needs rating levels"):
            MNARRecommender(**{"decoder": "gaussian"} | settings_).fit(gaussian.fitted.log)


def interrupt_at(step: int) -> Any:
    def on_step(trainer: Trainer, _: BoundTerms) -> None:
        if trainer.progress.step == step:
            raise KeyboardInterrupt

    return on_step


def compare_with_uninterrupted(folder: Path, log: RatingLog, model: MNARRecommender, step: int) -> None:
    whole = type(model)(model.settings).fit(log, seed=3)
    with pytest.raises(KeyboardInterrupt):
        model.fit(log, seed=3, folder=folder, on_step=interrupt_at(step))
    assert not MNARRecommender.load(folder).fitted.finished  # a checkpoint is a model
    steps: list[int] = []
    resumed = type(model)(model.settings).fit(
        log, seed=3, folder=folder, resume=True, on_step=lambda at, _: steps.append(at.progress.step)
    )
    assert steps[0] == step // 5 * 5 + 1
    assert same(weights(resumed), weights(whole))
    pd.testing.assert_frame_equal(pd.DataFrame(resumed.fitted.history), pd.DataFrame(whole.fitted.history))
    loaded = MNARRecommender.load(folder)
    assert same(weights(loaded), weights(whole))
    assert loaded.fitted.finished


@pytest.mark.parametrize("decoder", ["ordinal", "categorical", "gaussian"])
@pytest.mark.parametrize("estimator", ["marginal", "sampled"])
def test_an_interrupted_run_resumes_bit_for_bit(tmp_path: Path, log: RatingLog, decoder: str, estimator: str) -> None:
    model = MNARRecommender(decoder=decoder, estimator=estimator, **SMALL)
    compare_with_uninterrupted(tmp_path / "model", log, model, 13)


def test_a_run_on_sampled_items_resumes_bit_for_bit(tmp_path: Path, log: RatingLog) -> None:
    model = MNARRecommender(item_weights="point", sampled_items=4, **SMALL)
    compare_with_uninterrupted(tmp_path / "model", log, model, 13)


def test_resume_after_a_cut_of_the_rate(tmp_path: Path, log: RatingLog) -> None:
    changes = SMALL | {"learning_rate": 0.5, "patience": 1, "rate_cuts": 5, "max_steps": 60, "stop": "held-out"}
    model = MNARRecommender(**changes)
    whole = MNARRecommender(**changes).fit(log, seed=3)
    rates = [row["learning_rate"] for row in whole.fitted.history]
    cut = int(whole.fitted.history[int(np.flatnonzero(np.diff(rates))[0])]["step"])
    compare_with_uninterrupted(tmp_path / "model", log, model, cut + 2)


@pytest.mark.usefixtures("two_threads")
def test_resume_is_bit_for_bit_on_two_threads(tmp_path: Path) -> None:
    # Large enough that the kernels do split their work over threads.
    log = log_of(random_matrix(60, 300, seed=6, density=0.1))
    changes = SMALL | {"latent_size": 8, "embedding_size": 16, "code_size": 32, "batch_size": 48, "max_steps": 7}
    compare_with_uninterrupted(tmp_path / "model", log, MNARRecommender(**changes), 6)


def test_a_killed_run_leaves_a_model_that_loads_and_resumes(tmp_path: Path, log: RatingLog) -> None:
    csv, folder = tmp_path / "ratings.csv", tmp_path / "model"
    log.to_pandas().to_csv(csv, index=False)
    script = f"""
import os, signal
from mnar_recsys import MNARRecommender, RatingLog
def kill(trainer, terms):
    if trainer.progress.step == 13:
        os.kill(os.getpid(), signal.SIGKILL)
MNARRecommender(**{SMALL!r}).fit(RatingLog.read_csv({str(csv)!r}), seed=3, folder={str(folder)!r}, on_step=kill)
"""
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    ratings = RatingLog.read_csv(csv)
    assert MNARRecommender.load(folder).predict(ratings.users.ids[:1], ratings.catalogue.ids[:1]).shape == (1,)
    resumed = MNARRecommender(**SMALL).fit(ratings, seed=3, folder=folder, resume=True)
    assert same(weights(resumed), weights(MNARRecommender(**SMALL).fit(ratings, seed=3)))


def test_resume_refuses_another_run(tmp_path: Path, log: RatingLog) -> None:
    folder = tmp_path / "model"
    with pytest.raises(ModelFolderError):
        MNARRecommender(**SMALL).fit(log, folder=folder, resume=True)
    with pytest.raises(KeyboardInterrupt):
        MNARRecommender(**SMALL).fit(log, seed=0, folder=folder, on_step=interrupt_at(7))
    other_log = log_of(random_matrix(50, 8, seed=6))
    for model, ratings, seed in (
        (MNARRecommender(**SMALL), log, 1),
        (MNARRecommender(**SMALL | {"samples": 5}), log, 0),
        (MNARRecommender(**SMALL), other_log, 0),
    ):
        with pytest.raises(ModelFolderError, match="other ratings, settings or seed"):
            model.fit(ratings, seed=seed, folder=folder, resume=True)
    with pytest.raises(ModelFolderError, match="not empty"):
        MNARRecommender(**SMALL).fit(log, folder=folder)


def test_resuming_a_finished_run_gives_its_model(tmp_path: Path, log: RatingLog, fitted: MNARRecommender) -> None:
    folder = tmp_path / "model"
    MNARRecommender(**SMALL).fit(log, seed=0, folder=folder)
    again = MNARRecommender(**SMALL).fit(log, seed=0, folder=folder, resume=True)
    assert same(weights(again), weights(fitted))
    with pytest.raises(ModelFolderError, match="no checkpoint"):
        MNARRecommender(**SMALL).fit(log, seed=1, folder=folder, resume=True)


@pytest.mark.parametrize("which", ["fitted", "gaussian"])
def test_a_loaded_model_predicts_the_same(tmp_path: Path, request: pytest.FixtureRequest, which: str) -> None:
    model: MNARRecommender = request.getfixturevalue(which)
    model.save(tmp_path / "model")
    loaded = MNARRecommender.load(tmp_path / "model")
    ids = model.fitted.log.users.ids[:6], model.fitted.log.catalogue.ids[:6]
    assert loaded.settings == model.fitted.settings
    for name in ("mean", "sd", "mean_se", "propensity", "cold", "ess"):
        np.testing.assert_array_equal(getattr(loaded.predict_full(*ids), name), getattr(model.predict_full(*ids), name))
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert names == {
        "config.json", "weights.safetensors", "vocab.parquet", "ratings.parquet", "history.csv", "card.md"
    }  # fmt: skip


@pytest.mark.parametrize("name", ["config.json", "weights.safetensors", "vocab.parquet", "ratings.parquet"])
def test_a_damaged_folder_is_named_in_one_line(tmp_path: Path, fitted: MNARRecommender, name: str) -> None:
    folder = tmp_path / "model"
    fitted.save(folder)
    content = (folder / name).read_bytes()
    for damage in (b"", b"{}", content[: len(content) // 2], content[:-9]):
        (folder / name).write_bytes(damage)
        with pytest.raises(ModelFolderError) as caught:
            MNARRecommender.load(folder)
        assert str(folder) in str(caught.value)
        assert "\n" not in str(caught.value)
    (folder / name).unlink()
    with pytest.raises(ModelFolderError, match=name):
        MNARRecommender.load(folder)


def test_parts_of_two_models_do_not_load_as_one(tmp_path: Path, log: RatingLog, fitted: MNARRecommender) -> None:
    fitted.save(tmp_path / "one")
    MNARRecommender(**SMALL).fit(log, seed=1).save(tmp_path / "two")
    (tmp_path / "one" / "weights.safetensors").replace(tmp_path / "two" / "weights.safetensors")
    with pytest.raises(ModelFolderError, match="another model"):
        MNARRecommender.load(tmp_path / "two")
    config = json.loads((tmp_path / "two" / "config.json").read_text())
    config["seed"] = 5
    (tmp_path / "two" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelFolderError, match="do not belong together"):
        MNARRecommender.load(tmp_path / "two")


def test_new_users_need_no_training(fitted: MNARRecommender) -> None:
    # The row of u0003, given by a stranger: same items, same answers.
    row = MATRIX[3]
    given_items = np.flatnonzero(~np.isnan(row))
    newcomers = RatingLog.from_arrays(
        np.array(["stranger"] * len(given_items), dtype=object),
        given_items,
        row[given_items],
        scale=fitted.fitted.log.scale,
        user_ids=np.array(["stranger"], dtype=object),
        catalogue=np.arange(8),
    )
    known = fitted.predict(["u0003"] * 8, np.arange(8))
    new = fitted.condition_on(newcomers).predict(["stranger"] * 8, np.arange(8))
    np.testing.assert_allclose(new, known, rtol=1e-5)
    assert same(weights(fitted.condition_on(newcomers)), weights(fitted))
    with pytest.raises(DataError, match="scale"):
        fitted.condition_on(log_of([[1, 5], [2, 3]], RatingScale(1, 5, 1)))


pairs = st.lists(
    st.tuples(st.sampled_from([f"u{user:04d}" for user in range(6)] + ["nobody"]), st.integers(0, 9)),
    min_size=1,
    max_size=12,
)


@pytest.mark.parametrize("which", ["fitted", "gaussian"])
def test_predictions_are_distributions_on_the_scale(request: pytest.FixtureRequest, which: str) -> None:
    model: MNARRecommender = request.getfixturevalue(which)
    scale = model.fitted.log.scale
    probabilities = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)

    @settings(max_examples=25, deadline=None)
    @given(asked=pairs)
    def check(asked: list[tuple[str, int]]) -> None:
        users, items = np.array([user for user, _ in asked], dtype=object), np.array([item for _, item in asked])
        found = model.predict_full(users, items, probabilities=probabilities, levels=scale.levels is not None)
        assert ((found.mean >= scale.low) & (found.mean <= scale.high)).all()
        assert ((found.quantiles >= scale.low) & (found.quantiles <= scale.high)).all()
        assert (np.diff(found.quantiles, axis=0) >= 0).all()
        assert ((found.propensity > 0) & (found.propensity < 1)).all()
        assert (found.sd > 0).all()
        assert (found.mean_se <= found.sd + 1e-5).all()  # the spread of the mean is part of the spread
        assert ((found.ess >= 1 - 1e-3) & (found.ess <= model.predictor.n_draws + 0.1)).all()
        if found.levels is not None:
            np.testing.assert_allclose(found.levels.sum(1), 1, rtol=1e-5)
            np.testing.assert_allclose(found.levels @ scale.levels, found.mean, rtol=1e-4)
            assert np.isin(found.quantiles, scale.levels).all()

    check()


@pytest.mark.parametrize("which", ["fitted", "gaussian"])
def test_a_prediction_depends_on_neither_order_nor_company(request: pytest.FixtureRequest, which: str) -> None:
    model: MNARRecommender = request.getfixturevalue(which)

    @settings(max_examples=15, deadline=None)
    @given(asked=pairs, seed=st.integers(0, 100))
    def check(asked: list[tuple[str, int]], seed: int) -> None:
        users, items = np.array([user for user, _ in asked], dtype=object), np.array([item for _, item in asked])
        together = model.predict_full(users, items, probabilities=(0.3,))
        order = np.random.default_rng(seed).permutation(len(asked))
        shuffled = model.predict_full(users[order], items[order], probabilities=(0.3,))
        first = model.predict_full(users[:1], items[:1], probabilities=(0.3,))
        for name in ("mean", "sd", "mean_se", "quantiles", "propensity", "ess"):
            np.testing.assert_allclose(
                getattr(shuffled, name), getattr(together, name)[..., order], rtol=1e-4, atol=1e-5
            )
            np.testing.assert_allclose(getattr(first, name), getattr(together, name)[..., :1], rtol=1e-4, atol=1e-5)

    check()


def test_labels_are_fitted_kept_and_known_to_the_loaded_model(
    tmp_path: Path, log: RatingLog, fitted: MNARRecommender
) -> None:
    labels = log_of(random_matrix(50, 8, seed=6, density=0.1))
    folder = tmp_path / "model"
    model = MNARRecommender(**SMALL).fit(log, labels=labels, seed=0, folder=folder)
    assert model.fitted.log.n_ratings > log.n_ratings
    assert not same(weights(model), weights(fitted))
    loaded = MNARRecommender.load(folder)
    np.testing.assert_array_equal(loaded.fitted.log.surveyed, model.fitted.log.surveyed)
    users, items = labels.users.take(labels.rows), labels.catalogue.take(labels.items)
    np.testing.assert_array_equal(loaded.predict(users, items), model.predict(users, items))
    again = MNARRecommender(**SMALL).fit(log, labels=labels, seed=0, folder=folder, resume=True)
    assert same(weights(again), weights(model))
    with pytest.raises(ModelFolderError, match="no checkpoint"):  # the same ratings, but not the same labels
        MNARRecommender(**SMALL).fit(log, seed=0, folder=folder, resume=True)
    assert "randomly collected ratings (MCAR labels)" in (folder / "card.md").read_text(encoding="utf-8")


def test_a_label_tells_of_its_person_but_its_cell_was_not_rated_by_choice(log: RatingLog) -> None:
    labels = log_of(random_matrix(50, 8, seed=6, density=0.1))
    model = MNARRecommender(**SMALL).fit(log, labels=labels, seed=0)
    both = model.fitted.log
    place = int(np.flatnonzero(both.surveyed)[0])
    user, item = both.users.ids[both.rows[place]], both.catalogue.ids[both.items[place]]
    changed = both.ratings.copy()
    changed[place] = 4 - changed[place] if changed[place] != 2 else 3
    other = model.condition_on(replace(both, ratings=changed))
    elsewhere = np.setdiff1d(both.catalogue.ids, [item])
    assert not np.array_equal(model.predict([user] * 7, elsewhere), other.predict([user] * 7, elsewhere))
    # Its own cell is predicted as one that was not rated by choice.
    as_rated = model.condition_on(replace(both, surveyed=np.zeros(both.n_ratings, dtype=bool)))
    assert model.predictor._status(both.rows[[place]], both.items[[place]]) == UNRATED
    assert as_rated.predictor._status(both.rows[[place]], both.items[[place]]) == RATED


def test_features_are_fitted_and_kept_with_the_model(tmp_path: Path, log: RatingLog, fitted: MNARRecommender) -> None:
    rng = np.random.default_rng(0)
    known = log.with_features(
        user_features=FeatureTable(("age", "music=rock"), rng.normal(size=(50, 2))),
        item_features=FeatureTable.from_array(rng.normal(size=(8, 3))),
    )
    model = MNARRecommender(**SMALL).fit(known, seed=0, folder=tmp_path / "model")
    assert not same(weights(model), weights(fitted))
    loaded = MNARRecommender.load(tmp_path / "model")
    assert loaded.fitted.log.user_features.names == ("age", "music=rock")
    np.testing.assert_array_equal(loaded.predict(["u0001"] * 8, range(8)), model.predict(["u0001"] * 8, range(8)))
    deaf = MNARRecommender(**SMALL, side_information=False).fit(known, seed=0)
    assert same(weights(deaf), weights(fitted))
    (tmp_path / "model" / "user_features.parquet").unlink()
    with pytest.raises(ModelFolderError, match="do not belong together"):
        MNARRecommender.load(tmp_path / "model")
