"""The command line: the verbs, ``--version``, and how a run ends."""

import sys
from collections.abc import Sequence
from importlib.metadata import version as installed_version
from typing import Annotated

import typer

from mnar_recsys.cli.benchmark import benchmark
from mnar_recsys.cli.demo import demo
from mnar_recsys.cli.evaluate import evaluate
from mnar_recsys.cli.failures import run
from mnar_recsys.cli.impute import impute
from mnar_recsys.cli.inspect_log import inspect
from mnar_recsys.cli.paper import paper
from mnar_recsys.cli.predict import predict
from mnar_recsys.cli.report import report
from mnar_recsys.cli.sensitivity import sensitivity
from mnar_recsys.cli.simulate import simulate
from mnar_recsys.cli.summarize import summarize
from mnar_recsys.cli.train import train
from mnar_recsys.cli.tune import tune

app = typer.Typer(
    name="mnar-recsys",
    help="Debiased rating predictions from self-selected rating logs (not-MIWAE).",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _version(*, wanted: bool) -> None:
    if wanted:
        typer.echo(f"mnar-recsys {installed_version('mnar-recsys')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=lambda wanted: _version(wanted=wanted), is_eager=True, help="Say the version."
        ),
    ] = False,
) -> None:
    pass


for verb in (
    demo,
    simulate,
    inspect,
    train,
    tune,
    predict,
    impute,
    summarize,
    sensitivity,
    report,
    evaluate,
    benchmark,
):
    app.command()(verb)
app.add_typer(paper, name="paper")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0, 2 for bad input, 130 after an interrupt."""
    given = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    return run(lambda: app(args=given, prog_name="mnar-recsys", standalone_mode=False))
