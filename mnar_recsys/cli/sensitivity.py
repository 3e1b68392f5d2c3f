"""``sensitivity``: what of the answer the log tells, and what rests on what was assumed."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mnar_recsys.cli.options import ModelFolder, Seed
from mnar_recsys.cli.progress import progress
from mnar_recsys.cli.terminal import note, say, table
from mnar_recsys.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd

    from mnar_recsys.data import RatingLog
    from mnar_recsys.mask_checks import MaskChecks
    from mnar_recsys.sensitivity import Profile, ProfilePoint


def sensitivity(
    model: ModelFolder,
    out: Annotated[Path, typer.Option(help="Folder for profile.csv, mask.csv and sensitivity.html.")],
    values: Annotated[
        str | None,
        typer.Option(
            help="Selections to try, nats between the ends of the scale; chosen around the fit if left out.",
            metavar="S,S,...",
        ),
    ] = None,
    steps: Annotated[int, typer.Option(min=2, help="Training steps for each.")] = 400,
    seed: Seed = 0,
) -> None:
    """Say how far the log itself tells how strongly people select.

    The selection is held at several values and everything else fitted again; likelihood and predictions are compared.
    No selection, and the opposite sign, are fitted from three starts, one of them the model that says most nearly the
    same of what a log shows: how far apart the two laws are is the third column.
    Masks are drawn from the model as well: does it reproduce who rates what?
    """
    from mnar_recsys.cli.mask_report import check_with_progress, mask_lines
    from mnar_recsys.cli.reading import check_writable, load_model
    from mnar_recsys.files import atomic_path
    from mnar_recsys.sensitivity import default_grid, selection_profile

    chosen = None if values is None else parse_values(values)
    check_writable(out)
    fitted = load_model(model).fitted
    if fitted.draws is not None:
        note("the profile is of variational fits that start from the means of the sampled draws")
    count = len(default_grid(1.0)) if chosen is None else len(set(chosen))
    with progress("refitting", count, "selections") as advance:

        def on_point(point: "ProfilePoint") -> None:
            advance(1, f"selection {point.selection:+.2f}")

        profile = selection_profile(fitted, chosen, steps=steps, seed=seed, on_point=on_point)
    frame = as_frame(profile, fitted.log)
    with atomic_path(out / "profile.csv") as path:
        frame.to_csv(path, index=False)
    checks = check_with_progress(fitted, seed)
    with atomic_path(out / "mask.csv") as path:
        checks.table.to_csv(path, index=False)
    write_page(profile, checks, fitted.log, out / "sensitivity.html")
    rows = [
        [
            f"{point.selection:+.2f}",
            f"{point.relative:.1f} (se {point.relative_se:.1f})",
            f"{point.law_gap:.1f}",
            f"{point.mean:.3f}",
            f"{point.overlap:.0%}",
        ]
        for point in profile.points
    ]
    judged = "log-likelihood" if profile.in_sample else "held-out log-likelihood"
    headers = ["selection (nats)", f"{judged} less the highest", "law apart by (nats)", "mean of unrated cells"]
    say(table([*headers, "top 10 kept"], rows))
    say(f"\nFitted: {profile.fitted:+.2f}. {profile.verdict()}")
    say(f"\n{mask_lines(checks)}")
    note(f"{out}: profile.csv, mask.csv, sensitivity.html")


def parse_values(text: str) -> list[float]:
    """Return the numbers in ``-1,0,1.5``; raise ConfigError unless there are two or more different ones."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(set(numbers)) < 2 or not all(abs(number) < 50 for number in numbers):
        raise ConfigError(f"--values needs two or more numbers with commas between them, such as 0,1,2; found {text!r}")
    return numbers


def as_frame(profile: "Profile", log: "RatingLog") -> "pd.DataFrame":
    """Return a row a point, with the predicted share of each level where the scale has levels."""
    names = [] if log.scale.levels is None else [f"share_{level:g}" for level in log.scale.levels]
    rows = [
        {
            "selection": point.selection,
            "log_likelihood": point.relative,
            "se": point.relative_se,
            "law_gap": point.law_gap,
            "start": point.start,
            "mean_unrated": point.mean,
            "top_n_kept": point.overlap,
            **dict(zip(names, point.marginal or (), strict=True)),
        }
        for point in profile.points
    ]
    import pandas as pd

    return pd.DataFrame(rows)


def write_page(profile: "Profile", checks: "MaskChecks", log: "RatingLog", path: Path) -> None:
    """Write the page: the verdict, the two curves, the numbers, the checks of the mask."""
    from evaluation.plots import mean_by_selection
    from evaluation.plots import selection_profile as draw_profile
    from evaluation.report import Section, write_report
    from mnar_recsys.cli.mask_report import mask_sections
    from mnar_recsys.sensitivity import PLAUSIBLE

    points = profile.points
    selections = [point.selection for point in points]
    likelihood = draw_profile(
        selections,
        [point.relative for point in points],
        [point.relative_se for point in points],
        fitted=profile.fitted,
        plausible=PLAUSIBLE,
    )
    text = (
        "The strength of selection was held at each value, everything else fitted again. Where the curve is flat, the "
        "log does not tell one strength from another. Where it is steep, the log tells them apart if the decoder and "
        "the missing model have the right form, which no log can show. In the table, law_gap is how far the nearest "
        "model with that selection is from the fitted one in what a log shows, in nats over the whole log: below two, "
        "no log of this size tells them apart, and only priors do."
    )
    if not profile.in_sample:
        text += (
            " The likelihood is that of users held out, who only say where a fit stops, scaled to all: that of the "
            "users fitted to would favour selection where there is none."
        )
    write_report(
        path,
        title="How much of this does the log tell?",
        lede=profile.verdict(),
        sections=[
            Section("Likelihood by selection", text, likelihood),
            Section(
                "What it changes",
                "Mean rating that people would give to what they did not rate, as predicted.",
                mean_by_selection(selections, [point.mean for point in points], given=float(log.chosen.values.mean())),
            ),
            Section("The profile in numbers", table=as_frame(profile, log).round(3)),
            *mask_sections(checks),
        ],
    )
