"""A search for settings: how trials are scored, given up, chosen, kept and gone on with."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mnar_recsys import MNARRecommender, RatingLog, Settings, simulate_ratings
from mnar_recsys.candidates import make_candidates
from mnar_recsys.config import PRESETS
from mnar_recsys.errors import ConfigError, DivergedError, ModelFolderError
from mnar_recsys.model_selection import HeldOutUsers, select_settings
from mnar_recsys.search_space import SPACE, Range, search_space
from mnar_recsys.training import Trainer
from mnar_recsys.tuning import Trial, Tuning, tune_settings

pytest.importorskip("optuna")

TINY = {
    "missing": "per-level",
    "latent_size": 3,
    "exposure_size": 0,
    "exposure_sees_taste": False,
    "item_weights": "point",
    "samples": 3,
    "proposal": "encoder",
    "max_steps": 40,
    "validation_samples": 5,
    "evaluate_every": 5,
    "compile": "off",
    "device": "cpu",
}
STEPS = {"learning_rate": Range(1e-6, 5e-2), "latent_size": Range(2, 6)}


@pytest.fixture(scope="module")
def log() -> RatingLog:
    return simulate_ratings("monotone", n_users=120, n_items=20, seed=2, ratings_per_user=8).train


def tune(log: RatingLog, folder: Path, trials: int, **options: Any) -> Tuning:
    settings = Settings().replace(TINY | options.pop("changes", {}))
    return tune_settings(log, settings, folder=folder, trials=trials, **{"space": STEPS, "seed": 0} | options)


def comparable(tuning: Tuning) -> pd.DataFrame:
    return tuning.table.drop(columns="seconds")


@pytest.fixture(scope="module")
def searched(log: RatingLog, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tuning, Path]:
    folder = tmp_path_factory.mktemp("search") / "study"
    return tune(log, folder, 7, changes={"learning_rate": 1e-6}), folder


def test_a_crippled_setting_is_not_chosen(searched: tuple[Tuning, Path]) -> None:
    tuning, _ = searched
    assert tuning.trials[0].changes == {"learning_rate": 1e-6, "latent_size": 3}
    assert tuning.trials[0].outcome == "finished"
    assert tuning.best.number > 0
    assert tuning.best.changes["learning_rate"] > 1e-4
    assert tuning.best_settings.training.learning_rate == tuning.best.changes["learning_rate"]


def test_trials_are_scored_as_candidates_are(searched: tuple[Tuning, Path], log: RatingLog) -> None:
    tuning, _ = searched
    best = ",".join(f"{key}={value}" for key, value in tuning.best.changes.items())
    candidates = make_candidates(["learning_rate=1e-6,latent_size=3", best], Settings().replace(TINY))
    selection = select_settings(log, candidates, seed=0)
    for score, trial in zip(selection.scores, (tuning.trials[0], tuning.best), strict=True):
        np.testing.assert_array_equal(score.bounds, trial.bounds)
    gap = selection.scores[1].bounds - selection.scores[0].bounds
    row = tuning.table[tuning.table["best"]].iloc[0]
    assert row["difference"] == pytest.approx(gap.mean())
    assert row["se"] == pytest.approx(gap.std(ddof=1) / math.sqrt(len(gap)))


def test_what_the_folder_holds(searched: tuple[Tuning, Path]) -> None:
    tuning, folder = searched
    assert {path.name for path in folder.iterdir()} == {"study.db", "trials.csv", "best.json"}
    pd.testing.assert_frame_equal(pd.read_csv(folder / "trials.csv"), tuning.table, check_exact=False)
    stored = json.loads((folder / "best.json").read_text())
    assert Settings().replace(stored) == tuning.best_settings


def test_trials_behind_the_median_are_given_up(searched: tuple[Tuning, Path], log: RatingLog) -> None:
    tuning, _ = searched
    assert all(trial.outcome == "finished" for trial in tuning.trials[:4])
    pruned = [trial for trial in tuning.trials if trial.outcome == "pruned"]
    finished = [trial for trial in tuning.trials if trial.outcome == "finished"]
    assert pruned
    assert all(3 <= trial.looks < max(one.looks for one in finished) for trial in pruned)
    assert all(trial.bounds is None for trial in pruned)
    # Those given up would have been worse than the best.
    users = HeldOutUsers.draw(log, 0)
    for trial in pruned:
        score = users.score("again", Settings().replace(TINY | trial.changes).resolve_for(log))
        assert score.bounds.mean() < tuning.best.bounds.mean()


def interrupt(log: RatingLog, folder: Path, trials_before: int, **options: Any) -> None:
    """Press Ctrl-C in the middle of the trial that comes after so many others."""
    ended = 0

    def count(tuning: Tuning) -> None:
        nonlocal ended
        ended = len(tuning.trials)

    def stop(trainer: Trainer, _: object) -> None:
        if ended == trials_before and trainer.progress.step == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(log, folder, 7, on_step=stop, on_trial=count, **options)


def test_a_search_goes_on_to_the_same_trials(searched: tuple[Tuning, Path], log: RatingLog, tmp_path: Path) -> None:
    whole, _ = searched
    options = {"changes": {"learning_rate": 1e-6}}
    interrupt(log, tmp_path / "s", 0, **options)
    assert {path.name for path in (tmp_path / "s").iterdir()} == {"study.db"}
    interrupt(log, tmp_path / "s", 5, resume=True, **options)  # where the pruner is at work
    assert {path.name for path in (tmp_path / "s").iterdir()} == {"study.db", "trials.csv", "best.json"}
    assert len(pd.read_csv(tmp_path / "s" / "trials.csv")) == 5
    resumed = tune(log, tmp_path / "s", 7, resume=True, **options)
    pd.testing.assert_frame_equal(comparable(resumed), comparable(whole))
    for one, other in zip(resumed.trials, whole.trials, strict=True):
        np.testing.assert_array_equal(one.bounds, other.bounds)


def test_nothing_is_left_to_do(searched: tuple[Tuning, Path], log: RatingLog) -> None:
    whole, folder = searched

    def never(*_: object) -> None:
        raise AssertionError("fitted again")

    again = tune(log, folder, 7, changes={"learning_rate": 1e-6}, resume=True, on_step=never)
    pd.testing.assert_frame_equal(again.table, whole.table)


def test_a_killed_trial_counts_for_nothing(searched: tuple[Tuning, Path], log: RatingLog, tmp_path: Path) -> None:
    import optuna

    whole, _ = searched
    options = {"changes": {"learning_rate": 1e-6}}
    tune(log, tmp_path / "s", 2, **options)
    storage = optuna.storages.RDBStorage(f"sqlite:///{tmp_path / 's' / 'study.db'}")
    trial = optuna.load_study(study_name="settings", storage=storage).ask()  # and never told how it ended
    trial.report(0.0, 1)
    storage.remove_session()
    storage.engine.dispose()
    resumed = tune(log, tmp_path / "s", 3, resume=True, **options)
    pd.testing.assert_frame_equal(comparable(resumed), comparable(whole).iloc[:3].assign(best=comparable(resumed).best))


def test_diverging_trials_are_survived(log: RatingLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Trainer.step

    def diverge(self: Trainer) -> object:
        if self.config.learning_rate < 1e-3:
            raise DivergedError("not finite")
        return step(self)

    monkeypatch.setattr(Trainer, "step", diverge)
    tuning = tune(log, tmp_path / "s", 3)
    outcomes = [trial.outcome for trial in tuning.trials]
    expected = ["diverged" if trial.changes["learning_rate"] < 1e-3 else "finished" for trial in tuning.trials]
    assert outcomes == expected
    assert {"diverged", "finished"} == set(outcomes)
    none = tune(log, tmp_path / "t", 1, changes={"learning_rate": 1e-5})
    with pytest.raises(DivergedError, match="no trial has finished"):
        _ = none.best
    assert {path.name for path in (tmp_path / "t").iterdir()} == {"study.db"}


def test_labels_are_trained_on_and_scored_like_other_ratings(tmp_path: Path) -> None:
    world = simulate_ratings("monotone", n_users=120, n_items=20, seed=2, ratings_per_user=8)
    tuning = tune(world.train, tmp_path / "s", 1, labels=world.labels)
    candidates = make_candidates(["latent_size=3", "latent_size=2"], Settings().replace(TINY))
    selection = select_settings(world.train, candidates, labels=world.labels, seed=0)
    np.testing.assert_array_equal(tuning.trials[0].bounds, selection.scores[0].bounds)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"seed": 1}, "search with other ratings, settings, ranges or seed"),
        ({"space": STEPS | {"latent_size": Range(2, 7)}}, "search with other ratings, settings, ranges or seed"),
        ({"changes": {"samples": 4}}, "search with other ratings, settings, ranges or seed"),
        ({"resume": False}, "exists and is not empty"),
    ],
)
def test_another_search_is_not_gone_on_with(
    log: RatingLog, tmp_path: Path, options: dict[str, Any], expected: str
) -> None:
    tune(log, tmp_path / "s", 1)
    with pytest.raises(ModelFolderError, match=expected):
        tune(log, tmp_path / "s", 2, **{"resume": True} | options)


def test_folders_without_a_search(log: RatingLog, tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match="there is no search to go on with"):
        tune(log, tmp_path / "s", 1, resume=True)
    assert not (tmp_path / "s").exists()
    (tmp_path / "study.db").write_text("no data base at all, but some text that is long enough to be read as one")
    with pytest.raises(ModelFolderError, match=r"study\.db: no readable search \(file is not a database\)"):
        tune(log, tmp_path, 1, resume=True)


def test_the_first_trial_of_every_preset_lies_in_the_space() -> None:
    for settings in PRESETS.values():
        for n_ratings in (5_000, 1_000_000):
            resolved = settings.resolve(has_levels=True, n_ratings=n_ratings, n_users=10**6, n_items=10**3)
            assert search_space(resolved)


def test_what_is_searched() -> None:
    large = Settings().resolve(has_levels=True, n_ratings=10**6, n_users=10**6, n_items=10**4)
    assert search_space(large) == SPACE
    small = search_space(Settings().resolve(has_levels=True, n_ratings=5_000, n_users=10**3, n_items=10**3))
    assert set(SPACE) - set(small) == {"weight_prior_sd", "bias_prior_sd", "exposure_prior_sd"}
    paper = search_space(PRESETS["yahoo-r3"].resolve(has_levels=True, n_ratings=10**6, n_users=10**6, n_items=10**3))
    assert set(paper) == {"latent_size", "embedding_size", "code_size", "learning_rate", "batch_size"}
    assert "latent_size" not in search_space(large, ["latent_size"])


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        ({"depth": Range(1, 2)}, "cannot search 'depth'"),
        ({"latent_size": Range(20, 40)}, "'latent_size' is to be searched from 20 to 40, and the first trial has 10"),
        ({"latent_size": Range(0, 40)}, "give a range that holds it"),
        ({"sign": Range(0, 1)}, "first trial has positive"),
        ({}, "nothing is left to search"),
    ],
)
def test_spaces_that_are_none(space: dict[str, Range], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        search_space(Settings().resolve(has_levels=True, n_ratings=10**6, n_users=10**6, n_items=10**3), space=space)


def finished(number: int, bounds: list[float], selection: float = 1.0) -> Trial:
    return Trial(number, {"latent_size": number}, "finished", 5, 1.0, np.array(bounds), selection, 2.0)


def test_doubts() -> None:
    worse, even, better = ([float(n % 3) + gap for n in range(200)] for gap in (0.0, 0.0, 1.0))
    assert Tuning(Settings(), (finished(0, worse), finished(1, better))).doubts() == ()
    (first,) = Tuning(Settings(), (finished(0, better), finished(1, worse))).doubts()
    assert "no trial was better" in first
    noisy = [value + (2.0 if n % 2 else -1.99) for n, value in enumerate(even)]
    (tied,) = Tuning(Settings(), (finished(0, worse), finished(1, noisy))).doubts()
    assert "hardly tells them apart" in tied
    (sign,) = Tuning(Settings(), (finished(0, worse), finished(1, better, -1.0))).doubts()
    assert "the sign of the fitted selection is another" in sign
    diverged = Trial(0, {"latent_size": 0}, "diverged", 5, 1.0)
    (none,) = Tuning(Settings(), (diverged, finished(1, better))).doubts()
    assert "nothing to compare with" in none
    few = Tuning(Settings(), (finished(0, worse[:20]), finished(1, better[:20]))).doubts()
    assert "only 20 users" in few[0]


def test_the_best_settings_fit(searched: tuple[Tuning, Path], log: RatingLog) -> None:
    tuning, _ = searched
    recommender = MNARRecommender(tuning.best_settings).fit(log, seed=0)
    assert recommender.fitted.settings.model.latent_size == tuning.best.changes["latent_size"]
