"""``benchmark``: many methods, one protocol, one table."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from mnar_recsys.cli.options import Columns, Duplicates, Ids, ItemFeatures, Layout, Ray, Scale, UserFeatures
from mnar_recsys.errors import ConfigError

_OffPolicy = Annotated[
    str | None,
    typer.Option(
        help="Also estimate each method's error from held-out ratings weighed by propensities of this kind; auto "
        "chooses by what there is.",
        metavar="PROPENSITY",
    ),
]


def benchmark(
    train: Annotated[Path, typer.Option(help="Self-selected ratings (MNAR).")],
    test: Annotated[Path, typer.Option(help="Randomly collected ratings (MCAR), for scoring only.")],
    out: Annotated[Path, typer.Option(help="Folder for results.csv, table.md and report.html; keeps finished cells.")],
    mcar_labels: Annotated[
        Path | None, typer.Option(help="Randomly collected ratings that methods may train on; none may be in --test.")
    ] = None,
    label_share: Annotated[
        float,
        typer.Option(
            min=0, max=0.9, help="Share of --test that methods may train on; drawn at random, the rest is scored."
        ),
    ] = 0,
    user_features: UserFeatures = None,
    item_features: ItemFeatures = None,
    models: Annotated[
        str, typer.Option(help="Names with commas between them, all, recbole, or variants (mnar+NAME in --settings).")
    ] = "all",
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds: 0, 1, ...")] = 5,
    jobs: Annotated[int, typer.Option(min=1, help="Processes at a time, one thread each.")] = 1,
    ray: Ray = None,
    settings: Annotated[
        Path | None, typer.Option(help="JSON file of settings by model, as --tune writes it.", metavar="FILE")
    ] = None,
    tune: Annotated[
        bool, typer.Option("--tune", help="Choose each method's settings on held-out self-selected ratings first.")
    ] = False,
    protocol: Annotated[
        str,
        typer.Option(
            help="P1 (ratings as they are), P2, P3 or P4: how papers split and score; P2 to P4 on labels of 0 and 1."
        ),
    ] = "P1",
    off_policy: _OffPolicy = None,
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
    from mnar_recsys.cli.benchmark_run import Request, benchmark_split, run_benchmark_command
    from mnar_recsys.cli.reading import check_writable, read_log, with_features
    from mnar_recsys.cli.terminal import say

    check_writable(out)
    log = read_log(train, columns=columns, scale=scale, duplicates=duplicates, ids=ids, layout=layout)
    log = with_features(log, user_features, item_features)
    if label_share > 0 and mcar_labels is not None:
        raise ConfigError("give --label-share or --mcar-labels; found both")
    read = partial(read_log, columns=columns, like=log, duplicates=duplicates, layout=layout)
    labels = label_share or (None if mcar_labels is None else read(mcar_labels))
    split, scored = benchmark_split(protocol, log, read(test), labels)
    if ray is not None and jobs > 1:
        raise ConfigError("--jobs counts processes of this machine, and --ray takes the cores of a cluster; give one")
    workers = jobs if ray is None else ray
    request = Request(split, scored, out, models, range(seeds), workers, settings, tune=tune, off_policy=off_policy)
    say(run_benchmark_command(request))
