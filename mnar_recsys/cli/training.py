"""Fitting a model with progress on stderr, and what is said of the fit."""

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np

from mnar_recsys.cli.failures import InterruptedRunError
from mnar_recsys.cli.progress import progress
from mnar_recsys.cli.sampling import sampling_progress, sampling_table, warn_of_chains
from mnar_recsys.cli.terminal import facts, is_first, note, table, warn
from mnar_recsys.config import Settings
from mnar_recsys.data import RatingLog, add_survey
from mnar_recsys.model.tensor_file import read_facts
from mnar_recsys.model_card import gave_up_selection, selection_by_level
from mnar_recsys.model_folder import CHECKPOINT, DATA_FILES, FittedModel
from mnar_recsys.prediction.unrated import mean_of_unrated
from mnar_recsys.recommender import MNARRecommender, OnStep
from mnar_recsys.training import BoundTerms, Trainer

NO_SELECTION = 0.05
"""Log-odds between the ends of the scale below which a slope that has a sign is taken to have met its boundary."""


def fit_to_folder(
    settings: Settings,
    log: RatingLog,
    out: Path,
    *,
    labels: RatingLog | None = None,
    seed: int,
    resume: bool,
    on_step: OnStep | None = None,
) -> str:
    """Fit, write the model folder, warn of what is doubtful, and return a summary of the fit.

    ``on_step`` is called beside the progress that is shown.
    """
    start = time.perf_counter()
    note(f"training on {log.n_ratings:,} ratings of {log.n_items:,} items by {log.n_users:,} users")
    if labels is not None:
        note(f"and on {labels.n_ratings:,} randomly collected ratings (MCAR labels), mean {labels.values.mean():.3f}")
        log = add_survey(log, labels)
    recommender = MNARRecommender(settings)
    decided = settings.resolve_for(log)
    try:
        with ExitStack() as stack:
            show = stack.enter_context(training_progress("training", decided))

            def watch(trainer: Trainer, terms: BoundTerms) -> None:
                show(trainer, terms)
                if on_step and is_first():
                    on_step(trainer, terms)

            with sampling_progress(decided, stack.close) as on_draw:
                recommender.fit(log, seed=seed, folder=out, resume=resume, on_step=watch, on_draw=on_draw)
    except KeyboardInterrupt as interrupt:
        raise InterruptedRunError(_what_is_left(out)) from interrupt
    finally:
        if is_first():
            _remove_unusable(out)
    if not is_first():
        return ""
    seconds = time.perf_counter() - start
    warn_of_sign(recommender.fitted)
    if recommender.fitted.draws is not None:
        warn_of_chains(recommender.fitted.draws.report)
    return _summary(recommender, out, seconds)


@contextmanager
def training_progress(label: str, settings: Settings) -> Iterator[OnStep]:
    """Give a callback for ``fit`` that shows the bound, the held-out bound and the selection as training goes on."""
    most = settings.training.most_steps
    unit = "steps," if settings.training.stop == "never" else "steps at most,"
    with progress(label, most, unit) as advance:
        reached, is_second = 0, False

        def on_step(trainer: Trainer, terms: BoundTerms) -> None:
            nonlocal reached, is_second
            step = trainer.progress.step
            if step < reached:
                reached, is_second = 0, True
            advance(step - reached, ("again without selection, " if is_second else "") + status(trainer, terms))
            reached = step

        yield on_step


def status(trainer: Trainer, terms: BoundTerms) -> str:
    """Return where a run stands."""
    text = f"bound {terms.bound:.2f}"
    if trainer.progress.history:
        last = trainer.progress.history[-1]
        if np.isfinite(last["held_out"]):
            text += f", held out {last['held_out']:.2f} (kept: step {trainer.progress.best_step:,})"
        text += f", selection {last['selection']:+.2f}"
    return text


def _remove_unusable(folder: Path) -> None:
    """Remove what is left of a run that ended inside its first checkpoint: it neither loads nor resumes."""
    if any((folder / name).exists() for name in (CHECKPOINT, "weights.safetensors")):
        return
    for name in (*DATA_FILES, "history.csv"):
        (folder / name).unlink(missing_ok=True)
    with suppress(OSError):  # not there, or holding what is not ours
        folder.rmdir()


def _what_is_left(out: Path) -> str:
    if not (out / CHECKPOINT).exists():
        return "there was no checkpoint yet; nothing is left behind"
    if read_facts(out / CHECKPOINT)["progress"]["finished"]:
        return f"{out} holds the short fit that the chains start from; the same command and --resume samples anew"
    return f"the last checkpoint is in {out}; go on with the same command and --resume"


def warn_of_sign(fitted: FittedModel) -> None:
    """Warn where the data push a slope that has a sign to its boundary."""
    model = fitted.settings.model
    if model.sign == "free" or model.missing in ("ignorable", "known"):
        return
    curve = list(selection_by_level(fitted).values())
    strength = abs(curve[-1] - curve[0])
    if gave_up_selection(fitted):
        note(
            "the log is explained no worse without selection: what people rated does not depend on what they thought "
            "of it, as far as this log tells, and none is assumed (--missing per-level fits one all the same)"
        )
    elif strength < NO_SELECTION:
        liked = "like" if model.sign == "positive" else "dislike"
        warn(
            f"the data do not support --sign {model.sign} (people tend to rate what they {liked}): the fitted "
            f"selection is {strength:.3f} nats between the ends of the scale, its boundary; try --sign free, and look "
            "at `inspect` before trusting the debiased predictions"
        )


def _summary(recommender: MNARRecommender, out: Path, seconds: float) -> str:
    fitted = recommender.fitted
    curve = selection_by_level(fitted)
    unrated, error = mean_of_unrated(recommender.predictor)
    lines = [
        ("training", stopping(fitted)),
        ("mean of the given ratings", f"{fitted.log.chosen.values.mean():.3f}"),
        ("mean of the unrated cells", f"{unrated:.3f} as predicted (standard error {error:.3f}, a sample of cells)"),
        ("time", f"{seconds:.0f} s"),
        ("peak memory", f"{peak_megabytes():,.0f} MB"),
        ("model", str(out)),
    ]
    rows = [[f"{rating:g}", f"{value:+.2f}"] for rating, value in curve.items()]
    title = "Fitted selection: log-odds that a rating adds to being given"
    text = f"{facts(lines)}\n\n{title}\n{table(['rating', 'log-odds'], rows)}"
    return text if fitted.draws is None else f"{text}\n\n{sampling_table(fitted.draws.report)}"


def stopping(fitted: FittedModel) -> str:
    """Return how long training took, in steps, and why it stopped."""
    if not fitted.history:
        return "no history"
    steps, training = int(fitted.history[-1]["step"]), fitted.settings.training
    if training.stop == "never":
        return f"{steps:,} steps, as set"
    if training.stop == "converged":
        why = "max_steps reached before the bound converged" if steps >= training.most_steps else "the bound converged"
        if training.inference == "mcmc":
            why = "where the chains started"
        return f"{steps:,} steps on all users ({why}); bound {fitted.history[-1]['bound']:.2f} nats a user"
    best = max(fitted.history, key=lambda row: row["held_out"])
    why = "max_steps reached" if steps >= training.most_steps else "the held-out bound no longer rose"
    at_best = f"best held-out bound {best['held_out']:.2f} nats a user, at step {best['step']:,.0f}"
    kept = fitted.kept_step
    also = "" if kept in (None, best["step"]) else f"; the weights are of step {kept:,.0f}"
    return f"{steps:,} steps ({why}); {at_best}{also}"


def peak_megabytes() -> float:
    """Return the most memory this process has held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)
