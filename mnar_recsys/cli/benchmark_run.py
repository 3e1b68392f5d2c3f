"""What ``benchmark`` does: choose methods and settings, fit, score, write."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from baselines.recbole_models import MODELS, RecBoleMethod
from baselines.registry import BASELINES
from evaluation.benchmark import CellFit, Entry, Failure, run_benchmark
from evaluation.benchmark_off_policy import OffPolicy, estimate_errors
from evaluation.labels import as_labels
from evaluation.protocols import P2, PROTOCOLS, Protocol, make_split
from evaluation.tables import markdown, mean_squared_errors, result_rows, summary_table
from evaluation.tuning import Trial, tune
from mnar_recsys.cli.joint_method import JOINT_METHODS, JointMethod
from mnar_recsys.cli.progress import progress
from mnar_recsys.cli.terminal import note, warn
from mnar_recsys.data import RatingLog, Split
from mnar_recsys.errors import ConfigError
from mnar_recsys.files import atomic_path, write_text
from mnar_recsys.propensity.registry import find_propensity

VARIANT = "+"
"""Between the name of a model and that of a variant of it."""
TRIALS = 12
"""Trials a method when tuning, its defaults among them."""


@dataclass(frozen=True)
class Request:
    """What was asked for."""

    split: Split
    protocol: Protocol
    """whose metrics stand beside the errors"""
    out: Path
    models: str
    """names with commas between them, or ``all``"""
    seeds: Sequence[int]
    jobs: int | str
    """processes at a time, or the address of a Ray cluster"""
    settings: Path | None
    tune: bool = False
    off_policy: str | None = None
    """propensities for estimates from held-out ratings; None for no estimates"""


@dataclass(frozen=True)
class BenchmarkRun:
    """What came out."""

    request: Request
    settings: Mapping[str, Mapping[str, Any]]
    fits: Sequence[CellFit]
    failures: Sequence[Failure]
    rows: pd.DataFrame
    """of results.csv"""
    table: pd.DataFrame
    """a line a model"""
    off_policy: OffPolicy | None


def run_benchmark_command(request: Request) -> str:
    """Run the benchmark, write its files and return what to print."""
    from mnar_recsys.cli.benchmark_report import write_benchmark_report

    settings: Mapping[str, Mapping[str, Any]] = read_settings(request.settings) if request.settings else {}
    names = choose_models(request.models, settings)
    if request.off_policy is not None:
        propensity = choose_propensity(request.off_policy, request.split)
    note(request.split.describe())
    if request.tune:
        settings = _tune(request, names, settings)
    entries = [_entry(name, settings.get(name, {})) for name in names]
    total = len(entries) * len(request.seeds)
    with progress("fitting", total, "cells") as advance:
        fits, failures = run_benchmark(
            entries,
            request.split,
            request.seeds,
            request.out / "cells",
            jobs=request.jobs,
            on_cell=lambda name, seed, kept: advance(1, f"{name}, seed {seed}{' (kept)' if kept else ''}"),
        )
    for failure in failures:
        warn(f"{failure.model}, seed {failure.seed}, was not run: {failure.reason}")
    if not fits:
        raise ConfigError("no method could be fitted; see the warnings above")
    estimates = None
    if request.off_policy is not None:
        with progress("estimating without the test", len(entries), "cells") as advance:
            estimates = estimate_errors(
                entries,
                request.split,
                request.out / "off_policy",
                propensity,
                jobs=request.jobs,
                on_cell=lambda name, _, kept: advance(1, f"{name}{' (kept)' if kept else ''}"),
            )
    note("scoring")
    rows = result_rows(fits, request.split, request.protocol)
    table = summary_table(fits, rows, request.split, request.protocol)
    run = BenchmarkRun(request, settings, fits, failures, rows, table, estimates)
    with atomic_path(request.out / "results.csv") as path:
        rows.to_csv(path, index=False)
    text = describe(run)
    write_text(request.out / "table.md", text)
    write_benchmark_report(run, request.out / "report.html")
    return (
        f"{text}\nWritten: {', '.join(str(request.out / name) for name in ('results.csv', 'table.md', 'report.html'))}"
    )


def benchmark_split(
    name: str, chosen: RatingLog, surveyed: RatingLog, labels: RatingLog | float | None
) -> tuple[Split, Protocol]:
    """Return the split of a protocol, and the protocol whose metrics stand beside the errors.

    ``labels`` may be trained on: a log of its own, or a share of ``surveyed`` to be drawn.

    P1 keeps ratings as they are, with the metrics of P2 beside its own on stars from 1 to 5. The others are run on
    labels of 0 and 1, as their papers do.

    Raises
    ------
    ConfigError
        If there is no such protocol, or it draws labels from the test and others are given.
    """
    if name not in PROTOCOLS:
        raise ConfigError(f"--protocol must be one of {', '.join(PROTOCOLS)}; found {name!r}")
    protocol = PROTOCOLS[name]
    if protocol.label_share and labels is not None:
        raise ConfigError(f"{name} draws its labels from --test; found others as well. Leave them out")
    if isinstance(labels, float):
        protocol, labels = replace(protocol, label_share=labels), None
    threshold = protocol.threshold
    if threshold is not None:
        chosen, surveyed = as_labels(chosen, threshold), as_labels(surveyed, threshold)
        labels = None if labels is None else as_labels(labels, threshold)
    split = make_split(protocol, chosen, surveyed).split
    if labels is not None:
        split = replace(split, mcar_labels=labels)
    if threshold is not None:
        return split, protocol.on_labels()
    levels = chosen.scale.levels
    is_stars = levels is not None and levels.tolist() == [1.0, 2.0, 3.0, 4.0, 5.0]
    return split, P2 if is_stars else protocol


def choose_propensity(name: str, split: Split) -> str:
    """Return the name, or for ``auto`` the model that makes most use of what there is: labels, then features.

    Raises
    ------
    ConfigError
        If there is no such model.
    """
    if name != "auto":
        find_propensity(name)
        return name
    log = split.mnar_train
    if split.mcar_labels is not None:
        return "multifactorial"
    has_features = log.user_features is not None or log.item_features is not None
    return "logistic" if has_features else "user_item_popularity"


def choose_models(text: str, settings: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the names asked for, in the order of the registry for ``all``; raise ConfigError for an unknown one.

    ``recbole`` are the models of RecBole, which ``all`` leaves out: they need an environment of their own.

    ``variants`` are all models with a + in ``settings``: ``mnar+gaussian`` is ``mnar`` with settings of its own.
    """
    known, variants = [*BASELINES, *JOINT_METHODS], [name for name in settings if VARIANT in name]
    if text == "all":
        return known
    known += MODELS
    if text == "variants" and variants:
        return variants
    asked = [name.strip() for name in text.split(",") if name.strip()]
    names = list(dict.fromkeys(name for one in asked for name in (MODELS if one == "recbole" else [one])))
    unknown = [name for name in names if name not in (*known, *variants)]
    if unknown or not names:
        raise ConfigError(
            f"--models must be all, recbole or names of {', '.join(known)}, or variants of these in --settings; "
            f"found {', '.join(unknown) or repr(text)}"
        )
    return names


