"""The checks of the mask as sections of a page, and as a few lines of text."""

from typing import TYPE_CHECKING

import pandas as pd

from evaluation.mask_plots import mask_check_chart
from evaluation.report import Section
from mnar_recsys.cli.progress import progress
from mnar_recsys.mask_checks import INTERVAL, REPLICATES, MaskCheck, MaskChecks, check_mask, in_figures

if TYPE_CHECKING:
    from mnar_recsys.model_folder import FittedModel

_ABOUT = {
    "activity": (
        "Who rates how much?",
        "People ordered by how many ratings they give, in tenths; in a drawn mask by its own numbers. A model does not "
        "know that who gives no rating is not in the log: where many give but one or two, the lowest tenth shows it.",
        ("tenth of the users, by activity", "ratings of a user"),
    ),
    "popularity": (
        "What is rated how often?",
        "Items ordered by how many ratings they have, in tenths; percentages of their cells. Each item has a parameter "
        "of its own for just this, so a gap means that the fit was cut short, or that the mechanism was given and does "
        "not hold.",
        ("tenth of the items, by popularity", "share of the cells rated"),
    ),
    "level": (
        "How many ratings of each level?",
        "The number of ratings that the model expects people to give at each level. A match does not show that the "
        "selection is right, for other ratings with another selection can match as well; a gap shows that something is "
        "not.",
        ("rating", "ratings"),
    ),
}


def check_with_progress(fitted: "FittedModel", seed: int) -> MaskChecks:
    """Check the mask, with progress on stderr."""
    with progress("checking the mask", 100, "%") as advance:
        reached = 0

        def on_share(share: float) -> None:
            nonlocal reached
            advance(round(100 * share) - reached)
            reached = round(100 * share)

        return check_mask(fitted.model, fitted.log, seed=seed, on_share=on_share)


def mask_lines(checks: MaskChecks) -> str:
    """Return the verdicts as text."""
    verdicts = "\n".join(f"- {check.verdict()}" for check in checks.all)
    return f"Does the model reproduce who rates what? ({_sample(checks)})\n{verdicts}"


def mask_sections(checks: MaskChecks) -> list[Section]:
    """Return a section for each check."""
    return [_section(check, checks) for check in checks.all]


def _section(check: MaskCheck, checks: MaskChecks) -> Section:
    heading, text, (x_label, y_label) = _ABOUT[check.name]
    figure = mask_check_chart(
        check.groups, check.actual, check.predicted, check.low, check.high, x_label=x_label, y_label=y_label
    )
    rows = zip(check.groups, check.actual, check.predicted, check.low, check.high, check.inside, strict=True)
    table = pd.DataFrame(
        [
            (group, in_figures(actual), f"{in_figures(said)} [{in_figures(low)}, {in_figures(high)}]", bool(inside))
            for group, actual, said, low, high, inside in rows
        ],
        columns=["group", "actual", "predicted", "fits"],
    )
    paragraphs = (
        f"{check.verdict()}\n\n{text} From {REPLICATES} masks drawn from the fitted model, {_sample(checks)}; "
        f"{INTERVAL:.0%} intervals."
    )
    return Section(heading, paragraphs, figure, table)


def _sample(checks: MaskChecks) -> str:
    if checks.n_users == checks.n_known:
        return f"all {checks.n_known:,} users with ratings"
    return f"a sample of {checks.n_users:,} of {checks.n_known:,} users with ratings"
