"""What drawing items costs in truth: the bound's error, and the error of the final predictions, against all items.

    python -m benchmarks.subsample [--users 4000] [--seeds 3] [--json FILE]

First, at fitted weights, the bias and the standard deviation of a user's bound with M of P = 1,000 items, for three
ways to draw: evenly, by popularity (what training does), and by popularity with a control variate: the exact term at
the mean of the user's draws, corrected by the sample. Then fits with M drawn items, and their error on all unrated
cells of the simulation.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.progress import track
from torch import Tensor

from benchmarks.measure import Row, alone, measured, report
from mnar_recsys import MNARRecommender
from mnar_recsys.data.simulate import Simulation, simulate_ratings
from mnar_recsys.model.batch import UserBatch, make_batch
from mnar_recsys.model.bound import importance_bound
from mnar_recsys.model.mnar_vae import MnarVae
from mnar_recsys.prediction import Predictor
from mnar_recsys.training.item_sample import ItemSampler

ITEMS = 1000
SIZES = (50, 100, 200, 400)
_DRAWS = 200
_USERS = 100
_SAMPLES = 20
_JUDGED_USERS = 1000


def bound_errors(simulated: Simulation, model: MnarVae) -> list[dict[str, float | str]]:
    """Return bias and standard deviation of the bound a user, for each way to draw and each M."""
    log = simulated.train
    batch = make_batch(log, np.arange(_USERS))
    noise = torch.randn(_SAMPLES, _USERS, model.latent_size, generator=torch.Generator().manual_seed(0))
    counts = np.bincount(log.items, minlength=log.n_items)
    found: list[dict[str, float | str]] = []
    with torch.no_grad():
        estimator = model.estimator(marginal=True)
        weights, z = model.log_weights(batch, noise, estimator)
        exact_term = estimator(*model.split_latent(z), batch, None)
        rest = weights.total - exact_term
        exact = importance_bound(weights.total)
        middle = model.split_latent(z.mean(0, keepdim=True))
        at_middle = estimator(*middle, batch, None)
        for size in SIZES:
            ways = {"evenly": ItemSampler(np.ones_like(counts), size), "by popularity": ItemSampler(counts, size)}
            errors: dict[str, list[Tensor]] = {"evenly": [], "by popularity": [], "with a control variate": []}
            uniforms = np.random.default_rng(size).random(_DRAWS)
            for uniform in uniforms:
                for way, sampler in ways.items():
                    drawn = _drawn(batch, sampler, float(uniform), log.n_items)
                    term = estimator(*model.split_latent(z), drawn, None)
                    errors[way].append(importance_bound(rest + term) - exact)
                    if way == "by popularity":
                        corrected = at_middle + term - estimator(*middle, drawn, None)
                        errors["with a control variate"].append(importance_bound(rest + corrected) - exact)
            for way, values in errors.items():
                error = torch.stack(values)
                found.append({"way": way, "M": size, "bias": float(error.mean()), "sd": float(error.std(0).mean())})
    return found


def _drawn(batch: UserBatch, sampler: ItemSampler, uniform: float, n_items: int) -> UserBatch:
    items, weights = sampler.draw(uniform)
    everything = torch.zeros(n_items)
    everything[torch.from_numpy(items)] = torch.from_numpy(weights)
    return batch.among(torch.arange(n_items), everything)


def fit(name: str, size: int | str, n_users: int, seed: int) -> Row:
    """Measure one fit with so many drawn items, and its mean squared error on the unrated cells of some users."""
    simulated = simulate_ratings("r3-like", n_users=n_users, n_items=ITEMS, seed=seed)
    recommender = MNARRecommender(sampled_items=size)
    row = measured(name, ITEMS, lambda: recommender.fit(simulated.train, seed=seed), repeats=1, warmup=0)
    row.facts.update(M=size, seed=seed, mse=error_of(recommender, simulated))
    row.facts["steps"] = int(recommender.fitted.history[-1]["step"])
    return row


def error_of(recommender: MNARRecommender, simulated: Simulation) -> float:
    """Return the mean squared error on all unrated cells of the first users."""
    log = simulated.train
    n_users = min(_JUDGED_USERS, log.n_users)
    truth, _ = simulated.truth.block(0, n_users)
    users, items = np.divmod(np.arange(n_users * log.n_items), log.n_items)
    unrated = ~np.isin(users * log.n_items + items, log.cells)
    fitted = recommender.fitted
    mean = Predictor(fitted.model, log).predict(users[unrated], items[unrated]).mean
    return float(np.mean((mean - truth.ravel()[unrated]) ** 2))


def main(
    users: Annotated[int, typer.Option(min=100)] = 4000,
    seeds: Annotated[int, typer.Option(min=1)] = 3,
    json: Annotated[Path | None, typer.Option(help="Write the rows here as well.")] = None,
) -> None:
    """Print both tables."""
    simulated = simulate_ratings("r3-like", n_users=users, n_items=ITEMS, seed=0)
    model = MNARRecommender().fit(simulated.train, seed=0).fitted.model
    for row in bound_errors(simulated, model):
        typer.echo(f"M = {row['M']}, drawn {row['way']}: bias {row['bias']:+.3f}, sd {row['sd']:.3f} nats a user")
    cases = [(size, seed) for size in ("all", *reversed(SIZES)) for seed in range(seeds)]
    rows = [alone(fit, f"M = {size}", size, users, seed) for size, seed in track(cases, "fitting")]
    report(rows, "Fits on drawn items, error on all unrated cells", json)


if __name__ == "__main__":
    typer.run(main)
