"""Figures that compare methods, and the bins behind the calibration charts."""

import re
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import calibration_curve

from evaluation import benchmark_plots as plots
from evaluation.drawing import Figure
from evaluation.reliability import level_reliability, reliability
from mnar_recsys.errors import ConfigError, DataError

LEVELS = np.arange(1.0, 6.0)
TRUTH = np.array([0.5, 0.25, 0.15, 0.06, 0.04])


def ranking(**options: object) -> Figure:
    settings = {"references": {"constant <log>": 1.69}, "uses_labels": [False, True, False]} | options
    methods, low, high = ["mf", "ips", "constant"], [1.8, 0.9, np.nan], [2.0, 1.1, np.nan]
    return plots.ranking_chart(methods, [1.9, 1.0, 1.2], low, high, metric="MSE", **settings)


def small_multiples(count: int = 4) -> Figure:
    return plots.compare_marginals(LEVELS, TRUTH, {f"method {number}": np.full(5, 0.2) for number in range(count)})


def calibration_table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    table = rng.dirichlet(np.ones(5), size=3000)
    index = (rng.random(3000)[:, None] > np.cumsum(table, axis=1)[:, :4]).sum(axis=1)
    return level_reliability(LEVELS, index, table)


FIGURES = {
    "ranking": ranking,
    "two marginals": lambda: small_multiples(2),
    "small multiples": small_multiples,
    "propensities": lambda: plots.propensity_calibration([0.001, 0.01, 0.2], [0.0, 0.012, 0.2], [500, 500, 500]),
    "levels": lambda: plots.level_calibration(calibration_table()),
}


def texts_of(figure: Figure) -> list[str]:
    root = ElementTree.fromstring(figure.svg)  # noqa: S314 - our own text
    return ["".join(node.itertext()).strip() for node in root.iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_inline_svg_in_the_page_s_colours_with_words(name: str) -> None:
    figure = FIGURES[name]()
    assert texts_of(figure)
    assert "var(--ink)" in figure.svg
    assert "var(--series-1)" in figure.svg
    assert "#0102" not in figure.svg
    assert "DejaVu" not in figure.svg
    assert "math" not in figure.svg
    assert len(figure.alt) > 60


def test_methods_stand_best_first_whatever_the_direction() -> None:
    names = {"mf", "ips", "constant"}
    lower = ranking()
    assert [text for text in texts_of(lower) if text in names] == ["ips", "constant", "mf"]
    higher = ranking(lower_is_better=False)
    assert [text for text in texts_of(higher) if text in names] == ["mf", "constant", "ips"]
    assert "best first: ips (with labels) 1.000 [0.900, 1.100], constant 1.200, mf 1.900 [1.800, 2.000]" in lower.alt
    assert "Reference line constant <log>: 1.690" in lower.alt


def test_labels_and_references_have_marks_of_their_own() -> None:
    figure = ranking()
    assert "var(--series-2)" in figure.svg
    assert "stroke-dasharray" not in figure.svg  # the first line is solid
    assert {"log alone", "log and random labels", "constant <log>, 1.69"} <= set(texts_of(figure))
    plain = ranking(references=None, uses_labels=None)
    assert "var(--series-2)" not in plain.svg
    assert "log alone" not in texts_of(plain)


def test_thirty_methods_have_room_and_an_interval_may_leave_its_value_out() -> None:
    names = [f"m{number}" for number in range(30)]
    figure = plots.ranking_chart(names, np.arange(30.0), np.arange(30.0) + 0.1, np.arange(30.0) + 1, metric="MSE")
    assert set(names) <= set(texts_of(figure))
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', figure.svg)
    assert float(box[2]) / 30 > 17  # points a row


def test_many_methods_have_a_panel_each_with_their_distance() -> None:
    figure = small_multiples()
    texts = " ".join(texts_of(figure))
    assert all(f"method {number}" in texts for number in range(4))
    # Half of .3 + .05 + .05 + .14 + .16.
    assert texts.count("distance 0.35") == 4
    assert {"truth", "predicted"} <= set(texts_of(figure))
    assert "Truth: 1 50.00%" in figure.alt
    assert set(texts_of(small_multiples(2))) >= {"method 0", "method 1", "truth"}


def test_propensities_over_orders_of_magnitude_get_logarithmic_axes() -> None:
    wide = plots.propensity_calibration([0.001, 0.01, 0.2], [0.0, 0.012, 0.2], [500, 500, 500])
    assert {"0.001", "0.01", "0.1"} <= set(texts_of(wide))
    assert "0.01 predicted 0.012 rated" in wide.alt
    narrow = plots.propensity_calibration([0.1, 0.2], [0.1, 0.25], [50, 50])
    assert "0.001" not in texts_of(narrow)


def test_levels_have_a_panel_each() -> None:
    texts = texts_of(plots.level_calibration(calibration_table()))
    assert [text for text in texts if text.startswith("rating")] == [f"rating {level}" for level in range(1, 6)]


def test_bins_agree_with_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    predicted = rng.beta(1, 5, 2000)
    happened = (rng.random(2000) < predicted).astype(float)
    found = reliability(predicted, happened, bins=7)
    observed, mean = calibration_curve(happened, predicted, n_bins=7, strategy="quantile")
    np.testing.assert_allclose(found["observed"], observed)
    np.testing.assert_allclose(found["predicted"], mean)
    assert found["n"].sum() == 2000


def test_equal_predictions_share_a_bin_and_constants_make_one() -> None:
    found = reliability([0.2, 0.2, 0.2, 0.8], [0, 1, 0, 1], bins=4)
    assert found.to_numpy().tolist() == [[pytest.approx(0.2), pytest.approx(1 / 3), 3], [0.8, 1.0, 1]]
    assert reliability([0.3] * 5, [0, 0, 0, 1, 1]).to_numpy().tolist() == [[pytest.approx(0.3), 0.4, 5]]


def test_true_probabilities_are_reliable_at_every_level() -> None:
    table = calibration_table()
    assert table["level"].unique().tolist() == LEVELS.tolist()
    error = np.sqrt(table["predicted"] * (1 - table["predicted"]) / table["n"])
    assert (np.abs(table["observed"] - table["predicted"]) <= 4 * error).all()


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(DataError, match="1 to 30 methods and up to 3 reference lines; found 0"):
        plots.ranking_chart([], [], [], [], metric="MSE")
    with pytest.raises(DataError, match="equally long"):
        ranking(uses_labels=[True])
    with pytest.raises(DataError, match="found 3 and 4"):
        ranking(references=dict.fromkeys("abcd", 1.0))
    with pytest.raises(DataError, match="1 to 30 methods; found 0"):
        plots.compare_marginals(LEVELS, TRUTH, {})
    with pytest.raises(DataError, match="equally long"):
        plots.compare_marginals(LEVELS, TRUTH, dict.fromkeys("abc", TRUTH[:4]))
    with pytest.raises(DataError, match="propensities must be above 0; found 0"):
        plots.propensity_calibration([0.0, 0.1], [0.0, 0.1], [5, 5])
    with pytest.raises(DataError, match="bins must hold"):
        plots.propensity_calibration([0.1], [1.1], [5])
    with pytest.raises(DataError, match="one bin or more"):
        plots.level_calibration(calibration_table().iloc[:0])
    with pytest.raises(DataError, match="from 0 to 1"):
        reliability([1.2], [1.0])
    with pytest.raises(ConfigError, match="bins must be at least 1"):
        reliability([0.2], [1.0], bins=0)
