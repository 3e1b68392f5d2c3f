"""RecBole's models as rows: what they learn, what they leave alone, and how it is said where they cannot run."""

import os
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from baselines.recbole_models import MODELS, RecBoleMethod, recbole_fault, with_averages
from evaluation.ranking import auc
from mnar_recsys.data import RatingLog, Split
from mnar_recsys.errors import ConfigError, DataError

fault = recbole_fault()
runs_recbole = pytest.mark.skipif(fault is not None, reason=str(fault))
N, P = 60, 40


def world() -> tuple[NDArray[np.bool_], Split]:
    """Two kinds of people, each of whom rates and likes one half of the items; ids are text."""
    rng = np.random.default_rng(0)
    likes = (np.arange(N)[:, None] % 2) == (np.arange(P) % 2)
    rated = rng.random((N, P)) < np.where(likes, 0.6, 0.15)
    ratings = np.where(likes, rng.integers(4, 6, (N, P)), rng.integers(1, 3, (N, P)))
    rows, items = np.nonzero(rated)
    names = np.array([f"u{row}" for row in range(N)], dtype=object)
    log = RatingLog.from_arrays(
        names[rows], items, ratings[rows, items], scale="1,5", user_ids=names, catalogue=np.arange(P)
    )
    return likes[np.argsort(names)] & ~np.isin(np.arange(N * P).reshape(N, P), log.cells), Split(mnar_train=log)


@cache
def fitted(name: str) -> RecBoleMethod:
    return RecBoleMethod(name, train_batch_size=128, epochs=30, learning_rate=0.01).fit(world()[1], seed=0)


def unrated_pairs() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    log = world()[1].mnar_train
    return np.divmod(np.setdiff1d(np.arange(N * P), log.cells), P)


@pytest.mark.recbole
@runs_recbole
@pytest.mark.parametrize("name", MODELS)
def test_a_row_learns_who_likes_what(name: str) -> None:
    liked, split = world()
    model, (rows, columns) = fitted(name), unrated_pairs()
    log = split.mnar_train
    found = model.predict(log.users.take(rows), log.catalogue.take(columns))
    is_liked = liked[rows, columns]
    assert auc(is_liked, found) > 0.9
    if model.predicts_ratings:
        truth = np.where(is_liked, 4.5, 1.5)
        assert ((found >= 1) & (found <= 5)).all()
        assert np.square(found - truth).mean() < 0.3 * np.square(truth - log.ratings.mean()).mean()
    odd = model.predict(np.array(["u0", "nobody", "nobody"], dtype=object), np.array([999, 3, 999]))
    assert np.isfinite(odd).all()


def recbole_modules() -> set[str]:
    return {name for name in sys.modules if name.split(".")[0] in ("recbole", "ray")}


@pytest.mark.recbole
@runs_recbole
def test_the_seed_decides_and_this_process_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["x", "--epochs=__import__('os').mkdir('evaluated')"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    np.random.seed(3)  # noqa: NPY002 - the state that RecBole would set
    before = (set(vars(np)), dict(os.environ), torch.get_rng_state(), np.random.get_state()[1].tolist())  # noqa: NPY002
    imported = recbole_modules()
    one, same, other = (RecBoleMethod("recbole_bpr", epochs=2).fit(world()[1], seed=seed)._scores for seed in (5, 5, 6))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
    after = (set(vars(np)), dict(os.environ), torch.get_rng_state(), np.random.get_state()[1].tolist())  # noqa: NPY002
    assert before[:2] == after[:2]
    assert torch.equal(before[2], after[2])
    assert before[3] == after[3]
    assert not list(tmp_path.iterdir())
    assert imported == recbole_modules()


@pytest.mark.recbole
@runs_recbole
@pytest.mark.skipif(sys.platform != "linux", reason="looks for the worker in /proc")
def test_the_worker_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    script = f"""
import sys; sys.path[:0] = {sys.path!r}
from test_recbole_models import world
from baselines.recbole_models import RecBoleMethod
RecBoleMethod("recbole_bpr", epochs=100_000, stopping_step=100_000).fit(world()[1], seed=0)
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
                                "TMPDIR": str(tmp_path)}  # fmt: skip
    parent = subprocess.Popen([sys.executable, "-c", script], env=environment)
    try:
        worker = _wait_for(lambda: _child_of(parent.pid))
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    _wait_for(lambda: not Path(f"/proc/{worker}").exists())


def _child_of(pid: int) -> int | None:
    found = Path(f"/proc/{pid}/task/{pid}/children")
    children = found.read_text().split() if found.exists() else []
    return int(children[0]) if children else None


def _wait_for(condition, seconds: float = 60.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.1)
    raise AssertionError("it did not happen in time")


@pytest.mark.recbole
@runs_recbole
def test_what_cannot_be_trained_is_refused() -> None:
    low = world()[1].mnar_train
    low = low.select_ratings(low.ratings < 3)
    with pytest.raises(DataError, match="BPR needs positives"):
        RecBoleMethod("recbole_bpr").fit(Split(mnar_train=low), seed=0)
    with pytest.raises(ConfigError, match="BPR ended with exit code 1: AttributeError: 'int' object has no attribute"):
        RecBoleMethod("recbole_bpr", learner=3).fit(world()[1], seed=0)
    with pytest.raises(DataError, match="must not see the test"):
        RecBoleMethod("recbole_bpr").fit(Split(mnar_train=low, mcar_test=low), seed=0)


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"recbole_neumf, .*found 'recbole_nonsense'"):
        RecBoleMethod("recbole_nonsense")


@pytest.mark.skipif(fault is None, reason="RecBole can run here")
def test_where_recbole_cannot_run_the_row_says_why() -> None:
    with pytest.raises(ConfigError, match=r"recbole_bpr: .*\. Install mnar-recsys\[recbole\] into an environment"):
        RecBoleMethod("recbole_bpr")


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"recbole": "1.2.0", "numpy": "1.26.4", "pandas": "2.3.3"}, "must be 1.2.1; found 1.2.0"),
        ({"recbole": "1.2.1", "numpy": "2.4.6", "pandas": "2.3.3"}, "needs numpy below 2; found 2.4.6"),
        ({"recbole": "1.2.1", "numpy": "1.26.4", "pandas": "3.1.1"}, "needs pandas below 3; found 3.1.1"),
        ({"recbole": "1.2.1", "numpy": "1.26.4", "pandas": "2.3.3"}, None),
    ],
)
def test_what_stands_in_the_way_is_named(
    monkeypatch: pytest.MonkeyPatch, found: dict[str, str], message: str | None
) -> None:
    monkeypatch.setattr("baselines.recbole_models.version", found.__getitem__)
    assert recbole_fault() == message if message is None else message in str(recbole_fault())


def test_what_recbole_did_not_meet_scores_as_the_average() -> None:
    nan = np.nan
    found = with_averages(np.array([[1.0, nan, 3.0], [nan, nan, nan], [5.0, nan, 11.0]]))
    expected = [[1, 2, 3, 2], [3, 5, 7, 5], [5, 8, 11, 8], [3, 5, 7, 5]]
    np.testing.assert_array_equal(found, expected)
