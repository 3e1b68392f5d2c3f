"""``train``: from a rating log to a model folder."""

from pathlib import Path
from typing import Annotated

import typer

from mnar_recsys.cli.options import (
    Assignments,
    Candidates,
    Catalogue,
    Columns,
    Duplicates,
    Eligible,
    Ids,
    InferenceBy,
    ItemFeatures,
    KnownPropensities,
    Layout,
    McarLabels,
    PopulationMarginal,
    Scale,
    Seed,
    Select,
    UserFeatures,
    make_settings,
    parse_candidates,
    parse_propensities,
    parse_shares,
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
    inference: InferenceBy = None,
    known_propensities: KnownPropensities = None,
    settings: Assignments = None,
    select: Select = False,
    candidate: Candidates = None,
    mcar_labels: McarLabels = None,
    population_marginal: PopulationMarginal = None,
    user_features: UserFeatures = None,
    item_features: ItemFeatures = None,
    items: Catalogue = None,
    eligible: Eligible = None,
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
    The posterior of a small log is sampled.
    """
    points = parse_propensities(known_propensities)
    options = {
        "decoder": decoder,
        "missing": "known" if points and missing is None else missing,
        "sign": sign,
        "inference": inference,
        "known_propensities": points,
        "population_marginal": parse_shares(population_marginal),
    }
    chosen = make_settings(preset, options, settings or [])
    candidates = parse_candidates(select, candidate, chosen, options, settings or [])

    from mnar_recsys.cli.model_selection import fit_chosen
    from mnar_recsys.cli.reading import check_model_folder, read_catalogue, read_log, with_eligible, with_features

    check_model_folder(out, resume=resume)
    log = read_log(ratings, columns=columns, scale=scale, duplicates=duplicates, ids=ids, layout=layout)
    if items is not None:
        log = read_catalogue(items, log)
    log = with_features(with_eligible(log, eligible), user_features, item_features)
    labels = None
    if mcar_labels is not None:
        labels = read_log(mcar_labels, columns=columns, like=log, duplicates=duplicates, layout=layout)
    say(fit_chosen(chosen, candidates, log, out, labels=labels, seed=seed, resume=resume))
