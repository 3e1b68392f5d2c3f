"""How much of what selection costs is won back: errors on all unrated cells of simulated logs.

    python -m benchmarks.truth [--users 4000] [--seeds 5] [--preset r3-like] [--json FILE]

``ignorable`` takes the mask for random (MIWAE with our decoder), ``told`` knows what each level adds to the log-odds
of rating, ``default`` are the default settings (sign given), ``free`` learns the sign as well. ``share`` is the part of
the way from ``ignorable`` to ``told``. Where the rating decides nothing (``--preset popularity``) there is no such way,
and ``excess`` says by how much the error is above that of ``ignorable``. A row is one fit.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from scipy.special import expit

from benchmarks.measure import Row, alone, measured, report
from mnar_recsys import MNARRecommender
from mnar_recsys.data.simulate import Simulation, simulate_ratings
from mnar_recsys.model_card import selection_by_level
from mnar_recsys.prediction import Predictor

ITEMS = 1000
_JUDGED_USERS = 1000
_USERS_AT_ONCE = 100
_TYPICAL_LOG_ODDS = -3.0
_KINDS: dict[str, dict[str, Any]] = {
    "ignorable": {"missing": "ignorable"}, "told": {"missing": "known", "known_adjust": True},
    "default": {}, "free": {"sign": "free"},
}  # fmt: skip


def fit(kind: str, preset: str, n_users: int, seed: int) -> Row:
    """Fit one model to one log; the error is on the unrated cells of the first thousand users."""
    simulated = simulate_ratings(preset, n_users=n_users, n_items=ITEMS, seed=seed)
    settings = dict(_KINDS[kind])
    if kind == "told":
        levels, added = simulated.train.scale.levels, np.asarray(simulated.truth.selection)
        assert levels is not None  # noqa: S101 - simulated ratings are stars
        settings["known_propensities"] = tuple(zip(levels, expit(added + _TYPICAL_LOG_ODDS).tolist(), strict=True))
    model = MNARRecommender(**settings)
    row = measured(kind, ITEMS, lambda: model.fit(simulated.train, seed=seed), repeats=1, warmup=0)
    curve = list(selection_by_level(model.fitted).values())
    history = model.fitted.history
    row.facts.update(
        preset=preset, users=n_users, seed=seed, mse=error(model.predictor, simulated),
        held_out=max(look["held_out"] for look in history), selection=curve[-1] - curve[0],
    )  # fmt: skip
    return row


def error(predictor: Predictor, simulated: Simulation) -> float:
    """Return the mean squared error on all unrated cells of the first users, in squared rating points."""
    log, total, count = simulated.train, 0.0, 0
    judged = min(_JUDGED_USERS, log.n_users)
    with predictor.compiling(judged * log.n_items):
        for start in range(0, judged, _USERS_AT_ONCE):
            users = np.arange(start, min(start + _USERS_AT_ONCE, judged))
            complete = simulated.truth.block(start, int(users[-1]) + 1)[0].ravel()
            rows, items = np.repeat(users, log.n_items), np.tile(np.arange(log.n_items), len(users))
            unrated = ~np.isin(rows * log.n_items + items, log.cells)
            predicted = predictor.predict(rows[unrated], items[unrated]).mean
            total += float(np.square(predicted - complete[unrated]).sum())
            count += len(predicted)
    return total / count


def compared(rows: list[Row]) -> list[Row]:
    """Add to the rows of one log how they stand between the ignorable fit and the one that was told."""
    errors = {row.name: row.facts["mse"] for row in rows}
    way = errors["ignorable"] - errors["told"]
    return [
        replace(row, facts={
            **row.facts, "share": (errors["ignorable"] - errors[row.name]) / way,
            "excess": errors[row.name] / errors["ignorable"] - 1,
        }) for row in rows
    ]  # fmt: skip


def main(
    users: Annotated[int, typer.Option(min=100)] = 4_000,
    seeds: Annotated[int, typer.Option(min=1)] = 5,
    preset: Annotated[str, typer.Option(help="As `mnar-recsys simulate` takes it.")] = "r3-like",
    json: Annotated[Path | None, typer.Option(help="Write the rows here as well.")] = None,
) -> None:
    """Print the table."""

    def rows() -> Iterator[Row]:
        for seed in range(seeds):
            yield from compared([alone(fit, kind, preset, users, seed) for kind in _KINDS])

    report(rows(), f"Errors on unrated cells: {preset}, {users:,} users x {ITEMS:,} items", json)


if __name__ == "__main__":
    typer.run(main)
