"""``paper``: the paper's tables and figures on complete-data matrices, remade beside what it prints."""

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mnar_recsys.cli.options import Seed
from mnar_recsys.cli.progress import Advance, progress
from mnar_recsys.cli.terminal import interval, note, say, table
from mnar_recsys.errors import ConfigError

if TYPE_CHECKING:
    from evaluation.paper.clipping import Clipped
    from evaluation.paper.clipping import Row as ImageRow
    from evaluation.paper.uci import Row
    from evaluation.report import Section

paper = typer.Typer(no_args_is_help=True, help="Remake the tables and figures of the not-MIWAE paper.")

Csv = Annotated[Path, typer.Option(help="Complete table with a header; the paper's are UCI's.")]
Target = Annotated[str | None, typer.Option(help="Column to drop; the last one if left out.")]
Quick = Annotated[bool, typer.Option("--quick", help="A tenth of the iterations and importance samples.")]
Runs = Annotated[int, typer.Option(min=1, help="Runs; those of one model train side by side.")]
Methods = Annotated[str | None, typer.Option(help="Rows to make; all if left out.", metavar="A,B,...")]
Out = Annotated[Path | None, typer.Option(help="Folder for a CSV file, or an HTML page with the figure.")]
Images = Annotated[Path | None, typer.Option(help="An .npz file of images; scikit-learn's digits if left out.")]
Iterations = Annotated[
    int | None,
    typer.Option(
        min=1, help="Steps of each model; 100,000 for tables as in the paper, 20,000 for images, if left out."
    ),
]

_IMAGE_ITERATIONS = 20_000


@paper.command()
def table1(
    csv: Csv,
    target: Target = None,
    methods: Methods = None,
    runs: Runs = 5,
    iterations: Iterations = None,
    quick: Quick = False,
    out: Out = None,
) -> None:
    """Impute a table half of whose features are hidden above their mean: error of every method.

    Without --quick a joint model makes 100,000 steps, some minutes a row.
    """
    rows, column = _uci(csv, target, methods, iterations, runs=runs, quick=quick, joint_only=False)
    from evaluation.paper.printed import TABLE_1

    body = [
        [
            row.method,
            _mean_and_error(row.rmse),
            _mean_and_error(row.rmse_paper),
            "-" if column is None else f"{TABLE_1[row.method][column]:.2f}",
            f"{row.seconds:,.0f}",
        ]
        for row in rows
    ]
    headers = ["method", "RMSE", "imputed as in the paper", "printed", "seconds, all runs"]
    say(table(headers, body))
    _save(out, "table1", headers, body)


@paper.command("tableA1")
def table_a1(
    csv: Csv,
    target: Target = None,
    methods: Methods = None,
    runs: Runs = 5,
    iterations: Iterations = None,
    quick: Quick = False,
    out: Out = None,
) -> None:
    """Say how often the mask of complete rows is told rightly by each fitted missing model."""
    rows, column = _uci(csv, target, methods, iterations, runs=runs, quick=quick, joint_only=True)
    from evaluation.paper.printed import TABLE_A1

    printed = {name: "-" if column is None else f"{values[column]:.2f}" for name, values in TABLE_A1.items()}
    body = [[row.method, _mean_and_error(row.accuracy), printed[row.method]] for row in rows]
    headers = ["method", "accuracy", "printed"]
    say(table(headers, body))
    _save(out, "tableA1", headers, body)


@paper.command()
def fig1b(quick: Quick = False, seed: Seed = 0, out: Out = None) -> None:
    """Find the centre and direction of Gaussian data, one feature of which is missing above its mean."""
    from evaluation.paper import gaussian_example
    from evaluation.paper.figures import gaussian_section

    iterations = 10_000 if quick else 100_000
    with progress("training", 2 * iterations, "steps") as advance:
        example = gaussian_example.run(iterations=iterations, seed=seed, on_step=_by_method(advance))
    body = [
        [fit.name, f"{fit.mean[0]:.3f}", f"{fit.mean[1]:.3f}", f"{fit.angle:.1f}"]
        for fit in (example.truth, *example.fits)
    ]
    error = [f"{value:.3f}" for value in example.mean_error]
    body.append(["standard error of complete data", *error, f"{example.angle_error:.1f}"])
    say(table(["", "mean of x1", "mean of x2", "principal direction, degrees"], body))
    _page(out, "fig1b", "Figure 1b, remade", [gaussian_section(example)])


@paper.command()
def table2(
    images: Images = None, iterations: Iterations = None, quick: Quick = False, seed: Seed = 0, out: Out = None
) -> None:
    """Impute images whose bright pixels are missing: error, and likelihood of complete test images.

    With --out, figures 2 and 3 are drawn from the same fits.
    """
    from evaluation.paper.figures import histogram_section, image_section

    data, rows = _clipping(images, iterations, quick=quick, seed=seed)
    _page(out, "table2", "Table 2, figures 2 and 3, remade", [histogram_section(data, rows), image_section(data, rows)])
    headers = [
        "method",
        "RMSE [95 %]",
        "imputed as in the paper",
        "test log-likelihood",
        "RMSE, SVHN",
        "log-likelihood, SVHN",
        "seconds",
    ]
    body = [_image_cells(row) for row in rows]
    say(table(headers, body))
    _save(out, "table2", headers, body)


