"""``train --inference mcmc``: what it writes and says."""

from pathlib import Path

import pandas as pd
import pytest
from commands import BRIEF, Cli

pytest.importorskip("pyro")

FEW = (*BRIEF, "--inference", "mcmc", "--set", "mcmc_warmup=20", "--set", "mcmc_draws=20", "--set", "latent_size=2")


@pytest.fixture(autouse=True)
def short_trajectories(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds, not minutes: of at most 7 steps."""
    monkeypatch.setattr("mnar_recsys.training.mcmc._MAX_TREE_DEPTH", 3)


def test_chains_are_summed_up_and_doubted(cli: Cli, ratings: Path, tmp_path: Path) -> None:
    result = cli("train", ratings, "--out", tmp_path / "m", *FEW)
    assert any(
        line.startswith("warning: the chains have not converged: R-hat above 1.05") for line in result.warnings()
    )
    assert "Sampled posterior: 2 chains of 20 + 20 draws" in result.out
    assert "selection, nats between the ends" in result.out
    assert (tmp_path / "m" / "draws.safetensors").exists()
    target = tmp_path / "out.csv"
    assert cli("predict", tmp_path / "m", "--all", "--out", target).code == 0
    assert len(pd.read_csv(target)) == 40 * 12
    refused = cli("predict", tmp_path / "m", "--all", "--out", target, "--draws", 10).error()
    assert "its 40 draws are all there are" in refused
    new_users = cli("predict", tmp_path / "m", "--all", "--ratings", ratings, "--out", target, "--draws", 10)
    assert new_users.code == 0


def test_what_cannot_be_sampled_is_one_line(cli: Cli, ratings: Path, tmp_path: Path) -> None:
    message = cli("train", ratings, "--out", tmp_path / "m", "--preset", "yahoo-r3", "--inference", "mcmc").error()
    assert message == "error: inference 'mcmc' needs item_weights 'variational'; found 'point'"
    assert not (tmp_path / "m").exists()


def test_an_interrupt_while_sampling_says_what_is_left(
    cli: Cli, ratings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("mnar_recsys.training.mcmc._Chain.run", interrupt)
        result = cli("train", ratings, "--out", tmp_path / "m", *FEW)
    assert result.code == 130
    assert "holds the short fit that the chains start from" in result.err.splitlines()[-1]
    assert cli("predict", tmp_path / "m", "--all", "--out", tmp_path / "out.csv").code == 0
    assert "Sampled posterior" in cli("train", ratings, "--out", tmp_path / "m", *FEW, "--resume").out
