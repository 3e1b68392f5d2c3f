"""``report``: one page on a fitted model."""

from pathlib import Path
from typing import Annotated

import typer

from mnar_recsys.cli.options import ModelFolder, Seed
from mnar_recsys.cli.terminal import note
from mnar_recsys.errors import ConfigError


def report(
    model: ModelFolder,
    out: Annotated[Path, typer.Option(help="The page, an .html file.")] = Path("report.html"),
    seed: Seed = 0,
) -> None:
    """Write a page on a model: what it learned, whether it fits the mask, how it was trained.

    One file that needs nothing else. It draws masks from the model, which takes as long as in `sensitivity`.
    """
    if out.suffix != ".html":
        raise ConfigError(f"{out}: unknown file type '{out.suffix}'; use .html")

    from mnar_recsys.cli.mask_report import check_with_progress
    from mnar_recsys.cli.model_report import write_model_report
    from mnar_recsys.cli.reading import check_writable, load_model

    recommender = load_model(model)
    check_writable(out.parent)
    checks = check_with_progress(recommender.fitted, seed)
    write_model_report(recommender, checks, out, seed)
    note(f"{out}: a page on {model}")
