"""The model card: what a fitted model is, and how far it can be trusted, in Markdown."""

from contextlib import nullcontext
from importlib.metadata import version
from textwrap import fill

import numpy as np
import torch
from numpy.typing import NDArray

from mnar_recsys.model.posterior_draws import LEAST_ESS, R_HAT_LIMIT, SamplingReport
from mnar_recsys.model_folder import FittedModel

INTENDED_USE = """\
Predicting what users would say of items they have not rated, on the log's own scale, where the choice to rate
depends on the rating. Not for judging single people, for people or items of another kind than the log's, or as proof of
why people rate: the selection was learned from the same log, under the assumptions above."""
_NO_SELECTION = """
A second fit, whose mask does not depend on the rating, had no lower a bound: no selection is assumed.
"""
_WIDTH = 120
# Log-odds that nobody meant.
_NOTHING = 1e-5
LIMITS = """\
- The ratings that were never given are inferred from a model of why ratings are given. Observed data alone cannot
  prove that model right: another data distribution with another selection can fit the same log equally well.
- Intervals contain the uncertainty of the items' weights where these have a posterior (item_weights: variational), and
  of all parameters where that was sampled (inference: mcmc); the rest, and everything where they are points, is taken
  as fitted.
- People or items without ratings get the prior; such predictions are flagged `cold`.
"""


def selection_by_level(fitted: FittedModel) -> dict[float, float]:
    """Return the fitted log-odds that each rating adds, mean zero over the levels (or five points of an interval).

    Of a sampled posterior, the mean over its draws.
    """
    ratings, curves = _selection_curves(fitted)
    return dict(zip(ratings.tolist(), curves.mean(0).tolist(), strict=True))


def selection_interval(fitted: FittedModel) -> dict[float, tuple[float, float]] | None:
    """Return the 5 % and 95 % quantiles of the same log-odds over the draws; None where nothing was sampled."""
    if fitted.draws is None:
        return None
    ratings, curves = _selection_curves(fitted)
    low, high = np.quantile(curves, [0.05, 0.95], axis=0)
    return dict(zip(ratings.tolist(), zip(low.tolist(), high.tolist(), strict=True), strict=True))


def _selection_curves(fitted: FittedModel) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return ratings (R,) and the log-odds that they add, mean zero over them, a row a draw: (D, R)."""
    scale, model = fitted.log.scale, fitted.model
    ratings = np.asarray(np.linspace(scale.low, scale.high, 5) if scale.levels is None else scale.levels, np.float64)
    points = torch.tensor(ratings, dtype=torch.float32, device=next(model.parameters()).device)
    curves = []
    with torch.no_grad():
        for number in range(1 if fitted.draws is None else len(fitted.draws)):
            with nullcontext() if fitted.draws is None else fitted.draws.at(model, number):
                curves.append(model.missing.selection(points))
    values = torch.stack(curves).double().cpu().numpy()
    return ratings, values - values.mean(1, keepdims=True)


def gave_up_selection(fitted: FittedModel) -> bool:
    """Whether a fit without selection explained the log no worse; see ``keep_if_no_worse_without``."""
    is_nothing = all(abs(value) < _NOTHING for value in selection_by_level(fitted).values())
    return fitted.settings.checks_selection(fitted.log) and fitted.model.missing.slopes() is not None and is_nothing


def model_card(fitted: FittedModel) -> str:
    """Return the card as Markdown."""
    settings = fitted.settings
    model = "\n".join(f"- {key}: {value}" for key, value in settings.model.model_dump(mode="json").items())
    training = "\n".join(f"- {key}: {value}" for key, value in settings.training.model_dump(mode="json").items())
    return f"""\
# Model card

## Data

{_data(fitted)}

## Missingness

{fill(mechanism(fitted), _WIDTH)}

## Selection

Log-odds that a rating adds to being given, as fitted (sign: {settings.model.sign}, missing model:
{settings.model.missing}):

{_selection_table(fitted)}
{_NO_SELECTION if gave_up_selection(fitted) else ""}
{fill(certainty(fitted), _WIDTH)}

## Training

{training_summary(fitted)}
{_sampling(fitted)}

## Intended use

{INTENDED_USE}

## Limits

{LIMITS}
## Settings

mnar_recsys {version("mnar-recsys")}, seed: {fitted.seed}

