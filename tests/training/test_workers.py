"""Two processes started by torchrun make the run that one makes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from factories import log_of, random_matrix, tiny_model
from hypothesis import given
from hypothesis import strategies as st

from mnar_recsys import MNARRecommender
from mnar_recsys.config import Settings
from mnar_recsys.data.simulate import simulate_ratings
from mnar_recsys.errors import ConfigError
from mnar_recsys.training.step import Stepper
from mnar_recsys.training.workers import Workers

STEPS = {
    "inference": "variational",
    "max_steps": 12,
    "evaluate_every": 4,
    "batch_size": 21,
    "samples": 3,
    "validation_samples": 3,
}


@given(st.lists(st.integers(1, 1000), min_size=7, max_size=40), st.integers(1, 7))
def test_shares_are_parts_of_about_the_same_cost(costs: list[int], size: int) -> None:
    parts = [Workers(rank, size).share(np.array(costs)) for rank in range(size)]
    assert [i for part in parts for i in range(len(costs))[part]] == list(range(len(costs)))
    assert all(part.stop > part.start for part in parts)
    # A part is too long by half of the users at its two edges at most, or has one user only.
    assert max(sum(costs[part]) for part in parts) <= sum(costs) / size + max(costs)


def test_equal_users_are_shared_out_evenly() -> None:
    for size in (1, 2, 3, 7):
        lengths = [part.stop - part.start for part in (Workers(r, size).share(np.full(20, 5)) for r in range(size))]
        assert max(lengths) - min(lengths) <= 1


def test_more_processes_than_users_of_a_batch_are_refused() -> None:
    log = log_of(random_matrix(12, 6, seed=0))
    settings = Settings().replace({"batch_size": 2}).resolve_for(log)
    with pytest.raises(ConfigError, match="3 processes share batches of 2 users; start fewer, or raise batch_size"):
        Stepper(tiny_model(log), log, settings, n_users=12, seed=0, workers=Workers(0, 3))


@pytest.mark.parametrize(
    "changes",
    [
        {"item_weights": "variational"},
        {"item_weights": "point", "sampled_items": 10},
        {"preset": "yahoo-r3", "batch_size": 20},
    ],
)
def test_two_processes_make_the_run_of_one(tmp_path: Path, changes: dict[str, object]) -> None:
    log = simulate_ratings("r3-like", n_users=120, n_items=60, seed=1, ratings_per_user=6).train
    ratings = tmp_path / "ratings.csv"
    columns = {"user": log.users.take(log.rows), "item": log.catalogue.take(log.items), "rating": log.ratings}
    pd.DataFrame(columns).to_csv(ratings, index=False)
    options = STEPS | changes
    preset = options.pop("preset", "default")
    arguments = ["train", str(ratings), "--scale", "1,5", "--preset", str(preset)]
    for key, value in options.items():
        arguments += ["--set", f"{key}={value}"]
    histories = []
    for out, launcher in (
        ("one", [sys.executable]),
        ("two", [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]),
    ):
        command = [*launcher, "-m", "mnar_recsys", *arguments, "--out", str(tmp_path / out)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=120)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("Fitted selection") == 1  # one process speaks
        histories.append(pd.read_csv(tmp_path / out / "history.csv"))
    assert len(histories[0]) == 3
    np.testing.assert_allclose(histories[1].to_numpy(), histories[0].to_numpy(), rtol=2e-4, atol=2e-4)
    one, two = (MNARRecommender.load(tmp_path / out).fitted.model.state_dict() for out in ("one", "two"))
    for name, value in one.items():
        np.testing.assert_allclose(two[name], value, atol=2e-3, err_msg=name)
    assert json.loads((tmp_path / "two" / "config.json").read_text())["fingerprint"]
