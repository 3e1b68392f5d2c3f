"""How the time of a training step grows with the ratings of a user, the items, the samples and the latent size.

    python -m benchmarks.curves [--json FILE] [--plot FILE.png]

One thing varies at a time around the shape of Yahoo! R3. The exponent is the slope of log time over log size.
"""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.measure import Row, alone, measured, report
from benchmarks.shape import made_up_log
from benchmarks.step import BATCH, LATENT, SAMPLES, USERS
from mnar_recsys.config import preset
from mnar_recsys.model.build import build_model
from mnar_recsys.training import Trainer
from mnar_recsys.training.item_sample import DEFAULT_SIZE

BASE = {"ratings": 20, "items": 1000, "S": SAMPLES, "K": LATENT}
CURVES: dict[str, tuple[int, ...]] = {
    "ratings": (10, 20, 40, 80, 160),
    "items": (500, 1000, 2000, 4000, 8000),
    "S": (5, 10, 20, 40, 80),
    "K": (8, 15, 30, 60, 120),
}
LABELS = {"ratings": "mean ratings a user", "items": "items P", "S": "samples S", "K": "latent size K"}
KINDS: dict[str, int | str] = {"exact": "all", "subsampled": DEFAULT_SIZE}


def point(name: str, sizes: dict[str, int], repeats: int, **facts: Any) -> Row:
    """Measure a step at the given sizes."""
    log = made_up_log(USERS, sizes["items"], mean_ratings=sizes["ratings"])
    settings = preset("yahoo-r3").replace(
        {"samples": sizes["S"], "batch_size": BATCH, "latent_size": sizes["K"], "device": "cpu",
         "estimator": "marginal", "sampled_items": KINDS[name]}
    )  # fmt: skip
    trainer = Trainer(build_model(settings.model, log, 0), log, settings, seed=0)
    with trainer.compiling():
        return measured(name, sizes["items"], trainer.step, repeats=repeats, **facts)


def exponent(rows: list[Row]) -> float:
    """Return the slope of log time over log size, fitted by least squares."""
    sizes, times = np.array([(row.facts["size"], row.median_ms) for row in rows]).T
    return float(np.polyfit(np.log(sizes), np.log(times), 1)[0])


def plot(curves: dict[tuple[str, str], list[Row]], target: Path) -> None:
    """Draw a panel for each thing that varies, black and white."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, NullLocator, StrMethodFormatter

    figure = Figure(figsize=(9, 6), layout="constrained")
    # One scale of time, so that panels can be compared.
    for axes, what in zip(figure.subplots(2, 2, sharey=True).flat, CURVES, strict=True):
        for kind, style in zip(KINDS, ("o-", "s--"), strict=True):
            rows = curves[kind, what]
            label = f"{kind}, exponent {exponent(rows):.2f}"
            axes.loglog([r.facts["size"] for r in rows], [r.median_ms for r in rows], style, color="black", label=label)
        axes.set_xticks(CURVES[what], [f"{size:,}" for size in CURVES[what]])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel(LABELS[what])
        axes.set_ylabel("step, ms")
        axes.legend(frameon=False)
    figure.savefig(target, dpi=120)


def main(
    repeats: Annotated[int, typer.Option(min=1)] = 10,
    json: Annotated[Path | None, typer.Option(help="Write the rows here as well.")] = None,
    plot_file: Annotated[Path | None, typer.Option("--plot", help="Draw the curves here.")] = None,
) -> None:
    """Print the table, and the exponents."""
    curves: dict[tuple[str, str], list[Row]] = {}
    for kind in KINDS:
        for what, sizes in CURVES.items():
            curves[kind, what] = [
                alone(point, kind, BASE | {what: size}, repeats, varies=what, size=size) for size in sizes
            ]
            typer.echo(f"{kind}: time ~ {what}^{exponent(curves[kind, what]):.2f}", err=True)
    report([row for rows in curves.values() for row in rows], "A training step as sizes grow", json)
    if plot_file is not None:
        plot(curves, plot_file)


if __name__ == "__main__":
    typer.run(main)
