"""The benchmark's cells: what is kept, what is fitted again, what fails in the open, and who sees what."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from baselines.base import Baseline
from baselines.bias import BiasBaseline
from baselines.constant import ConstantMcar, ConstantTrain
from evaluation.benchmark import CellFit, Entry, fingerprint, fit_cell, read_cell, run_benchmark, write_cell
from evaluation.protocols import P1, P2
from evaluation.tables import mean_squared_errors, result_rows, summary_table
from evaluation.tuning import candidates, run_trial, tune
from mnar_recsys.data import Split
from mnar_recsys.data.simulate import simulate_ratings
from mnar_recsys.errors import DataError


@pytest.fixture(scope="module")
def split() -> Split:
    data = simulate_ratings("popularity", n_users=80, n_items=30, seed=0, ratings_per_user=8)
    return Split(mnar_train=data.train, mcar_labels=data.labels, mcar_test=data.test)


def fit(entry: Entry, split: Split, folder: Path, seed: int = 0) -> CellFit:
    test = split.mcar_test
    pairs = test.users.take(test.rows), test.catalogue.take(test.items)
    target = folder / f"{entry.name}.parquet"
    result = fit_cell(entry, split.for_training(), seed, pairs, target=target, digest="digest")
    assert isinstance(result, CellFit)
    return result


def test_cells_are_fitted_once_and_again_when_data_or_settings_change(split: Split, tmp_path: Path) -> None:
    entries = [Entry("constant_train", ConstantTrain), Entry("bias", BiasBaseline, {"user_shrinkage": 5.0})]
    calls: list[tuple[str, int, bool]] = []

    def run(entries: list[Entry], split: Split) -> list[CellFit]:
        calls.clear()
        fits, failures = run_benchmark(entries, split, [0, 1], tmp_path, on_cell=lambda *call: calls.append(call))
        assert not failures
        return fits

    first = run(entries, split)
    assert [(one.model, one.seed) for one in first] == [
        ("constant_train", 0), ("constant_train", 1), ("bias", 0), ("bias", 1)
    ]  # fmt: skip
    assert not any(kept for _, _, kept in calls)
    assert all(one.fit_seconds > 0 and 20 < one.peak_mb < 5000 for one in first)
    np.testing.assert_allclose(first[0].mean, split.mnar_train.ratings.mean())

    again = run(entries, split)
    assert all(kept for _, _, kept in calls)
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.mean, other.mean)
        assert one.fit_seconds == other.fit_seconds

    run([entries[0], Entry("bias", BiasBaseline, {"user_shrinkage": 6.0})], split)
    assert {(name, kept) for name, _, kept in calls} == {("constant_train", True), ("bias", False)}
    fewer = Split(mnar_train=split.mnar_train.select_ratings(np.arange(split.mnar_train.n_ratings) > 0),
                  mcar_labels=split.mcar_labels, mcar_test=split.mcar_test)  # fmt: skip
    run(entries, fewer)
    assert not any(kept for _, _, kept in calls)


class Spy(Baseline):
    """Fails if it is handed a test."""

    def _fit(self, split: Split, seed: int) -> None:  # noqa: ARG002
        assert split.mcar_test is None

    def _predict(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:  # noqa: ARG002
        return np.full(len(rows), 3.0)


def test_no_method_is_handed_the_test(split: Split, tmp_path: Path) -> None:
    (found,), _ = run_benchmark([Entry("spy", Spy)], split, [0], tmp_path)
    np.testing.assert_array_equal(found.mean, 3.0)
    assert np.isfinite(run_trial(Entry("spy", Spy), {}, split.for_training().hold_out(0.1, seed=0)).loss)


def test_a_row_says_how_many_labels_its_method_could_read(split: Split, tmp_path: Path) -> None:
    assert fit(Entry("constant_mcar", ConstantMcar), split, tmp_path).mcar_labels == split.n_labels > 0
    assert fit(Entry("constant_train", ConstantTrain), split, tmp_path).mcar_labels == 0


def test_a_method_that_cannot_be_fitted_fails_in_the_open(split: Split, tmp_path: Path) -> None:
    bare = Split(mnar_train=split.mnar_train, mcar_test=split.mcar_test)
    entries = [Entry("constant_mcar", ConstantMcar), Entry("constant_train", ConstantTrain)]
    fits, failures = run_benchmark(entries, bare, [0], tmp_path, jobs=2)
    assert [one.model for one in fits] == ["constant_train"]
    assert [failure.model for failure in failures] == ["constant_mcar"]
    assert "needs randomly collected ratings" in failures[0].reason


def test_a_benchmark_needs_a_test(split: Split, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no mcar_test"):
        run_benchmark([], split.for_training(), [0], tmp_path)


def test_other_pairs_than_the_test_can_be_predicted(split: Split, tmp_path: Path) -> None:
    log = split.mnar_train
    entries = [Entry("bias", BiasBaseline)]
    for users, items in (([0, 1], [2, 3]), ([1, 0], [2, 3])):
        pairs = log.users.take(np.array(users)), log.catalogue.take(np.array(items))
        (found,), _ = run_benchmark(entries, split.for_training(), [0], tmp_path, pairs=pairs)
        expected = BiasBaseline().fit(split.for_training(), seed=0).predict(*pairs)
        np.testing.assert_array_equal(found.mean, expected)


def test_cells_survive_the_disk_and_damaged_ones_are_fitted_again(tmp_path: Path) -> None:
    levels = np.random.default_rng(0).dirichlet(np.ones(3), size=4)
    cell = CellFit("m", 3, np.arange(4.0), levels, 7, 1.5, 200.0)
    path = tmp_path / "cell.parquet"
    write_cell(path, cell, "digest")
    found = read_cell(path, "digest")
    assert found is not None
    np.testing.assert_array_equal(found.mean, cell.mean)
    np.testing.assert_array_equal(found.levels, levels)
    assert (found.model, found.seed, found.mcar_labels, found.fit_seconds, found.peak_mb) == ("m", 3, 7, 1.5, 200.0)
    assert read_cell(path, "other") is None
    path.write_bytes(path.read_bytes()[:100])
    assert read_cell(path, "digest") is None
    assert read_cell(tmp_path / "absent.parquet", "digest") is None


class Ranker(Baseline):
    """Scores that are no ratings: ten times the mean rating of the item, less a hundred."""

    @property
    def predicts_ratings(self) -> bool:
        return False

    def _fit(self, split: Split, seed: int) -> None:
        self.inner = BiasBaseline().fit(split, seed=seed)

    def _predict(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float64]:
        return 10 * self.inner._predict(rows, columns) - 100


def test_a_method_that_only_ranks_has_ranks_and_no_errors(split: Split, tmp_path: Path) -> None:
    entries = [Entry("ranker", Ranker), Entry("bias", BiasBaseline)]
    fits = [fit(entry, split, tmp_path) for entry in entries]
    assert fits[0].mean.max() < 0  # not clipped to the scale
    kept = read_cell(tmp_path / "ranker.parquet", "digest")
    assert kept is not None
    assert not kept.predicts_ratings
    rows = result_rows(fits, split, P2)
    of = {name: part.set_index(["cells", "metric"])["value"] for name, part in rows.groupby("model")}
    ranks = list(of["ranker"].index)
    assert {metric for _, metric in ranks} == {metric for metric in P2.metrics if metric != "mse_label"}
    # The order is that of the other's predictions, so far as these are not clipped.
    for key in ranks:
        assert of["ranker"][key] == pytest.approx(of["bias"][key], abs=0.02)
    table = summary_table(fits, rows, split, P2)
    assert table["model"].tolist() == ["bias", "ranker"]
    assert table["MSE"].tolist()[1] == table["MSE, unseen cells"].tolist()[1] == "-"
    assert list(mean_squared_errors(fits, split)) == ["bias"]
    alone = summary_table(fits[:1], result_rows(fits[:1], split, P1), split, P1)  # P1 has nothing that it could say
    assert alone["model"].tolist() == ["ranker"]


def test_the_fingerprint_sees_ratings_roles_and_features(split: Split) -> None:
    assert fingerprint(split) == fingerprint(Split(split.mnar_train, None, split.mcar_labels, split.mcar_test))
    assert fingerprint(split) != fingerprint(split.for_training())
    changed = split.mnar_train.ratings.copy()
    changed[0] = 6.0 - changed[0]
    other = replace(split.mnar_train, ratings=changed)
    assert fingerprint(Split(other, None, split.mcar_labels, split.mcar_test)) != fingerprint(split)


def test_candidates_begin_with_the_defaults_and_keep_the_budget() -> None:
    space = {"size": (4, 8, 16), "rate": (0.1, 0.01)}
    everything = candidates(space, 50)
    assert everything[0] == {}
    assert len(everything) == 7
    assert {"size": 8, "rate": 0.01} in everything
    few = candidates(space, 4, seed=1)
    assert len(few) == 4
    assert few[0] == {}
    assert all(setting in everything for setting in few)
    assert few == candidates(space, 4, seed=1)
    assert candidates({}, 10) == [{}]


def test_tuning_finds_the_best_trial_and_keeps_trials(split: Split, tmp_path: Path) -> None:
    space = {"user_shrinkage": (1.0, 1e6), "item_shrinkage": (1.0, 1e6)}
    entries = {"bias": (Entry("bias", BiasBaseline), space)}
    tried: list[str] = []
    trials = tune(entries, split, tmp_path, budget=10, on_trial=lambda name, _: tried.append(name))["bias"]
    assert tried == ["bias"] * 5
    assert [trial.loss for trial in trials] == sorted(trial.loss for trial in trials)
    worst = {"user_shrinkage": 1e6, "item_shrinkage": 1e6}  # no offsets at all
    assert trials[-1].settings == worst
    again = tune(entries, split, tmp_path, budget=10, on_trial=lambda name, _: tried.append(name))["bias"]
    assert len(tried) == 5
    assert again == trials


def test_a_setting_that_cannot_be_fitted_loses(split: Split) -> None:
    bare = Split(mnar_train=split.mnar_train).hold_out(0.1, seed=0)
    assert run_trial(Entry("constant_mcar", ConstantMcar), {}, bare).loss == float("inf")
