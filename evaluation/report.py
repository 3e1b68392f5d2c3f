"""A self-contained HTML page of a run: text, tables and figures, nothing loaded from elsewhere."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd

from evaluation.drawing import Figure
from mnar_recsys.files import write_text

_MISSING = "\u2013"
_HEADINGS = {
    "mse": "MSE",
    "rmse": "RMSE",
    "mae": "MAE",
    "log_likelihood": "log-likelihood",
    "coverage_90": "coverage",
    "coverage_90_model": "coverage, model's own",
    "coverage_90_gap": "coverage gap",
    "pit_coverage_90": "PIT coverage",
    "marginal_tv": "marginal distance",
    "marginal_wasserstein": "marginal shift",
    "auc": "AUC",
    "ndcg": "NDCG",
    "ndcg_pos": "NDCG, users with positives",
    "dcg": "DCG",
    "recall": "recall",
    "recall_capped": "recall, capped",
    "recall_pos": "recall, users with positives",
    "precision": "precision",
    "f1": "F1",
    "mse_label": "MSE of labels",
    "nll": "NLL of labels",
}
# Cells such as "0.857 [0.841, 0.873]", "12", "-3.5 %" stand right-aligned like numbers.
_NUMERIC = re.compile(r"[-+]?[\d,.]+( ?[%a-zA-Z]{0,3})?( \[.*\])?")


@dataclass(frozen=True)
class Section:
    """One part of the page: a heading, paragraphs, and perhaps a figure and a table, in that order."""

    heading: str
    text: str = ""
    """Plain text; an empty line starts a new paragraph."""
    figure: Figure | None = None
    table: pd.DataFrame | None = None
    """Shown without its index; a column of numbers is right-aligned."""


def write_report(path: str | Path, *, title: str, lede: str, sections: Sequence[Section]) -> None:
    """Write the page, whole or not at all.

    Parameters
    ----------
    path
        The HTML file.
    title
        Heading of the page.
    lede
        What the page says, in a sentence or two.

    Raises
    ------
    DataError
        If the file cannot be written.
    """
    write_text(path, render_report(title=title, lede=lede, sections=sections))


def render_report(*, title: str, lede: str, sections: Sequence[Section]) -> str:
    """Return the page as HTML. Every text is escaped; only a figure's SVG goes in as it is."""
    style = files("evaluation").joinpath("report.css").read_text(encoding="utf-8")
    body = "\n".join(_section_html(section) for section in sections)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n"
        f"<header>\n<h1>{escape(title)}</h1>\n{_paragraphs(lede, 'lede')}\n</header>\n"
        f"{body}\n</main>\n</body>\n</html>\n"
    )


def methods_table(
    results: Mapping[str, pd.DataFrame], metrics: Sequence[str] = ("mse", "mae"), cells: str = "all"
) -> pd.DataFrame:
    """Return one row a method, one column a metric, as ``value [lower, upper]``.

    Parameters
    ----------
    results
        Method name to the rows that ``evaluate`` returned.
    metrics
        Metric names, in the order of the columns; a method without one gets a dash.
    cells
        ``all`` or ``unseen``.
    """
    rows = []
    for method, table in results.items():
        values = table[table["cells"] == cells].set_index("metric")
        rows.append({"method": method} | {metric: _with_interval(values, metric) for metric in metrics})
    return pd.DataFrame(rows, columns=["method", *metrics]).rename(columns=_heading)


def facts_table(facts: Mapping[str, object]) -> pd.DataFrame:
    """Return facts of a run, name to value, as a table of two columns."""
    return pd.DataFrame({"fact": list(facts), "value": [_format(value) for value in facts.values()]})


def _heading(column: str) -> str:
    """Return a column's heading: ``ndcg_pos@5`` is NDCG@5, users with positives."""
    name, at, cutoff = column.partition("@")
    words, comma, rest = _HEADINGS.get(name, name).partition(",")
    return f"{words}{at}{cutoff}{comma}{rest}"


def _with_interval(values: pd.DataFrame, metric: str) -> str:
    if metric not in values.index:
        return _MISSING
    value, low, high = (float(values[column][metric]) for column in ("value", "lower", "upper"))
    return f"{value:.3f} [{low:.3f}, {high:.3f}]" if np.isfinite(low) else f"{value:.3f}"


def _section_html(section: Section) -> str:
    parts = [f"<h2>{escape(section.heading)}</h2>"]
    if section.text:
        parts.append(_paragraphs(section.text))
    if section.figure is not None:
        parts.append(_figure_html(section.figure))
    if section.table is not None:
        parts.append(_table_html(section.table, section.heading))
    return "<section>\n" + "\n".join(parts) + "\n</section>"


def _paragraphs(text: str, css_class: str = "") -> str:
    opening = f'<p class="{css_class}">' if css_class else "<p>"
    return "\n".join(f"{opening}{escape(part.strip())}</p>" for part in re.split(r"\n\s*\n", text) if part.strip())


def _figure_html(figure: Figure) -> str:
    labelled = figure.svg.replace("<svg", f'<svg role="img" aria-label="{escape(figure.alt)}"', 1)
    caption = f"<figcaption>{escape(figure.caption)}</figcaption>\n" if figure.caption else ""
    return f"<figure>\n{labelled}\n{caption}</figure>"


def _table_html(table: pd.DataFrame, label: str) -> str:
    cells = [[_format(value) for value in row] for row in table.itertuples(index=False)]
    numeric = [
        bool(cells) and all(_NUMERIC.fullmatch(value) or value == _MISSING for value in column)
        for column in zip(*cells, strict=True)
    ]
    numeric = numeric or [False] * table.shape[1]
    classes = [' class="number"' if is_number else "" for is_number in numeric]
    head = "".join(
        f'<th scope="col"{css}>{escape(str(name))}</th>' for css, name in zip(classes, table.columns, strict=True)
    )
    body = "\n".join(
        "<tr>"
        + "".join(f"<td{css}>{_cell_html(value)}</td>" for css, value in zip(classes, row, strict=True))
        + "</tr>"
        for row in cells
    )
    return (
        f'<div class="scroll" role="region" aria-label="Table: {escape(label)}" tabindex="0">\n<table>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n</div>"
    )


def _cell_html(text: str) -> str:
    """Return a cell's text; an interval goes under its value, which keeps the columns narrow on a phone."""
    value, bracket, interval = text.partition(" [")
    if not bracket or not _NUMERIC.fullmatch(text):
        return escape(text)
    return f'{escape(value)} <span class="interval">[{escape(interval)}</span>'


def _format(value: object) -> str:
    """Return a cell: integers with separators, other numbers with four digits, nothing as a dash."""
    if value is None or (isinstance(value, float | np.floating) and np.isnan(value)):
        return _MISSING
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    if isinstance(value, float | np.floating):
        number = float(value)
        return f"{number:.4g}" if abs(number) < 1000 else f"{number:,.0f}"
    return str(value)
