"""Clipped images: the mask of eq. 12, files of images, and the rows of table 2."""

from pathlib import Path

import numpy as np
import pytest

from evaluation.paper.clipping import Clipped, Draws, compare, digits, read_images
from evaluation.paper.figures import histogram_section, image_section
from mnar_recsys.errors import DataError


def test_bright_pixels_are_hidden_as_often_as_the_mechanism_says() -> None:
    data = Clipped.of(digits())
    assert data.shape == (8, 8)
    assert (len(data.train), len(data.test)) == (1497, 300)
    probability = 1 / (1 + np.exp(50 * (data.train - 0.75)))
    for level in np.unique(data.train):
        at = data.train == level
        expected = float(probability[at][0])
        error = 5 * np.sqrt(expected * (1 - expected) / at.sum()) + 1e-9
        assert data.observed[at].mean() == pytest.approx(expected, abs=error + 1e-3)


def test_layouts_of_images(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    colour = rng.integers(0, 256, size=(20, 4, 5, 3), dtype=np.uint8)
    np.savez(tmp_path / "rows.npz", X=colour, y=np.arange(20))
    np.savez(tmp_path / "svhn.npz", X=colour.transpose(1, 2, 3, 0), y=np.arange(20))
    np.savez(tmp_path / "grey.npz", images=colour[..., 0] / 255)
    images = read_images(tmp_path / "rows.npz")
    assert images.shape == (20, 4, 5)
    assert images == pytest.approx(colour @ [0.299, 0.587, 0.114] / 255)
    assert read_images(tmp_path / "svhn.npz") == pytest.approx(images)
    assert read_images(tmp_path / "grey.npz") == pytest.approx(colour[..., 0] / 255)


def test_files_that_hold_no_images(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("no", encoding="utf-8")
    with pytest.raises(DataError, match="not a readable"):
        read_images(tmp_path / "text.npz")
    np.savez(tmp_path / "flat.npz", x=np.zeros((20, 9)))
    with pytest.raises(DataError, match=r"found an array \(20, 9\)"):
        read_images(tmp_path / "flat.npz")
    np.savez(tmp_path / "bright.npz", x=np.full((20, 4, 4), 2.0))
    with pytest.raises(DataError, match="grey levels"):
        read_images(tmp_path / "bright.npz")
    np.savez(tmp_path / "object.npz", x=np.array([{}], dtype=object))
    with pytest.raises(DataError, match="not a readable"):
        read_images(tmp_path / "object.npz")


def test_rows_and_figures() -> None:
    data = Clipped.of(digits()[:60])
    rows = list(compare(data, iterations=3, draws=Draws(5, 5), channels=(2, 3, 4)))
    assert [row.method for row in rows] == ["miwae", "notmiwae_known", "miwae_complete", "ones"]
    ones = rows[-1]
    hidden = ~data.observed
    assert ones.rmse == pytest.approx(np.sqrt(np.square(1 - data.train)[hidden].mean()))
    assert ones.interval is not None
    assert ones.interval[0] < ones.rmse < ones.interval[1]
    for row in rows[:2]:
        assert row.imputed is not None
        np.testing.assert_allclose(row.imputed[~hidden], data.train[~hidden])
        assert np.isfinite(row.log_likelihood or np.nan)
    assert "truth: mean" in (histogram_section(data, rows).figure or pytest.fail("no figure")).alt
    assert "notmiwae_known" in (image_section(data, rows).figure or pytest.fail("no figure")).alt
