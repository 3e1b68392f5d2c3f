"""Two processes started by torchrun make the run that one makes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mnar_recsys import MNARRecommender
from mnar_recsys.data.simulate import simulate_ratings
from mnar_recsys.training.workers import Workers

STEPS = {
    "inference": "variational",
    "max_steps": 12,
    "evaluate_every": 4,
    "batch_size": 21,
    "samples": 3,
    "validation_samples": 3,
}


def test_shares_are_parts_of_about_the_same_length() -> None:
    for size in (1, 2, 3, 7):
        parts = [Workers(rank, size).share(20) for rank in range(size)]
        assert [i for part in parts for i in range(20)[part]] == list(range(20))
        lengths = [part.stop - part.start for part in parts]
        assert max(lengths) - min(lengths) <= 1


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