{model}
{training}
"""


def _data(fitted: FittedModel) -> str:
    log = fitted.log.chosen
    n_surveyed = fitted.log.n_ratings - log.n_ratings
    survey = f"\n{n_surveyed:,} randomly collected ratings (MCAR labels) beside them." if n_surveyed else ""
    n_cells = log.n_users * log.n_items
    density = log.n_ratings / n_cells
    n_eligible = n_cells if log.eligible is None else len(log.eligible)
    offer = f"\n{n_eligible:,} cells were on offer ({n_eligible / n_cells:.2%})." if n_eligible < n_cells else ""
    known = [table.names for table in (log.user_features, log.item_features) if table is not None]
    features = f"\nFeatures: {', '.join(name for names in known for name in names)}." if known else ""
    return f"""\
{log.n_ratings:,} ratings of {log.n_items:,} items by {log.n_users:,} users ({density:.2%} of all cells),
{log.scale.describe()}; mean of the given ratings {float(np.mean(log.ratings)):.3f}.
{_spread("user", np.diff(log.indptr))}
{_spread("item", np.bincount(log.items, minlength=log.n_items))}{survey}{offer}{features}"""


def _spread(label: str, counts: NDArray[np.integer]) -> str:
    low, middle, high = np.quantile(counts, [0.05, 0.5, 0.95])
    text = (
        f"Ratings of {'an' if label == 'item' else 'a'} {label}: median {middle:.0f}, 90 % from {low:.0f} to {high:.0f}"
    )
    none = int((counts == 0).sum())
    return f"{text}; {none:,} {label}s without any." if none else f"{text}."


def mechanism(fitted: FittedModel) -> str:
    """Return in words what the model lets the choice to rate depend on."""
    model, log = fitted.settings.model, fitted.log
    parts = ["the item"]
    if model.user_activity:
        parts.append("the user's activity")
    if model.exposure_size or model.exposure_sees_taste:
        own = f"a latent exposure of size {model.exposure_size}" if model.exposure_size else ""
        taste = "the taste" if model.exposure_sees_taste else ""
        parts.append(" and ".join(filter(None, (own, taste))))
    text = f"The log-odds that a user rates an item depend on {', '.join(parts)}"
    on_rating = {
        "ignorable": "; not on the rating: the ratings are taken as missing at random given these",
        "known": ", and on the rating by a mechanism that was given",
        "agnostic": ", and on all ratings that the user has given or would give",
    }.get(model.missing, f", and on the rating itself ({model.missing}, sign {model.sign})")
    offer = " Cells that were not on offer have no part in it." if log.eligible is not None else ""
    return f"{text}{on_rating}.{offer}"


def _selection_table(fitted: FittedModel) -> str:
    ends = selection_interval(fitted)
    rows = [
        f"| {rating:g} | {value:+.2f} |" + ("" if ends is None else " {:+.2f} to {:+.2f} |".format(*ends[rating]))
        for rating, value in selection_by_level(fitted).items()
    ]
    head = ["| rating | log-odds |", "|---|---|"]
    if ends is not None:
        head = [f"{head[0]} 90 % interval |", f"{head[1]}---|"]
    return "\n".join([*head, *rows])


def certainty(fitted: FittedModel) -> str:
    """Return in words how sure the selection is, as far as the fit itself knows."""
    if fitted.settings.model.missing in ("ignorable", "known"):
        return "It was assumed, not learned."
    if fitted.draws is not None:
        return (
            "The intervals are those of the sampled posterior: they hold if decoder and missing model have the right "
            "form, and they contain what the stated sign and the priors add. `mnar-recsys sensitivity` shows what the "
            "log alone says."
        )
    return (
        "This is a point: the fit does not know how sure it is. `mnar-recsys sensitivity` holds the selection at "
        "several values, fits the rest again, and says in words how far the log tells them apart."
    )


def training_summary(fitted: FittedModel) -> str:
    """Return how training went, in a few sentences."""
    if not fitted.history:
        return "No history."
    last, training = fitted.history[-1], fitted.settings.training
    text = f"{last['step']:.0f} steps, {'finished' if fitted.finished else 'not finished'}."
    if training.inference == "mcmc":
        text += " They only find where the chains start."
    held_out = [row for row in fitted.history if np.isfinite(row.get("held_out", np.nan))]
    if held_out:
        best = max(held_out, key=lambda row: row["held_out"])
        text += f" Best held-out joint bound {best['held_out']:.3f} nats a user, at step {best['step']:.0f}."
        kept = fitted.kept_step
        if kept not in (None, best["step"]):
            text += f" The weights of step {kept:.0f} were kept, which these users cannot tell from the best."
    if fitted.finished and training.inference == "variational" and training.stop != "never":
        if last["step"] >= training.most_steps:
            text += " It ended at max_steps, before the bound had converged."
    return f"{text} Effective importance samples of a user at the end: {last['ess']:.1f} of {training.samples}."


def _sampling(fitted: FittedModel) -> str:
    """Return how the sampling went, as a section of its own, if there was any."""
    if fitted.draws is None:
        return ""
    report = fitted.draws.report
    rows = "\n".join(
        f"| {one.name} | {one.mean:.4g} | {one.sd:.2g} | {one.lower:.4g} to {one.upper:.4g} | {one.r_hat:.3f} | "
        f"{one.ess:.0f} |"
        for one in report.monitored
    )
    doubt = "" if not report.doubtful else f"\n**Not converged:** {sampling_doubt(report)}\n"
    return f"""\

## Sampling

{report.chains} chains of {report.warmup} + {report.draws} draws (No-U-Turn sampler), {report.gradients:.0f} gradients a
draw, {report.divergences} divergences, {report.seconds:.0f} s; {len(fitted.draws)} draws kept.

| quantity | mean | sd | 90 % interval | R-hat | effective draws |
|---|---|---|---|---|---|
{rows}
{doubt}"""


def sampling_doubt(report: SamplingReport) -> str:
    """Return in words which chains have not mixed, and what to do."""
    names = ", ".join(f"{one.name} (R-hat {one.r_hat:.2f}, {one.ess:.0f} draws)" for one in report.doubtful)
    return (
        f"R-hat above {R_HAT_LIMIT} or fewer than {LEAST_ESS:.0f} effective draws for {names}; means may be off by "
        "more than their intervals say. Use more --set mcmc_draws and mcmc_warmup"
    )
