"""The command line as a function or a process, and a small log to run it on."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# Seconds, not minutes: 20 steps on 40 users.
BRIEF = tuple(
    part
    for setting in ("max_steps=20", "evaluate_every=10", "samples=3", "validation_samples=3", "batch_size=10")
    for part in ("--set", setting)
)
QUICK = (*BRIEF, "--inference", "variational")


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    code: int
    out: str
    err: str

    def error(self) -> str:
        """The one error line of a refusal: exit code 2, nothing on stdout, no traceback."""
        assert self.code == 2, self
        lines = self.err.splitlines()
        assert "Traceback" not in self.err
        assert [line for line in lines if line.startswith("error: ")] == lines[-1:], self.err
        assert self.out == ""
        return lines[-1]

    def warnings(self) -> list[str]:
        assert self.code == 0, self
        return [line for line in self.err.splitlines() if line.startswith("warning: ")]


Cli = Callable[..., Result]


def start(*arguments: object, cwd: Path) -> "subprocess.Popen[str]":
    """Start the command in a process of its own."""
    return start_python("import runpy; runpy.run_module('mnar_recsys', run_name='__main__')", *arguments, cwd=cwd)


def start_python(code: str, *arguments: object, cwd: Path) -> "subprocess.Popen[str]":
    """Start a Python program in a process of its own."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: "subprocess.Popen[str]") -> Result:
    out, err = process.communicate(timeout=120)
    return Result(process.returncode, out, err)


def write_ratings(path: Path, *, n_users: int = 40, n_items: int = 12, seed: int = 0) -> Path:
    """Write a log in which high ratings are given more often; user 1..n, item 1..n, levels 1 to 5."""
    rng = np.random.default_rng(seed)
    ratings = rng.integers(1, 6, size=(n_users, n_items))
    given = rng.random(ratings.shape) < 0.1 * ratings
    given[np.arange(n_users), rng.integers(n_items, size=n_users)] = True
    given[0, :5], ratings[0, :5] = True, np.arange(1, 6)  # every level occurs
    rows = [f"{user + 1},{item + 1},{ratings[user, item]}" for user, item in zip(*np.nonzero(given), strict=True)]
    path.write_text("user,item,rating\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return path
