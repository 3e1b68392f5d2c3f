"""A small log, a small fitted model, and the command line as a function."""

from pathlib import Path

import pytest
from commands import QUICK, Cli, Result, write_ratings

from mnar_recsys.cli.main import main


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    def call(*arguments: object) -> Result:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def ratings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ratings(tmp_path_factory.mktemp("data") / "ratings.csv")


@pytest.fixture(scope="session")
def survey(ratings: Path) -> Path:
    """Test ratings; a few of its cells are in the log, too."""
    return write_ratings(ratings.parent / "survey.csv", seed=1)


@pytest.fixture(scope="session")
def model(ratings: Path) -> Path:
    folder = ratings.parent / "model"
    assert main(["train", str(ratings), "--out", str(folder), *QUICK]) == 0
    return folder
