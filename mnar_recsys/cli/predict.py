"""``predict``: debiased predictions to a file."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mnar_recsys.cli.options import ModelFolder, PairColumns, Ray
from mnar_recsys.cli.progress import progress
from mnar_recsys.cli.terminal import note, say, warn
from mnar_recsys.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mnar_recsys.data import RatingLog
    from mnar_recsys.prediction.conformal import ConformalIntervals
    from mnar_recsys.prediction.export import ExportSummary
    from mnar_recsys.prediction.pair_blocks import PairRequest
    from mnar_recsys.prediction.predictor import Predictor
    from mnar_recsys.recommender import MNARRecommender

_Labels = Annotated[
    Path | None,
    typer.Option(
        help="Randomly collected ratings that were not trained on: adds lower and upper, the ends of intervals whose "
        "coverage is guaranteed for unrated pairs drawn like these.",
        metavar="LABELS",
    ),
]
_Coverage = Annotated[float | None, typer.Option(help="Coverage of these intervals; .9 if left out.", metavar="C")]
_ByUser = Annotated[
    bool,
    typer.Option("--by-user", help="Guarantee it for new people, where those asked answered several times each."),
]


def predict(
    model: ModelFolder,
    out: Annotated[Path, typer.Option(help="File to write: .parquet or .csv.")],
    pairs: Annotated[Path | None, typer.Option(help="Predict the pairs in this file (columns user, item).")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Predict every item for every user.")] = False,
    top_n: Annotated[
        int | None, typer.Option("--top-n", help="Predict each user's N best unrated items, best first.", metavar="N")
    ] = None,
    ratings: Annotated[
        Path | None,
        typer.Option(help="Condition on these ratings instead: new users, without training again."),
    ] = None,
    levels: Annotated[bool, typer.Option("--levels", help="Add the probability of each rating level.")] = False,
    propensity: Annotated[
        bool, typer.Option("--propensity", help="Add the probability that the user rates the item by choice.")
    ] = False,
    conformal: _Labels = None,
    coverage: _Coverage = None,
    by_user: _ByUser = False,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse pairs outside the training log.")] = False,
    columns: PairColumns = None,
    estimand: Annotated[
        Literal["conditional", "paper"],
        typer.Option(
            help="conditional: the cell's own missingness counts; paper: eq. 18, it does not (agnostic: only that)."
        ),
    ] = "conditional",
    ray: Ray = None,
    draws: Annotated[
        int | None,
        typer.Option(min=1, help="Posterior draws a user; 128, on small logs 32 for each of 8 draws of item weights."),
    ] = None,
) -> None:
    """Export debiased predictions with uncertainty.

    Columns user, item, mean, sd, mean_se, q05, q50, q95, cold, under the ids of the log. sd and quantiles describe a
    rating, mean_se the uncertainty of its expectation. A rating in the log is never returned. With --conformal LABELS
    (columns user, item, rating), lower and upper are the ends of an interval, both inside, that holds the rating of an
    unrated pair drawn like the labels with probability --coverage or more, whether or not the model is right.
    """
    from mnar_recsys.cli.reading import condition_on, load_model, only_one
    from mnar_recsys.prediction.export import check_target, export_predictions, on_ray
    from mnar_recsys.ray_tasks import ray_cluster

    which = only_one({"--pairs": pairs is not None, "--all": everything, "--top-n": top_n is not None})
    check_target(out)
    recommender = load_model(model)
    trained_on = recommender.fitted.log
    if ratings is not None:
        recommender = condition_on(recommender, ratings)
    predictor = _predictor(recommender, model, draws, estimand)
    intervals = _intervals(conformal, trained_on, predictor, coverage, by_user=by_user)
    total, blocks = _blocks(which, predictor, pairs, top_n or 0, columns, strict=strict)
    n_worked_on = total if which == "--pairs" else predictor.log.n_users * predictor.log.n_items
    with ExitStack() as running, progress("predicting", total, "pairs") as advance:
        running.enter_context(predictor.compiling(n_worked_on) if ray is None else ray_cluster(ray))
        summary = export_predictions(
            out, predictor, blocks, levels=levels, propensity=propensity, conformal=intervals, on_pairs=advance,
            run=map if ray is None else on_ray(n_worked_on),
        )  # fmt: skip
    say(f"{out}: {summary.rows:,} predictions")
    _remarks(summary, predictor)
    if intervals is not None:
        _promise(intervals, which)


def _predictor(
    recommender: "MNARRecommender", model: Path, draws: int | None, estimand: Literal["conditional", "paper"]
) -> "Predictor":
    """Return the predictor asked for."""
    from mnar_recsys.prediction.cells import Estimand
    from mnar_recsys.prediction.predictor import Predictor

    fitted = recommender.fitted
    if draws is not None and fitted.draws is not None and fitted.draws.z is not None:
        raise ConfigError(
            f"the posterior of {model} was sampled, and its {len(fitted.draws)} draws are all there are; "
            "leave --draws out"
        )
    predictor = Predictor(
        fitted.model,
        fitted.log,
        seed=fitted.seed,
        draws=draws,
        estimand=Estimand(estimand),
        trained_items=recommender.predictor.trained_items,
        posterior=fitted.draws,
    )
    if predictor.estimand is not Estimand(estimand):
        note("a missing model of whole rows has the paper's estimand only: a cell's own missingness does not count")
    return predictor


def _intervals(
    path: Path | None, trained_on: "RatingLog", predictor: "Predictor", coverage: float | None, *, by_user: bool
) -> "ConformalIntervals | None":
    """Calibrate on the labels in a file, if there is one; refuse those that the model was trained on."""
    from mnar_recsys.cli.reading import read_log
    from mnar_recsys.cli.scoring import refuse_training_labels
    from mnar_recsys.prediction.conformal import ConformalIntervals

    if path is None:
        if coverage is not None or by_user:
            raise ConfigError("--coverage and --by-user say how --conformal is used; give it, or leave them out")
        return None
    labels = read_log(path, columns=None, like=trained_on)
    refuse_training_labels(trained_on, labels, path)
    wanted = 0.9 if coverage is None else coverage
    return ConformalIntervals.calibrate(predictor, labels, wanted, by_user=by_user, source=f"{path}: ")


def _blocks(
    which: str, predictor: "Predictor", pairs: Path | None, top_n: int, columns: str | None, *, strict: bool
) -> "tuple[int, Iterator[PairRequest]]":
    """Return how many pairs there will be (at most), and the pairs."""
    from mnar_recsys.cli.reading import read_pairs
    from mnar_recsys.prediction.pair_blocks import all_pairs, given_pairs, top_pairs

    log = predictor.log
    if which == "--all":
        return log.n_users * log.n_items, all_pairs(log)
    if which == "--top-n" or pairs is None:
        return log.n_users * min(top_n, log.n_items), top_pairs(log, top_n)
    users, items = read_pairs(pairs, log, columns)
    return len(users), given_pairs(log, users, items, strict=strict, source=f"{pairs}, ")


def _remarks(summary: "ExportSummary", predictor: "Predictor") -> None:
    from mnar_recsys.prediction.export import FEW_DRAWS

    if summary.cold:
        note(
            f"{summary.cold:,} of them are cold (a user or an item without ratings in the log): "
            "they rest on the prior and are marked in the column cold"
        )
    if summary.low_ess_users:
        warn(
            f"{summary.low_ess_users:,} of {summary.users:,} users have an effective sample size below "
            f"{FEW_DRAWS:g} of {predictor.n_draws} draws: their predictions are noisy; use more --draws"
        )


def _promise(intervals: "ConformalIntervals", which: str) -> None:
    """Say what the intervals hold, and for which pairs."""
    left_out = f"; {intervals.n_left_out:,} more are of rated cells and left out" if intervals.n_left_out else ""
    note(
        f"lower and upper hold at least {100 * intervals.coverage:g} % of the ratings of unrated pairs drawn like the "
        f"{intervals.n_labels:,} labels{left_out}"
    )
    if which == "--top-n":
        warn("that coverage is of randomly drawn pairs; of pairs picked by their predictions it may be lower")
