"""``train``: from a rating log to a model folder."""

from pathlib import Path
from typing import Annotated

import typer

from mnar_recsys.cli.options import (
    Assignments,
    Candidates,
    Catalogue,
    Columns,
    Decoder,
    Duplicates,
    Eligible,
    Ids,
    InferenceBy,
    ItemFeatures,
    KnownPropensities,
    Layout,
    McarLabels,
    Missing,
    PopulationMarginal,
    Preset,
    RatingsFile,
    Scale,
    Seed,
    Select,
    SelectionSign,
    SettingsFile,
    TensorBoard,
    UserFeatures,
    make_settings,
    model_options,
    parse_candidates,
)
from mnar_recsys.cli.terminal import say
from mnar_recsys.extras import check_extra


def train(
    ratings: RatingsFile,
    out: Annotated[Path, typer.Option(help="Folder for the model; must be new or empty, unless --resume.")],
    preset: Preset = "default",
    decoder: Decoder = None,
    missing: Missing = None,
    sign: SelectionSign = None,
    inference: InferenceBy = None,
    known_propensities: KnownPropensities = None,
    settings_file: SettingsFile = None,
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
    tensorboard: TensorBoard = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")] = False,
) -> None:
    """Fit a model to a rating log.

    The joint model of the ratings and of the choice to rate; training stops by itself when it has converged.
    The posterior of a small log is sampled.
    """
    options = model_options(
        decoder=decoder, missing=missing, sign=sign, inference=inference, known_propensities=known_propensities,
        population_marginal=population_marginal, settings_file=settings_file,
    )  # fmt: skip
    chosen = make_settings(preset, options, settings or [])
    candidates = parse_candidates(select, candidate, chosen, options, settings or [])

    from mnar_recsys.cli.model_selection import fit_chosen
    from mnar_recsys.cli.reading import check_model_folder, check_writable, read_training_logs
    from mnar_recsys.training.tensorboard import tensorboard_writer

    if tensorboard is not None:
        check_extra("tensorboard", "tensorboard", "--tensorboard")
        check_writable(tensorboard)
    check_model_folder(out, resume=resume)
    log, labels = read_training_logs(
        ratings, mcar_labels, user_features=user_features, item_features=item_features, items=items, eligible=eligible,
        scale=scale, duplicates=duplicates, columns=columns, ids=ids, layout=layout,
    )  # fmt: skip
    with tensorboard_writer(tensorboard) as on_step:
        say(fit_chosen(chosen, candidates, log, out, labels=labels, seed=seed, resume=resume, on_step=on_step))
