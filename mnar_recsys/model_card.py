"""The model card: what a fitted model is, and how far it can be trusted, in Markdown."""

import numpy as np
import torch

from mnar_recsys.model_folder import FittedModel

_LIMITS = """\
- The ratings that were never given are inferred from a model of why ratings are given. Observed data alone cannot
  prove that model right: another data distribution with another selection can fit the same log equally well.
- Intervals contain the uncertainty of the items' weights where these have a posterior (item_weights: variational); all
  else, and everything where they are points, is taken as fitted.
- People or items without ratings get the prior; such predictions are flagged `cold`.
"""


def selection_by_level(fitted: FittedModel) -> dict[float, float]:
    """Return the fitted log-odds that each rating adds, mean zero over the levels (or five points of an interval)."""
    scale = fitted.log.scale
    ratings = np.linspace(scale.low, scale.high, 5) if scale.levels is None else scale.levels
    device = next(fitted.model.parameters()).device
    with torch.no_grad():
        values = fitted.model.missing.selection(torch.tensor(ratings, dtype=torch.float32, device=device))
    values = values - values.mean()
    return {float(rating): float(value) for rating, value in zip(ratings, values.tolist(), strict=True)}


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

## Training

{_training_summary(fitted)}

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
