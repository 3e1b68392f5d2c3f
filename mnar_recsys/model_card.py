"""The model card: what a fitted model is, and how far it can be trusted, in Markdown."""

from contextlib import nullcontext

import numpy as np
import torch

from mnar_recsys.model.posterior_draws import LEAST_ESS, R_HAT_LIMIT, SamplingReport
from mnar_recsys.model_folder import FittedModel

_NO_SELECTION = """
A second fit, whose mask does not depend on the rating, gave held-out users no lower a bound: no selection is assumed.
"""
# Log-odds that nobody meant.
_NOTHING = 1e-5
_LIMITS = """\
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
    scale, model = fitted.log.scale, fitted.model
    ratings = np.linspace(scale.low, scale.high, 5) if scale.levels is None else scale.levels
    points = torch.tensor(ratings, dtype=torch.float32, device=next(model.parameters()).device)
    curves = []
    with torch.no_grad():
        for number in range(1 if fitted.draws is None else len(fitted.draws)):
            with nullcontext() if fitted.draws is None else fitted.draws.at(model, number):
                curves.append(model.missing.selection(points))
    values = torch.stack(curves).mean(0)
    values = values - values.mean()
    return {float(rating): float(value) for rating, value in zip(ratings, values.tolist(), strict=True)}


def gave_up_selection(fitted: FittedModel) -> bool:
    """Whether held-out users favoured a fit without selection; see ``keep_if_no_worse_without``."""
    training, slopes = fitted.settings.training, fitted.model.missing.slopes()
    is_nothing = all(abs(value) < _NOTHING for value in selection_by_level(fitted).values())
    return training.stop == "held-out" and training.check_selection and slopes is not None and is_nothing


def model_card(fitted: FittedModel) -> str:
    """Return the card as Markdown."""
    log, settings = fitted.log.chosen, fitted.settings
    n_surveyed = fitted.log.n_ratings - log.n_ratings
    survey = f"\n{n_surveyed:,} randomly collected ratings (MCAR labels) beside them." if n_surveyed else ""
    n_cells = log.n_users * log.n_items
    density = log.n_ratings / n_cells
    n_eligible = n_cells if log.eligible is None else len(log.eligible)
    offer = f"\n{n_eligible:,} cells were on offer ({n_eligible / n_cells:.2%})." if n_eligible < n_cells else ""
    selection = "\n".join(f"| {rating:g} | {value:+.2f} |" for rating, value in selection_by_level(fitted).items())
    model = "\n".join(f"- {key}: {value}" for key, value in settings.model.model_dump(mode="json").items())
    training = "\n".join(f"- {key}: {value}" for key, value in settings.training.model_dump(mode="json").items())
    return f"""\
# Model card

## Data

{log.n_ratings:,} ratings of {log.n_items:,} items by {log.n_users:,} users ({density:.2%} of all cells),
{log.scale.describe()}; mean of the given ratings {float(np.mean(log.ratings)):.3f}.{survey}{offer}

## Selection

Log-odds that a rating adds to being given, as fitted (sign: {settings.model.sign}, missing model:
{settings.model.missing}):

| rating | log-odds |
|---|---|
{selection}
{_NO_SELECTION if gave_up_selection(fitted) else ""}
## Training

{_training_summary(fitted)}
{_sampling(fitted)}

## Intended use

Predicting what users would say of items they have not rated, on the log's own scale, where the choice to rate
depends on the rating.

## Limits

{_LIMITS}
## Settings

seed: {fitted.seed}

{model}
{training}
"""


def _training_summary(fitted: FittedModel) -> str:
    if not fitted.history:
        return "No history."
    last = fitted.history[-1]
    held_out = [row for row in fitted.history if np.isfinite(row.get("held_out", np.nan))]
    text = f"{last['step']:.0f} steps, {'finished' if fitted.finished else 'not finished'}."
    if held_out:
        best = max(held_out, key=lambda row: row["held_out"])
        text += f" Best held-out joint bound {best['held_out']:.3f} nats a user, at step {best['step']:.0f}."
    return text


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