def read_settings(path: Path) -> dict[str, dict[str, Any]]:
    """Return the settings by model of a JSON file.

    Raises
    ------
    ConfigError
        If the file is absent, not JSON, or names a model that does not exist.
    """
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give a file that --tune wrote") from error
    except ValueError as error:
        raise ConfigError(f"{path}: not JSON ({error}); give a file that --tune wrote") from error
    if not isinstance(stored, dict) or not all(isinstance(value, dict) for value in stored.values()):
        raise ConfigError(f'{path}: must hold settings by model, such as {{"mf": {{"size": 8}}}}; found something else')
    unknown = [name for name in stored if name.split(VARIANT)[0] not in (*BASELINES, *JOINT_METHODS, *MODELS)]
    if unknown:
        raise ConfigError(f"{path}: settings of unknown models: {', '.join(unknown)}; see --models for the names")
    return stored


def _entry(name: str, settings: Mapping[str, Any]) -> Entry:
    model = name.split(VARIANT, maxsplit=1)[0]
    if model in JOINT_METHODS:
        return Entry(name, JointMethod, {**JOINT_METHODS[model], **settings})
    if model in MODELS:
        return Entry(name, RecBoleMethod, {"model": model, **settings})
    return Entry(name, BASELINES[model], settings)


def _tune(
    request: Request, names: Sequence[str], settings: Mapping[str, Mapping[str, Any]]
) -> dict[str, Mapping[str, Any]]:
    """Try settings for the methods that have any, and write settings.json."""
    spaces = {name: BASELINES[name].search_space for name in names if name in BASELINES}
    entries = {name: (_entry(name, {}), space) for name, space in spaces.items() if space}
    with progress("tuning", TRIALS * len(entries), "trials at most,") as advance:

        def on_trial(name: str, trial: Trial) -> None:
            advance(1, f"{name} {trial.loss:.4f} in {trial.seconds:.0f} s")

        trials = tune(
            entries, request.split, request.out / "tuning", budget=TRIALS, jobs=request.jobs, on_trial=on_trial
        )
    chosen = {**settings, **{name: done[0].settings for name, done in trials.items()}}
    cost = sum(trial.seconds for done in trials.values() for trial in done)
    note(f"tuning: {sum(map(len, trials.values()))} trials, {cost:,.0f} s of fitting in all")
    write_text(request.out / "settings.json", json.dumps(chosen, indent=1) + "\n")
    return chosen


def describe(run: BenchmarkRun) -> str:
    """Return the table, what could not be run, and how the numbers were made, as Markdown."""
    split, seeds = run.request.split, run.request.seeds
    lines = [
        markdown(run.table),
        f"{split.describe()}. {len(seeds)} seed{'s' if len(seeds) > 1 else ''}. MSE on all test cells with a 95 % "
        "interval from resampled users (errors averaged over seeds); other metrics are means over seeds, on all cells "
        f"({run.request.protocol.describe()}). Seconds and memory of a fit are medians; memory includes the "
        "interpreter.",
    ]
    if run.off_policy is not None:
        errors = {name: interval.value for name, interval in mean_squared_errors(run.fits, split).items()}
        lines += [markdown(run.off_policy.table(errors)), off_policy_text(run.off_policy, errors)]
    if run.failures:
        reasons = dict.fromkeys((failure.model, failure.reason) for failure in run.failures)
        lines.append("Not run: " + "; ".join(f"{model} ({reason})" for model, reason in reasons) + ".")
    return "\n".join(lines) + "\n"


def off_policy_text(estimates: OffPolicy, errors: Mapping[str, float]) -> str:
    """Return how the estimates without a test were made, and how well they rank the methods."""
    ranks = estimates.rank_correlations(errors)
    text = (
        "MSE on all cells as estimated without the test: each method fitted once (seed 0) to nine tenths of the "
        f"self-selected ratings, its errors on the rest weighed by propensities ({estimates.propensity}) that were "
        "fitted to the same nine tenths; 95 % intervals by the jackknife over users, propensities taken as right."
    )
    if ranks:
        listed = ", ".join(f"{name} {value:.2f}" for name, value in ranks.items())
        text += f" Rank correlation with the MSE on the test: {listed}."
    return text