@paper.command()
def fig2(
    images: Images = None, iterations: Iterations = None, quick: Quick = False, seed: Seed = 0, out: Out = None
) -> None:
    """Draw how the imputed pixels are distributed, beside the true ones."""
    from evaluation.paper.clipping import CLIPPED_AT
    from evaluation.paper.figures import histogram_section

    data, rows = _clipping(images, iterations, quick=quick, seed=seed)
    hidden = ~data.observed
    shown = [(row.method, row.imputed[hidden]) for row in rows if row.imputed is not None]
    shown.append(("truth", data.train[hidden]))
    body = [[name, f"{values.mean():.3f}", f"{(values > CLIPPED_AT).mean():.0%}"] for name, values in shown]
    say(table(["hidden pixels", "mean", f"above {CLIPPED_AT}"], body))
    _page(out, "fig2", "Figure 2, remade", [histogram_section(data, rows)])


@paper.command()
def fig3(
    images: Images = None, iterations: Iterations = None, quick: Quick = False, seed: Seed = 0, out: Out = None
) -> None:
    """Draw images, what was left of them, and what the models put in."""
    from evaluation.paper.figures import image_section

    if out is None:
        raise ConfigError("fig3 is a picture; say which folder it goes to with --out")
    data, rows = _clipping(images, iterations, quick=quick, seed=seed)
    _page(out, "fig3", "Figure 3, remade", [image_section(data, rows)])


def _uci(
    csv: Path,
    target: str | None,
    methods: str | None,
    iterations: int | None,
    *,
    runs: int,
    quick: bool,
    joint_only: bool,
) -> "tuple[list[Row], int | None]":
    """Read the table, fit the methods, and say which of the paper's columns it is, if one."""
    from evaluation.paper.printed import DATA_SETS, TABLE_A1, column_of
    from evaluation.paper.self_masked import SelfMasked, read_complete
    from evaluation.paper.uci import DRAWS, ITERATIONS, JOINT, METHODS, compare

    known = tuple(TABLE_A1) if joint_only else METHODS
    chosen = known if methods is None else tuple(methods.split(","))
    for method in chosen:
        if method not in known:
            raise ConfigError(f"--methods: unknown method '{method}'; known methods: {', '.join(known)}")
    data = SelfMasked.of(read_complete(csv, target))
    n_rows, n_features = data.complete.shape
    column = column_of((n_rows, n_features))
    named = "not one of the paper's" if column is None else f"the paper's {DATA_SETS[column]}"
    note(f"{csv}: {n_rows:,} rows x {n_features} features, {named}; {(~data.observed).mean():.0%} of the values hidden")
    share = 10 if quick else 1
    steps, draws = max(1, (iterations or ITERATIONS) // share), DRAWS // share
    with progress("training", len(set(chosen) & set(JOINT)) * steps, "steps") as go:
        rows = list(compare(data, chosen, runs=runs, iterations=steps, draws=draws, on_step=_by_method(go)))
    return rows, column


def _clipping(
    images: Path | None, iterations: int | None, *, quick: bool, seed: int
) -> "tuple[Clipped, list[ImageRow]]":
    """Read and clip the images, and fit the rows of table 2."""
    from evaluation.paper.clipping import Clipped, Draws, compare, digits, read_images

    data = Clipped.of(digits() if images is None else read_images(images), seed)
    # The paper's widths, or a quarter of them for images of a sixteenth of the size.
    channels = (64, 128, 256) if min(data.shape) > 16 else (16, 32, 64)
    steps = (iterations or _IMAGE_ITERATIONS) // (10 if quick else 1)
    draws = Draws(20, 200) if quick else Draws(200, 2_000)
    hidden = (~data.observed).mean()
    note(f"{len(data.train):,} images {data.shape}; {hidden:.0%} of the pixels hidden; {steps:,} steps")
    with progress("training", 3 * steps, "steps") as advance:
        rows = list(
            compare(data, iterations=steps, draws=draws, channels=channels, seed=seed, on_step=_by_method(advance))
        )
    return data, rows


def _image_cells(row: "ImageRow") -> list[str]:
    from evaluation.paper.printed import TABLE_2

    error = "-" if row.rmse is None or row.interval is None else interval(row.rmse, row.interval, 4)
    likelihood = "-" if row.log_likelihood is None else f"{row.log_likelihood:.2f}"
    by_paper = "-" if row.rmse_paper is None else f"{row.rmse_paper:.4f}"
    printed = ["-" if value is None else f"{value:g}" for value in TABLE_2[row.method]]
    return [row.method, error, by_paper, likelihood, *printed, f"{row.seconds:,.0f}"]


def _by_method(advance: Advance) -> Callable[[str, int, int], None]:
    """Return what moves the bar as each method's steps go by."""
    done: dict[str, int] = {}

    def look(method: str, step: int, steps: int) -> None:
        advance(step - done.get(method, 0), f"{method}, step {step:,} of {steps:,}")
        done[method] = step

    return look


def _mean_and_error(values: Sequence[float] | None) -> str:
    """Return ``1.234 (0.005)``: the mean of the runs and its standard error."""
    if values is None:
        return "-"
    spread = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return f"{statistics.fmean(values):.3f} ({spread:.3f})"


def _save(out: Path | None, name: str, headers: Sequence[str], body: Sequence[Sequence[str]]) -> None:
    if out is not None:
        import pandas as pd

        from mnar_recsys.files import atomic_path

        with atomic_path(out / f"{name}.csv") as path:
            pd.DataFrame(body, columns=list(headers)).to_csv(path, index=False)
        note(f"{out / name}.csv")


def _page(out: Path | None, name: str, title: str, sections: "Sequence[Section]") -> None:
    if out is not None:
        from evaluation.report import write_report

        lede = "Ipsen, Mattei & Frellsen (ICLR 2021), with the data at hand."
        write_report(out / f"{name}.html", title=title, lede=lede, sections=sections)
        note(f"{out / name}.html")
