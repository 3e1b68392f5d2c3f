"""``simulate``: rating logs whose truth is known."""

from pathlib import Path
from typing import Annotated

import typer

from mnar_recsys.cli.options import Seed
from mnar_recsys.cli.terminal import note, say


def simulate(
    out: Annotated[Path, typer.Option(help="Folder for train.csv, test.csv, mcar_labels.csv and truth.npz.")],
    preset: Annotated[
        str,
        typer.Option(help="World: r3-like, popularity, monotone, extremes, self-censoring or at-least-10."),
    ] = "r3-like",
    users: Annotated[int, typer.Option(help="Number of users, 50 or more.")] = 4000,
    items: Annotated[int, typer.Option(help="Number of items, 20 or more.")] = 1000,
    seed: Seed = 0,
) -> None:
    """Write a simulated rating log whose truth is known.

    Self-selected ratings to train on, a random survey of the same people, and the truth behind both.
    """
    from mnar_recsys.cli.reading import check_writable
    from mnar_recsys.data.simulate import simulate_ratings
    from mnar_recsys.data.simulate_files import write_simulation
    from mnar_recsys.data.simulate_presets import find_preset

    check_writable(out)
    note(f"{preset}: {find_preset(preset).meaning}")
    simulation = simulate_ratings(preset, n_users=users, n_items=items, seed=seed)
    paths = write_simulation(simulation, out)
    logs = (simulation.train, simulation.test, simulation.labels)
    roles = ("self-selected ratings to train on", "random survey to test on", "random survey to learn from")
    for path, log, role in zip(paths, logs, roles, strict=False):
        say(f"{path}: {log.n_ratings:,} ratings ({role}), mean {log.ratings.mean():.3f}")
    say(f"{paths[-1]}: the true tastes, propensities and selection")
