"""``paper``: what it prints and writes, and what it refuses."""

from pathlib import Path

import numpy as np
import pandas as pd
from commands import Cli


def table(path: Path) -> Path:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(40, 1)) + 0.3 * rng.normal(size=(40, 3))
    pd.DataFrame(values, columns=["a", "b", "c"]).assign(target=0).to_csv(path, index=False)
    return path


def test_tables_of_a_file_the_paper_has_not(cli: Cli, tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv")
    brief = ("--runs", 2, "--iterations", 20, "--quick", "--out", tmp_path / "out")
    shown = cli("paper", "table1", "--csv", path, "--methods", "mean,ppca,notmiwae_self_masking", *brief)
    assert shown.code == 0
    assert "40 rows x 3 features, not one of the paper's" in shown.err
    assert [line.split()[0] for line in shown.out.splitlines()[2:]] == ["mean", "ppca", "notmiwae_self_masking"]
    assert list(pd.read_csv(tmp_path / "out" / "table1.csv")["method"]) == ["mean", "ppca", "notmiwae_self_masking"]
    accuracy = cli("paper", "tableA1", "--csv", path, "--methods", "notmiwae_ppca_known_sign", *brief)
    assert accuracy.out.splitlines()[-1].startswith("notmiwae_ppca_known_sign")


def test_images_and_figures(cli: Cli, tmp_path: Path) -> None:
    images = np.random.default_rng(0).random((30, 8, 8))
    np.savez(tmp_path / "x.npz", images=images)
    brief = ("--images", tmp_path / "x.npz", "--iterations", 10, "--quick", "--out", tmp_path / "out")
    shown = cli("paper", "table2", *brief)
    assert [line.split()[0] for line in shown.out.splitlines()[2:]] == [
        "miwae",
        "notmiwae_known",
        "miwae_complete",
        "ones",
    ]
    page = (tmp_path / "out" / "table2.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 2


def test_refusals(cli: Cli, tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv")
    assert "unknown method 'mf'" in cli("paper", "table1", "--csv", path, "--methods", "mf").error()
    assert "no column 'z'" in cli("paper", "table1", "--csv", path, "--target", "z").error()
    assert "--out" in cli("paper", "fig3").error()
    assert "not a readable .npz" in cli("paper", "table2", "--images", path).error()
