"""``tune``: search for the settings of a log by the likelihood of held-out users."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mnar_recsys.candidates import read_assignments
from mnar_recsys.cli.options import (
    Assignments,
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
    SelectionSign,
    SettingsFile,
    UserFeatures,
    make_settings,
    model_options,
)
from mnar_recsys.search_space import SPACE

if TYPE_CHECKING:
    from mnar_recsys.config import Settings
    from mnar_recsys.data import RatingLog
    from mnar_recsys.tuning import Tuning

_SEARCHED = ", ".join(f"{name} {one.low:g} to {one.high:g}" for name, one in SPACE.items())


def tune(
    ratings: RatingsFile,
    out: Annotated[
        Path, typer.Option(help="Folder for trials.csv, best.json and study.db; new or empty, unless --resume.")
    ],
    trials: Annotated[
        int, typer.Option(min=1, help=f"Settings to try, a fit each; searched are {_SEARCHED}.", metavar="N")
    ] = 30,
    preset: Preset = "default",
    decoder: Decoder = None,
    missing: Missing = None,
    sign: SelectionSign = None,
    inference: InferenceBy = None,
    known_propensities: KnownPropensities = None,
    settings_file: SettingsFile = None,
    settings: Assignments = None,
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
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the search in --out.")] = False,
) -> None:
    """Search for sizes, priors and steps that suit a log.

    By the joint likelihood of users held out of all fits; no random ratings are needed. What is stated (--set) is not
    searched. `train RATINGS --settings best.json` then fits the best to all users.
    """
    options = model_options(
        decoder=decoder, missing=missing, sign=sign, inference=inference, known_propensities=known_propensities,
        population_marginal=population_marginal, settings_file=settings_file,
    )  # fmt: skip
    chosen = make_settings(preset, options, settings or [])
    fixed = (*options, *read_assignments(settings or [], "--set"))

    from mnar_recsys.cli.reading import check_writable, read_training_logs
    from mnar_recsys.extras import check_extra

    check_extra("optuna", "tune", "tune")
    check_writable(out)
    log, labels = read_training_logs(
        ratings, mcar_labels, user_features=user_features, item_features=item_features, items=items, eligible=eligible,
        scale=scale, duplicates=duplicates, columns=columns, ids=ids, layout=layout,
    )  # fmt: skip
    _search(log, chosen, out, trials, fixed=fixed, labels=labels, seed=seed, resume=resume)


def _search(
    log: "RatingLog",
    settings: "Settings",
    out: Path,
    trials: int,
    *,
    fixed: Sequence[str],
    labels: "RatingLog | None",
    seed: int,
    resume: bool,
) -> None:
    """Search with progress on stderr, print the trials, and warn of what is doubtful."""
    import optuna

    from mnar_recsys.cli.failures import InterruptedRunError
    from mnar_recsys.cli.progress import progress
    from mnar_recsys.cli.terminal import note, say, warn
    from mnar_recsys.cli.training import status
    from mnar_recsys.training import BoundTerms, Trainer
    from mnar_recsys.tuning import BEST, tune_settings

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    reached = 0
    try:
        with progress("tuning", trials, "trials,") as advance:

            def on_trial(tuning: "Tuning") -> None:
                nonlocal reached
                advance(len(tuning.trials) - reached, _standing(tuning))
                reached = len(tuning.trials)

            def on_step(trainer: Trainer, terms: BoundTerms) -> None:
                advance(0, f"step {trainer.progress.step:,}, {status(trainer, terms)}")

            tuning = tune_settings(
                log,
                settings,
                folder=out,
                trials=trials,
                fixed=tuple(fixed),
                labels=labels,
                seed=seed,
                resume=resume,
                on_trial=on_trial,
                on_step=on_step,
            )
    except KeyboardInterrupt as interrupt:
        left = f"{out} holds {reached} of {trials} trials; go on with the same command and --resume"
        raise InterruptedRunError(left if reached else "no trial had ended yet; --resume begins anew") from interrupt
    say("Joint bound of held-out users, nats a user (higher is better)")
    say(f"{as_text(tuning)}\n")
    for doubt in tuning.doubts():
        warn(doubt)
    note(f"{out / BEST}: the settings of trial {tuning.best.number}; train with --settings {out / BEST}")


def _standing(tuning: "Tuning") -> str:
    last = tuning.trials[-1]
    return f"trial {last.number} {last.outcome}"


def as_text(tuning: "Tuning") -> str:
    """Return the trials as aligned text: finished ones from the best, then the others."""
    from mnar_recsys.cli.terminal import table

    frame = tuning.table.sort_values("held_out", ascending=False, kind="stable", na_position="last")
    searched = list(tuning.trials[0].changes)
    rows = [
        [
            record["trial"],
            *([f"{record['held_out']:.3f}", f"{record['difference']:+.3f} ({record['se']:.3f})"]
              if record["outcome"] == "finished" else [record["outcome"], ""]),
            *[f"{record[name]:g}" for name in searched],
            f"{record['seconds']:.0f}",
            "best" if record["best"] else "",
        ]
        for record in frame.to_dict("records")
    ]  # fmt: skip
    return table(["trial", "bound", "less trial 0 (se)", *searched, "seconds", ""], rows)
