"""Missing ratings drawn or summed out: a figure of what each decoder gains, from the cells of an ablation.

    mnar-recsys benchmark ... --models variants --settings docs/benchmark/ablation.settings.json --out ablation
    python -m benchmarks.estimators ablation/results.csv --plot estimators.svg [--json FILE]

A row is a decoder under some settings; every point of the figure is one fit.
"""

import json as json_text
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer
from rich.console import Console
from rich.table import Table

# Settings and decoder to the variants with ratings drawn and summed out.
PAIRS = {
    ("the paper's settings", "Gaussian"): ("notmiwae_gaussian+drawn", "notmiwae_gaussian+marginal"),
    ("the paper's settings", "categorical"): ("notmiwae_categorical+drawn", "notmiwae_categorical+marginal"),
    ("the paper's settings", "ordinal"): ("notmiwae_gaussian+ordinal_drawn", "notmiwae_gaussian+ordinal_marginal"),
    ("default settings", "Gaussian"): ("mnar+gaussian_sampled", "mnar+gaussian"),
    ("default settings", "categorical"): ("mnar+categorical_sampled", "mnar+categorical"),
    ("default settings", "ordinal"): ("mnar+sampled", "mnar+default"),
}
HOW = ("drawn", "summed out")


def errors(results: pd.DataFrame) -> dict[tuple[str, str], list[list[float]]]:
    """Return errors on all test cells, one a seed, drawn and summed out, of the rows that are there."""
    kept = results[(results["metric"] == "mse") & (results["cells"] == "all")]
    found = {
        row: [kept.loc[kept["model"] == variant, "value"].tolist() for variant in pair] for row, pair in PAIRS.items()
    }
    return {row: values for row, values in found.items() if all(values)}


def plot(found: dict[tuple[str, str], list[list[float]]], target: Path) -> None:
    """Draw a panel for each kind of settings: open points drawn, filled ones summed out."""
    from matplotlib.figure import Figure

    kinds = list(dict.fromkeys(kind for kind, _ in found))
    figure = Figure(figsize=(8, 1 + 1.6 * len(kinds)), layout="constrained")
    for panel, (kind, axes) in enumerate(
        zip(kinds, np.atleast_1d(figure.subplots(len(kinds), sharex=True)), strict=True)
    ):
        rows = [(decoder, values) for (of, decoder), values in found.items() if of == kind]
        for place, (_, pair) in enumerate(rows):
            for values, height, face, label in zip(pair, (0.12, -0.12), ("white", "black"), HOW, strict=True):
                axes.scatter(
                    values, np.full(len(values), place + height), s=36, facecolor=face, edgecolor="black",
                    label=label if place == 0 and panel == 0 else None,
                )  # fmt: skip
        axes.set_yticks(range(len(rows)), [decoder for decoder, _ in rows])
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_title(kind, loc="left", fontsize="medium")
        axes.grid(axis="x", color="0.85")
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    axes.set_xlabel("mean squared error on random ratings, squared rating points")
    figure.legend(loc="outside upper right", ncols=2, frameon=False, title="missing ratings")
    figure.savefig(target, metadata={"Date": None} if target.suffix == ".svg" else None)


def main(
    results: Annotated[Path, typer.Argument(help="results.csv of the ablation.")],
    plot_file: Annotated[Path | None, typer.Option("--plot", help="Draw the figure here.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the rows here as well.")] = None,
) -> None:
    """Print the table."""
    found = errors(pd.read_csv(results))
    if not found:
        raise typer.BadParameter(f"{results}: none of the variants is there; run the ablation first")
    table = Table(title="Mean squared error on random ratings, mean, least and most over seeds")
    for column in ("settings", "decoder", *HOW, "fits"):
        table.add_column(column)
    for (kind, decoder), pair in found.items():
        shown = (f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})" for values in pair)
        table.add_row(kind, decoder, *shown, " + ".join(str(len(values)) for values in pair))
    Console(width=120).print(table)
    if json is not None:
        rows = [
            {"settings": kind, "decoder": decoder, **dict(zip(HOW, pair, strict=True))}
            for (kind, decoder), pair in found.items()
        ]
        json.write_text(json_text.dumps(rows, indent=1) + "\n", encoding="utf-8")
    if plot_file is not None:
        plot(found, plot_file)


if __name__ == "__main__":
    typer.run(main)
