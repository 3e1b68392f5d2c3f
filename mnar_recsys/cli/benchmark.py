"""``benchmark``: many methods, one protocol, one table."""

from pathlib import Path
from typing import Annotated

import typer

from mnar_recsys.cli.options import Columns, Duplicates, Ids, Layout, Scale


def benchmark(
    train: Annotated[Path, typer.Option(help="Self-selected ratings (MNAR).")],
    test: Annotated[Path, typer.Option(help="Randomly collected ratings (MCAR), for scoring only.")],
    out: Annotated[Path, typer.Option(help="Folder for results.csv, table.md and report.html; keeps finished cells.")],
    mcar_labels: Annotated[
        Path | None, typer.Option(help="Randomly collected ratings that methods may train on; none may be in --test.")
    ] = None,
    user_features: Annotated[Path | None, typer.Option(help="Features of users: CSV with a column user.")] = None,
    item_features: Annotated[Path | None, typer.Option(help="Features of items: CSV with a column item.")] = None,
    models: Annotated[str, typer.Option(help="Names with commas between them, or all.")] = "all",
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds: 0, 1, ...")] = 5,
    jobs: Annotated[int, typer.Option(min=1, help="Processes at a time, one thread each.")] = 1,
    settings: Annotated[
        Path | None, typer.Option(help="JSON file of settings by model, as --tune writes it.", metavar="FILE")
    ] = None,
    tune: Annotated[
        bool, typer.Option("--tune", help="Choose each method's settings on held-out self-selected ratings first.")
    ] = False,
    scale: Scale = None,
    duplicates: Duplicates = "error",
    columns: Columns = None,
    ids: Ids = "auto",
    layout: Layout = "auto",
) -> None:
    """Compare methods on randomly collected ratings.

    Each cell (a method with a seed) is fitted in a process of its own and kept in OUT/cells: the same command goes on
    where it stopped. No method sees the test, nor does tuning.
    """
    from mnar_recsys.cli.benchmark_run import Request, run_benchmark_command
    from mnar_recsys.cli.reading import check_writable, read_log
    from mnar_recsys.cli.terminal import say
    from mnar_recsys.data import Split, read_features

    check_writable(out)
    log = read_log(train, columns=columns, scale=scale, duplicates=duplicates, ids=ids, layout=layout)
    if user_features is not None:
        log = log.with_features(user_features=read_features(user_features, log.users, "user"))
    if item_features is not None:
        log = log.with_features(item_features=read_features(item_features, log.catalogue, "item"))
    others = {
        role: None if path is None else read_log(path, columns=columns, like=log, duplicates=duplicates, layout=layout)
        for role, path in (("mcar_test", test), ("mcar_labels", mcar_labels))
    }
    request = Request(Split(mnar_train=log, **others), out, models, range(seeds), jobs, settings, tune=tune)
    say(run_benchmark_command(request))
