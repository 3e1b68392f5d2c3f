"""The report page: complete, escaped, self-contained, readable."""

import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from evaluation import plots
from evaluation.report import Section, facts_table, methods_table, render_report, write_report
from mnar_recsys.errors import DataError

LEVELS = np.arange(1.0, 6.0)
CURVE = np.array([-1.0, -1.2, -0.4, 0.6, 2.0])


def figures() -> list[plots.Figure]:
    shares = {"training log": [0.3, 0.1, 0.2, 0.2, 0.2], "true <test>": [0.5, 0.25, 0.15, 0.06, 0.04]}
    return [
        plots.selection_curve(LEVELS, CURVE, low=CURVE - 0.2, high=CURVE + 0.2, truth=CURVE + 0.1),
        plots.marginals(LEVELS, shares),
        plots.training_history([0, 10, 20], [-200.0, -110.0, -105.0], [np.nan, -112.0, -108.0], chosen_step=10),
    ]


class Balanced(HTMLParser):
    """Fails on a tag that is closed but was not opened; what stays open is in ``open``."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value for name, value in attrs if name == "id" and value]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, _tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value for name, value in attrs if name == "id" and value]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def full_page() -> str:
    table = pd.DataFrame({"method": ["a <b> & c"], "MSE": ["0.857 [0.841, 0.873]"]})
    sections = [Section("Heading & more", "One.\n\nTwo <script>alert(1)</script>.", table=table)]
    sections += [Section(f"Figure {number}", figure=figure) for number, figure in enumerate(figures())]
    return render_report(title="A <title>", lede="The lede.", sections=sections)


def test_page_is_well_formed_and_escaped() -> None:
    page, parser = full_page(), Balanced()
    parser.feed(page)
    assert parser.open == []
    assert len(parser.ids) == len(set(parser.ids))
    assert "<script" not in page
    assert "a <b> & c" in parser.text
    assert "<h1>A &lt;title&gt;</h1>" in page
    assert page.count("<p>") == 2


def test_page_loads_nothing_from_elsewhere() -> None:
    page = full_page()
    assert not re.search(r"(?:src|href)=\"(?!#)", page)
    assert "url(http" not in page
    assert "@import" not in page
    # Namespaces and comments are no requests; any other address would be.
    addresses = re.findall(r"https?://[^\"'\s<]+", page)
    assert all(address.startswith("http://www.w3.org/") for address in addresses)


def test_page_fits_a_phone_and_both_colour_schemes() -> None:
    page = full_page()
    assert 'name="viewport"' in page
    assert "prefers-color-scheme: dark" in page
    assert "overflow-x: auto" in page


@pytest.mark.parametrize("number", range(3))
def test_figures_are_valid_svg_with_variables_for_colours(number: int) -> None:
    figure = figures()[number]
    ElementTree.fromstring(figure.svg)  # noqa: S314 - our own text
    assert "var(--ink)" in figure.svg
    assert "var(--series-1)" in figure.svg
    assert "#0102" not in figure.svg
    assert "DejaVu" not in figure.svg
    assert len(figure.alt) > 40


def test_figures_say_their_units_and_their_numbers() -> None:
    curve, bars, history = figures()
    assert "log-odds of being rated" in curve.svg
    assert "Truth: 1 -" in curve.alt
    assert "share of ratings (%)" in bars.svg
    assert "true &lt;test&gt;" in bars.svg
    assert "50.00%" in bars.alt
    assert "nats" in history.svg
    assert "users held out from -112.0 to -108.0" in history.alt


def test_figures_can_be_told_apart_without_colour() -> None:
    curve, bars, _ = figures()
    assert "stroke-dasharray" in curve.svg
    assert "<pattern" in bars.svg


def test_drawing_leaves_the_global_style_alone_and_repeats_exactly() -> None:
    before = dict(mpl.rcParams)
    first, second = figures(), figures()
    assert dict(mpl.rcParams) == before
    assert [figure.svg for figure in first] == [figure.svg for figure in second]


def test_selection_curves_are_shifted_to_mean_zero() -> None:
    assert plots.selection_curve(LEVELS, CURVE + 7.0).alt == plots.selection_curve(LEVELS, CURVE).alt


def test_figures_refuse_what_does_not_fit() -> None:
    with pytest.raises(DataError, match="equally long"):
        plots.selection_curve(LEVELS, CURVE[:4])
    with pytest.raises(DataError, match="both ends"):
        plots.selection_curve(LEVELS, CURVE, low=CURVE)
    with pytest.raises(DataError, match="1 to 3 distributions; found 0"):
        plots.marginals(LEVELS, {})
    with pytest.raises(DataError, match="must have a finite value"):
        plots.training_history([1, 2], [np.nan, np.nan])


def test_methods_table_shows_intervals_and_gaps() -> None:
    rows = pd.DataFrame(
        [("all", "mse", 0.8571, 0.8409, 0.8733, 10), ("all", "marginal_tv", 0.01, np.nan, np.nan, 10)],
        columns=["cells", "metric", "value", "lower", "upper", "n"],
    )
    found = methods_table({"ours": rows}, ("mse", "marginal_tv", "mae"))
    assert found.columns.tolist() == ["method", "MSE", "marginal distance", "MAE"]
    assert found.iloc[0].tolist() == ["ours", "0.857 [0.841, 0.873]", "0.010", "\u2013"]


def test_ranking_metrics_have_their_cutoff_in_the_heading() -> None:
    metrics = ("ndcg@5", "ndcg_pos@5", "recall_capped@10", "auc", "nll")
    rows = pd.DataFrame({"cells": "all", "metric": metrics, "value": 0.5, "lower": 0.4, "upper": 0.6, "n": 3})
    found = methods_table({"ours": rows}, metrics)
    assert found.columns.tolist() == [
        "method",
        "NDCG@5",
        "NDCG@5, users with positives",
        "recall@10, capped",
        "AUC",
        "NLL of labels",
    ]


def test_tables_align_numbers_and_format_values() -> None:
    table = pd.DataFrame({"name": ["a"], "count": [12345], "share": [0.123456], "gap": [np.nan], "ok": [True]})
    page = render_report(title="t", lede="", sections=[Section("s", table=table)])
    assert '<td class="number">12,345</td>' in page
    assert '<td class="number">0.1235</td>' in page
    assert "<td>a</td>" in page
    assert "<td>yes</td>" in page
    assert "\u2013</td>" in page


def test_facts_table() -> None:
    found = facts_table({"users": 2000, "preset": "r3-like", "none": None})
    assert found["value"].tolist() == ["2,000", "r3-like", "\u2013"]


def test_empty_table_is_a_head_only() -> None:
    page = render_report(title="t", lede="", sections=[Section("s", table=pd.DataFrame({"a": []}))])
    assert '<th scope="col">a</th>' in page


def test_report_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "report.html"
    write_report(path, title="t", lede="l", sections=[Section("s")])
    assert path.read_text(encoding="utf-8").endswith("</html>\n")
    assert [entry.name for entry in path.parent.iterdir()] == ["report.html"]
    with pytest.raises(DataError, match="cannot be written"):
        write_report(path.parent, title="t", lede="l", sections=[])
