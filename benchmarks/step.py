"""Time of a training step at the shape of Yahoo! R3: S = 20, B = 100, K = 30, twenty ratings a user, P items.

    python -m benchmarks.step [--json FILE] [--repeats N]

``exact`` and ``exact-ordinal`` sum the missing rating of every item out, ``subsampled`` that of a sample of items;
``dense-reference`` is the model written the plain way (``benchmarks.dense``), ``notmiwae-pytorch`` the package of that
name, both with drawn ratings as in the paper. Rows that would need more memory or minutes than they are worth are left
out: dense ones above 10,000 items.
"""

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from scipy.sparse import csr_matrix

from benchmarks.dense import DenseNotMiwae
from benchmarks.measure import Row, alone, measured, report
from benchmarks.shape import made_up_log
from mnar_recsys.config import preset
from mnar_recsys.data import RatingLog
from mnar_recsys.model.build import build_model
from mnar_recsys.training import Trainer
from mnar_recsys.training.item_sample import DEFAULT_SIZE

SAMPLES, BATCH, LATENT, HIDDEN, USERS = 20, 100, 30, 50, 2000
CATALOGUES = (1_000, 10_000, 100_000)
_DENSE_ITEMS = 10_000

_OURS: dict[str, dict[str, Any]] = {
    "exact": {"estimator": "marginal", "sampled_items": "all"},
    "exact-ordinal": {"decoder": "ordinal", "estimator": "marginal", "sampled_items": "all"},
    "subsampled": {"estimator": "marginal", "sampled_items": DEFAULT_SIZE},
}


def ours(name: str, n_items: int, repeats: int) -> Row:
    """Measure a step of this package."""
    log = made_up_log(USERS, n_items)
    changes = {"samples": SAMPLES, "batch_size": BATCH, "latent_size": LATENT, "device": "cpu"}
    settings = preset("yahoo-r3").replace(changes | _OURS[name])
    trainer = Trainer(build_model(settings.model, log, 0), log, settings, seed=0)
    with trainer.compiling():
        return measured(name, n_items, trainer.step, repeats=repeats)


def dense(name: str, n_items: int, repeats: int) -> Row:
    """Measure a step of a model on dense arrays: the plain one, or that of the package."""
    model: torch.nn.Module
    if name == "notmiwae-pytorch":
        from notmiwae_pytorch.models import NotMIWAE

        model = NotMIWAE(n_items, latent_dim=LATENT, hidden_dim=HIDDEN, n_samples=SAMPLES)
    else:
        model = DenseNotMiwae(n_items, LATENT, SAMPLES)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    batches = _dense_batches(made_up_log(USERS, n_items))

    def step() -> None:
        x, s = next(batches)
        optimizer.zero_grad()
        model(x, s)["loss"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return measured(name, n_items, step, repeats=repeats)


def _dense_batches(log: RatingLog) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    matrix = csr_matrix((log.ratings, log.items, log.indptr), shape=(log.n_users, log.n_items))
    rng = np.random.default_rng(0)
    while True:
        users = rng.choice(log.n_users, BATCH, replace=False)
        x = torch.from_numpy(matrix[users].toarray().astype(np.float32))
        yield x, (x > 0).float()


_ROWS: dict[str, Callable[[str, int, int], Row]] = {
    **dict.fromkeys(_OURS, ours), **dict.fromkeys(("dense-reference", "notmiwae-pytorch"), dense)
}  # fmt: skip


def main(
    json: Annotated[Path | None, typer.Option(help="Write the rows here as well.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Timed steps a row; a tenth of them where a step is slow.")] = 30,
) -> None:
    """Print the table."""
    rows = []
    for n_items in CATALOGUES:
        for name, measure in _ROWS.items():
            if measure is dense and n_items > _DENSE_ITEMS:
                continue
            if name == "notmiwae-pytorch" and find_spec("notmiwae_pytorch") is None:
                typer.echo(f"{name}: not installed (pip install 'mnar-recsys[bench]'), left out", err=True)
                continue
            slow = n_items > 1_000 and name != "subsampled"
            rows.append(alone(measure, name, n_items, max(repeats // 10, 3) if slow else repeats))
            typer.echo(f"{name}, {n_items:,} items: {rows[-1].median_ms:,.1f} ms", err=True)
    report(rows, f"A training step: S = {SAMPLES}, B = {BATCH}, K = {LATENT}", json)


if __name__ == "__main__":
    typer.run(main)
