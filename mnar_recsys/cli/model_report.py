"""The page on a fitted model: the model card with figures, and the checks of the mask."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evaluation.plots import marginals, selection_curve, training_history
from evaluation.report import Section, facts_table, write_report
from mnar_recsys.cli.mask_report import mask_sections
from mnar_recsys.mask_checks import MaskChecks
from mnar_recsys.model.posterior_draws import LEAST_ESS, R_HAT_LIMIT
from mnar_recsys.model_card import (
    INTENDED_USE,
    LIMITS,
    certainty,
    gave_up_selection,
    mechanism,
    selection_by_level,
    selection_interval,
    training_summary,
)
from mnar_recsys.model_folder import FittedModel
from mnar_recsys.prediction.unrated import mean_of_unrated, shares_of_unrated
from mnar_recsys.recommender import MNARRecommender


def write_model_report(recommender: MNARRecommender, checks: MaskChecks, path: Path, seed: int = 0) -> None:
    """Write the page, whole or not at all.

    Parameters
    ----------
    recommender : MNARRecommender
        Fitted.
    checks : MaskChecks
        Of its mask.
    path : Path
        The HTML file.
    seed : int
        Fixes which unrated cells are predicted.
    """
    fitted = recommender.fitted
    unrated, error = mean_of_unrated(recommender.predictor, seed)
    naive = float(fitted.log.chosen.values.mean())
    write_report(
        path,
        title="What the model has learned",
        lede=(
            f"Given ratings have a mean of {naive:.2f}; what was not rated would get {unrated:.2f} (standard error "
            f"{error:.2f}, of a sample of cells), says a model of {fitted.log.chosen.n_ratings:,} ratings and of why "
            "they were given. No randomly collected rating has judged it."
        ),
        sections=[
            _marginals(recommender, seed),
            _selection(fitted),
            *mask_sections(checks),
            _training(fitted),
            *_sampling(fitted),
            Section("Use and limits", f"{INTENDED_USE}\n\n{_as_paragraphs(LIMITS)}"),
            _facts(fitted),
        ],
    )


def _marginals(recommender: MNARRecommender, seed: int) -> Section:
    log = recommender.fitted.log.chosen
    heading = "What was said, and what was not"
    text = "Shares of the ratings as given, and as predicted for what was not rated, of a sample of cells."
    predicted = shares_of_unrated(recommender.predictor, seed)
    if log.scale.levels is None or predicted is None:
        return Section(heading, "The scale has no levels to count, or nothing is left unrated: see the means above.")
    given = np.bincount(log.scale.level_index(log.ratings), minlength=len(log.scale.levels)) / log.n_ratings
    shares = {"given": given, "predicted, not given": predicted}
    table = pd.DataFrame(
        {
            "rating": [f"{level:g}" for level in log.scale.levels],
            **{name: [f"{100 * share:.1f} %" for share in values] for name, values in shares.items()},
        }
    )
    return Section(heading, text, marginals(log.scale.levels, shares), table)


def _selection(fitted: FittedModel) -> Section:
    curve, ends = selection_by_level(fitted), selection_interval(fitted)
    text = f"{mechanism(fitted)}\n\n{_plain(certainty(fitted))}"
    if gave_up_selection(fitted):
        text += "\n\nThe log is explained no worse without any selection by rating: none is assumed."
    low, high = ([None] * 2) if ends is None else zip(*ends.values(), strict=True)
    figure = selection_curve(list(curve), list(curve.values()), low=low, high=high)
    caption = "Mean zero over the ratings." + ("" if ends is None else " The band holds 90 % of the draws.")
    columns = {"rating": [f"{rating:g}" for rating in curve], "log-odds": [f"{value:+.2f}" for value in curve.values()]}
    if ends is not None:
        columns["90 % interval"] = [f"{below:+.2f} to {above:+.2f}" for below, above in ends.values()]
    return Section("Why ratings are given", text, replace(figure, caption=caption), pd.DataFrame(columns))


def _training(fitted: FittedModel) -> Section:
    text = training_summary(fitted)
    if len(fitted.history) < 2:
        return Section("Training", text)
    step, bound, held_out = (_column(fitted, name) for name in ("step", "bound", "held_out"))
    if not np.isfinite(held_out).any():
        return Section("Training", text, training_history(step, bound))
    return Section("Training", text, training_history(step, bound, held_out, chosen_step=fitted.kept_step))


def _column(fitted: FittedModel, name: str) -> NDArray[np.float64]:
    return np.array([row.get(name, np.nan) for row in fitted.history])


def _sampling(fitted: FittedModel) -> list[Section]:
    """Return how the chains of a sampled posterior have mixed, if there are any."""
    if fitted.draws is None:
        return []
    report = fitted.draws.report
    text = (
        f"{report.chains} chains of {report.warmup} + {report.draws} draws, {report.divergences} of them divergent. "
        f"Chains agree where R-hat is {R_HAT_LIMIT} or less; means and intervals are steady from {LEAST_ESS:.0f} "
        "effective draws on."
    )
    if report.doubtful:
        text += (
            f"\n\nNot converged: {len(report.doubtful)} of {len(report.monitored)} quantities are beyond one of these "
            "limits. Means may be off by more than their intervals say; use more --set mcmc_draws and mcmc_warmup."
        )
    rows = [
        (
            one.name,
            f"{one.mean:.3g} [{one.lower:.3g}, {one.upper:.3g}]",
            f"{one.r_hat:.3f}",
            round(one.ess) if np.isfinite(one.ess) else None,
            not one.is_doubtful,
        )
        for one in report.monitored
    ]
    table = pd.DataFrame(rows, columns=["quantity", "mean, 90 % interval", "R-hat", "effective draws", "mixed"])
    return [Section("Have the chains mixed?", text, table=table)]


def _as_paragraphs(items: str) -> str:
    """Return a Markdown list as paragraphs."""
    return "\n\n".join(" ".join(item.split()) for item in _plain(items).removeprefix("- ").split("\n- "))


def _plain(markdown: str) -> str:
    return markdown.replace("`", "")


def _facts(fitted: FittedModel) -> Section:
    log, settings = fitted.log.chosen, fitted.settings
    facts = {
        "users": log.n_users,
        "items": log.n_items,
        "ratings": log.n_ratings,
        "share of the cells rated": f"{log.n_ratings / (log.n_users * log.n_items):.2%}",
        "randomly collected ratings used in training": fitted.log.n_ratings - log.n_ratings,
        "scale": log.scale.describe(),
        "decoder": settings.model.decoder,
        "missing model": f"{settings.model.missing}, sign {settings.model.sign}",
        "inference": settings.training.inference,
        "seed": fitted.seed,
    }
    changes = {f"setting: {name}": str(value) for name, value in settings.changes().items()}
    return Section(
        "This model",
        "Below the facts, the settings that differ from the defaults, or that the log has decided.",
        table=facts_table(facts | changes),
    )
