"""``train --select``: choose settings by the likelihood of held-out users, then fit them to all users."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from mnar_recsys.cli.progress import progress
from mnar_recsys.cli.terminal import note, say, table, warn
from mnar_recsys.cli.training import fit_to_folder, status
from mnar_recsys.config import Settings
from mnar_recsys.data import RatingLog, add_survey
from mnar_recsys.errors import ModelFolderError
from mnar_recsys.files import atomic_path
from mnar_recsys.model_folder import read_model
from mnar_recsys.model_selection import CandidateScore, Selection, decide, select_settings
from mnar_recsys.recommender import OnStep
from mnar_recsys.training import BoundTerms, Trainer

TABLE = "selection.csv"


def fit_chosen(
    settings: Settings,
    candidates: Mapping[str, Settings] | None,
    log: RatingLog,
    out: Path,
    *,
    labels: RatingLog | None,
    seed: int,
    resume: bool,
    on_step: OnStep | None = None,
) -> str:
    """Fit the settings, or the candidate that is chosen, to all users; return a summary of the fit.

    ``on_step`` is for that last fit, as of ``MNARRecommender.fit``.

    ``candidates`` is None where no choice is wanted, and empty where the default ones are to compete.
    """
    if candidates is None:
        return fit_to_folder(settings, log, out, labels=labels, seed=seed, resume=resume, on_step=on_step)
    rivals = candidates or None
    if resume:
        chosen = _chosen_before(decide(log if labels is None else add_survey(log, labels), rivals, settings), out)
        return fit_to_folder(chosen, log, out, labels=labels, seed=seed, resume=True, on_step=on_step)
    selection = _choose(settings, rivals, log, labels=labels, seed=seed)
    try:
        return fit_to_folder(selection.best, log, out, labels=labels, seed=seed, resume=False, on_step=on_step)
    finally:
        if out.is_dir():  # finished, or interrupted with a checkpoint to go on from
            with atomic_path(out / TABLE) as path:
                selection.table.to_csv(path, index=False)


def _chosen_before(decided: Mapping[str, Settings], out: Path) -> Settings:
    """Return the settings in the folder of the interrupted run; the choice was made before its first checkpoint."""
    settings = read_model(out).settings
    name = next((name for name, one in decided.items() if one == settings), None)
    if name is None:
        raise ModelFolderError(f"{out}: its settings are none of the candidates'; resume with the first run's options")
    note(f"going on with the choice of the first run, {name}")
    return settings


def _choose(
    settings: Settings,
    candidates: Mapping[str, Settings] | None,
    log: RatingLog,
    *,
    labels: RatingLog | None,
    seed: int,
) -> Selection:
    """Compare the candidates with progress on stderr; print the table, and warn of what is doubtful."""
    count = len(candidates or decide(log, None, settings))
    note(f"choosing among {count} candidates: each is fitted, and scored on users held out of all fits")
    with progress("choosing", count, "candidates,") as advance:

        def on_candidate(score: CandidateScore) -> None:
            advance(1, f"{score.name}: {score.bounds.mean():.2f} nats a held-out user")

        def on_step(trainer: Trainer, terms: BoundTerms) -> None:
            advance(0, f"step {trainer.progress.step:,}, {status(trainer, terms)}")

        selection = select_settings(
            log,
            candidates,
            settings=settings,
            labels=labels,
            seed=seed,
            on_candidate=on_candidate,
            on_step=on_step,
        )
    say(f"Joint bound of {selection.n_users:,} held-out users, nats a user (higher is better)")
    say(f"{as_text(selection.table)}\n")
    for doubt in selection.doubts():
        warn(doubt)
    return selection


def as_text(scores: pd.DataFrame) -> str:
    """Return the table of a selection as aligned text."""
    headers = ["candidate", "bound", "less the best (se)", "selection", "mean of unrated", "seconds", ""]
    rows = [
        [
            row.candidate,
            f"{row.held_out:.3f}",
            f"{row.difference:.3f} ({row.se:.3f})",
            f"{row.selection:+.2f}",
            f"{row.mean_unrated:.3f}",
            f"{row.seconds:.0f}",
            "chosen" if row.chosen else "as good" if row.within_se else "",
        ]
        for row in scores.itertuples()
    ]
    return table(headers, rows)
