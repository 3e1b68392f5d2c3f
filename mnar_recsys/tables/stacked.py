"""Training of several models side by side: their parameters are stacked, and one step moves all of them.

The models are small and a step of one is mostly the calling of operations; five at once cost little more.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call, stack_module_state

from mnar_recsys.config.tables import TableSettings
from mnar_recsys.errors import DivergedError
from mnar_recsys.model.compiled import compiling, fused
from mnar_recsys.rng import numpy_generator, torch_seed
from mnar_recsys.tables.table_vae import TableVae

OnStep = Callable[[int, NDArray[np.float64]], None]

# Steps whose noise is drawn at once.
_CHUNK = 50
# How often the bound is looked at; a step in between costs no synchronisation.
_LOOK = 100
# Steps from which a compiled step, twice as fast, makes up for the compiling.
_WORTH_COMPILING = 5_000


@dataclass(frozen=True)
class Rows:
    """The rows of a table in the units of the model, each (N, P) float32."""

    values: Tensor
    """0 where missing"""
    observed: Tensor
    """1 where observed, else 0"""


def train(
    models: Sequence[TableVae],
    rows: Rows,
    settings: TableSettings,
    seeds: Sequence[int],
    *,
    only: tuple[str, ...] = ("",),
    on_step: OnStep | None = None,
) -> None:
    """Maximise the bound of each model (eq. 8) by Adam for ``max_iter`` steps, in place.

    Each model has batches and noise of its own seed: it ends where it would have ended alone, up to rounding.

    Parameters
    ----------
    only : tuple of str
        Learn the parameters whose names begin like one of these, and hold the others.
    on_step : callable, optional
        Called every 100 steps, and after the last one, with the number of steps done and the mean bound of a row of
        the last batch, (R,), in nats.

    Raises
    ------
    DivergedError
        If a bound stops being finite.
    """
    parameters, buffers = stack_module_state(list(models))
    names = [name for name, p in models[0].named_parameters() if p.requires_grad and name.startswith(only)]
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in names)
    skeleton = deepcopy(models[0]).to("meta")
    optimizer = torch.optim.Adam([parameters[name] for name in names], settings.learning_rate, fused=True)

    def one(own: dict[str, Tensor], fixed: dict[str, Tensor], *data: Tensor) -> Tensor:
        bound: Tensor = functional_call(skeleton, (own, fixed), data)
        return bound.mean()

    all_at_once = fused(torch.func.vmap(one), any_shape=False)
    with compiling("auto", math.inf if settings.max_iter >= _WORTH_COMPILING else 0, rows.values.device):
        for step, batch in enumerate(_batches(models[0], rows, settings, seeds), 1):
            optimizer.zero_grad(set_to_none=True)
            bounds = all_at_once(parameters, buffers, *batch)
            (-bounds.sum()).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if step % _LOOK == 0 or step == settings.max_iter:
                reached = bounds.detach().double().numpy()
                if not np.isfinite(reached).all():
                    raise DivergedError(
                        f"step {step}: the bound is no longer finite; lower learning_rate, or raise least_sd"
                    )
                if on_step is not None:
                    on_step(step, reached)
    with torch.no_grad():
        for number, model in enumerate(models):
            for name, parameter in model.named_parameters():
                parameter.copy_(parameters[name][number])


def _batches(
    model: TableVae, rows: Rows, settings: TableSettings, seeds: Sequence[int]
) -> Iterator[tuple[Tensor, ...]]:
    """Yield values and mask (R, B, P), noise (R, S, B, K) and noise of the cells, if any, of every step."""
    n_rows, n_features = rows.values.shape
    size = min(settings.batch_size, n_rows)
    shape = (settings.samples, size, model.latent_size)
    orders = [_order(n_rows, size, seed) for seed in seeds]
    generators = [torch.Generator().manual_seed(torch_seed(seed, "noise")) for seed in seeds]
    for start in range(0, settings.max_iter, _CHUNK):
        steps = min(_CHUNK, settings.max_iter - start)
        noise = torch.stack([model.posterior.noise(torch.randn((steps, *shape), generator=g)) for g in generators], 1)
        cells = None
        if not model.marginal:
            cell_shape = (steps, *shape[:-1], n_features)
            cells = torch.stack([model.likelihood.noise(cell_shape, g) for g in generators], 1)
        for step in range(steps):
            chosen = torch.from_numpy(np.stack([next(order) for order in orders]))
            batch = rows.values[chosen], rows.observed[chosen], noise[step]
            yield batch if cells is None else (*batch, cells[step])


def _order(n_rows: int, size: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Yield batches of row numbers, every row once an epoch but for the rest that does not fill a batch."""
    rng = numpy_generator(seed, "rows")
    while True:
        order = rng.permutation(n_rows)
        for start in range(0, n_rows - size + 1, size):
            yield order[start : start + size]
