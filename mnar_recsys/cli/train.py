"""``train``: from a rating log to a model folder."""

from pathlib import Path
from typing import Annotated

import typer

from mnar_recsys.cli.options import (
    Columns,
    Duplicates,
    Ids,
    Layout,
    Scale,
    Seed,
    make_settings,
    parse_propensities,
)
from mnar_recsys.cli.terminal import say
from mnar_recsys.config import DecoderName, MissingName, Sign


def train(
    ratings: Annotated[
        Path, typer.Argument(help="Rating file: CSV, TSV, Parquet or a known layout.", metavar="RATINGS")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the model; must be new or empty, unless --resume.")],
    preset: Annotated[
        str, typer.Option(help="Settings to start from: default, or yahoo-r3 (the paper's).")
    ] = "default",
    decoder: Annotated[DecoderName | None, typer.Option(help="Distribution of a rating given a user's taste.")] = None,
    missing: Annotated[
        MissingName | None, typer.Option(help="How the choice to rate depends on the rating (ignorable: not at all).")
    ] = None,
    sign: Annotated[
        Sign | None, typer.Option(help="Direction of selection; positive: people tend to rate what they like.")
    ] = None,
    known_propensities: Annotated[
        str | None,
        typer.Option(
            help="Known P(rated | rating), linear in the log-odds between; implies --missing known.",
            metavar="1=.02,5=.1",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Any other setting; repeat for more. The model's card.md lists them.", metavar="KEY=VALUE"
        ),
    ] = None,
    items: Annotated[
        Path | None, typer.Option(help="File with a column item: all items on offer, rated or not.")
    ] = None,
    scale: Scale = None,
    duplicates: Duplicates = "error",
    columns: Columns = None,
    ids: Ids = "auto",
    layout: Layout = "auto",
    seed: Seed = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")] = False,
) -> None:
    """Fit a model to a rating log.

    The joint model of the ratings and of the choice to rate; training stops by itself when it has converged.
    """
    points = parse_propensities(known_propensities)
    options = {
        "decoder": decoder,
        "missing": "known" if points and missing is None else missing,
        "sign": sign,
        "known_propensities": points,
    }
    chosen = make_settings(preset, options, settings or [])

    from mnar_recsys.cli.reading import check_model_folder, read_catalogue, read_log
    from mnar_recsys.cli.training import fit_to_folder

    check_model_folder(out, resume=resume)
    log = read_log(ratings, columns=columns, scale=scale, duplicates=duplicates, ids=ids, layout=layout)
    if items is not None:
        log = read_catalogue(items, log)
    say(fit_to_folder(chosen, log, out, seed=seed, resume=resume))
