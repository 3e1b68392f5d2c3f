"""The full posterior of a small log, sampled by the No-U-Turn sampler (Hoffman & Gelman 2014), which is Pyro's.

Chains start from the variational fit, each from a draw of its own.
"""

import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mnar_recsys.config import TrainingConfig
from mnar_recsys.data import RatingLog
from mnar_recsys.errors import ConfigError, DivergedError
from mnar_recsys.model.compiled import compiling, fused
from mnar_recsys.model.posterior_draws import PosteriorDraws, SamplingReport
from mnar_recsys.rng import numpy_generator, torch_seed
from mnar_recsys.training.alignment import align
from mnar_recsys.training.chain_statistics import monitor
from mnar_recsys.training.log_posterior import LogPosterior
from mnar_recsys.training.trainer import Trainer

MOST_CELLS = 1_000_000
"""Users times items of the largest log that is sampled: every gradient visits every cell."""
# Trajectories of at most 2^6 - 1 steps.
_MAX_TREE_DEPTH = 6
_TARGET_ACCEPTANCE = 0.8
_INITIAL_STEP = 0.05

_SITE = "coordinates"


@dataclass(frozen=True)
class ChainState:
    """Where the sampling stands after a draw."""

    chain: int
    """from 0"""
    draw: int
    """of this chain, from 0, those of the warm-up first"""
    is_warmup: bool
    monitored: Mapping[str, float]


OnDraw = Callable[[ChainState], None]
Density = Callable[[Tensor], Tensor]
"""A ``LogPosterior``, compiled perhaps."""


def check_can_sample(log: RatingLog) -> None:
    """Raise ConfigError if the log is too large to be sampled."""
    cells = int((np.diff(log.indptr) > 0).sum()) * log.n_items
    if cells > MOST_CELLS:
        raise ConfigError(
            f"inference 'mcmc' is for logs of at most {MOST_CELLS:,} cells (users times items); found {cells:,}. "
            "Use inference 'variational'"
        )


def sample_posterior(trainer: Trainer, on_draw: OnDraw | None = None) -> PosteriorDraws:
    """Sample the posterior of all weights and latents, from the weights that training left.

    The same trainer, seed and number of threads give the same draws on the CPU.

    Parameters
    ----------
    trainer : Trainer
        After ``run``; its model is not changed.
    on_draw : callable, optional
        Called after each draw.

    Raises
    ------
    DivergedError
        If the density is not finite where a chain starts.
    """
    config, began = trainer.config, time.perf_counter()
    posterior = LogPosterior(
        trainer.model, trainer.log, trainer.stepper.objective.config, trainer.stepper.objective.population
    )
    density = fused(posterior.__call__, any_shape=False)
    chains = [_Chain(posterior, density, config, trainer.seed, number) for number in range(config.mcmc_chains)]
    with compiling(config.compile, posterior.n_cells * _most_gradients(config), posterior.device):
        for chain in chains:
            chain.run(on_draw)
    kept = _spread(np.arange(config.mcmc_chains * config.mcmc_draws), config.mcmc_kept)
    # Mixed, so that whoever takes the first few takes them from all chains.
    order = numpy_generator(trainer.seed, "mcmc order").permutation(kept)
    draws = [chains[place // config.mcmc_draws].draws[place % config.mcmc_draws] for place in order]
    traces = {name: np.array([chain.traces[name] for chain in chains]) for name in chains[0].traces}
    report = SamplingReport(
        chains=config.mcmc_chains,
        warmup=config.mcmc_warmup,
        draws=config.mcmc_draws,
        seconds=time.perf_counter() - began,
        gradients=sum(chain.gradients for chain in chains)
        / (config.mcmc_chains * (config.mcmc_warmup + config.mcmc_draws)),
        divergences=sum(chain.divergences for chain in chains),
        monitored=tuple(monitor(name, trace) for name, trace in traces.items()),
    )
    return _collect(posterior, draws, report)


def _most_gradients(config: TrainingConfig) -> float:
    return float(config.mcmc_chains * (config.mcmc_warmup + config.mcmc_draws) * 2**_MAX_TREE_DEPTH)


def _spread(places: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return at most ``count`` of the places, evenly spaced."""
    if count >= len(places):
        return places
    return places[((np.arange(count) + 0.5) * len(places) / count).astype(np.int64)]


def _collect(posterior: LogPosterior, draws: list[Tensor], report: SamplingReport) -> PosteriorDraws:
    """Return the draws as parameters of the model, all in one basis near to that of its encoder."""
    model = posterior.model
    own = torch.from_numpy(posterior.users).to(posterior.device)
    with torch.no_grad():
        target = model.encoder(posterior.batch)[0] + model.prior_mean(posterior.batch)
        everyone = target.new_zeros(posterior.log.n_users, target.shape[1])
        everyone[own] = target
        parts = align(model, [posterior.parameters(draw) for draw in draws], everyone)
    names = parts[0][0].keys()
    parameters = {name: torch.stack([values[name] for values, _ in parts]).cpu() for name in names}
    return PosteriorDraws(parameters, torch.stack([z for _, z in parts]).cpu(), report)


class _Chain:
    """One chain: its draws after the warm-up, and what was monitored."""

    def __init__(
        self, posterior: LogPosterior, density: Density, config: TrainingConfig, seed: int, number: int
    ) -> None:
        self.draws: list[Tensor] = []
        self.traces: dict[str, list[float]] = {}
        self.gradients = 0
        self.divergences = 0
        self._posterior = posterior
        self._density = density
        self._config = config
        self._seed = seed
        self._number = number
        self._origin = 0.0

    def run(self, on_draw: OnDraw | None) -> None:
        """Warm up and draw."""
        generator = torch.Generator(self._posterior.device).manual_seed(torch_seed(self._seed, "mcmc", self._number))
        start = self._posterior.start(generator)
        with torch.no_grad():
            self._origin = float(self._posterior(start))
        if not np.isfinite(self._origin):
            raise DivergedError(
                f"the posterior density is not finite where chain {self._number + 1} starts; train with inference "
                "'variational' and look at its card.md"
            )
        with closing(self._walk(start)) as walk:
            for draw, coordinates in enumerate(walk):
                values = self._posterior.monitored(coordinates)
                is_warmup = draw < self._config.mcmc_warmup
                if not is_warmup:
                    self.draws.append(coordinates.clone())
                    for name, value in values.items():
                        self.traces.setdefault(name, []).append(value)
                if on_draw:
                    on_draw(ChainState(self._number, draw, is_warmup, values))

    def _walk(self, start: Tensor) -> Generator[Tensor]:
        """Yield the chain's states, warm-up first."""
        # Not at the top: it takes a second to import, and most commands do without.
        import pyro
        from pyro.infer.mcmc import NUTS

        kernel: Any = NUTS(
            potential_fn=self._potential,
            step_size=_INITIAL_STEP,
            target_accept_prob=_TARGET_ACCEPTANCE,
            max_tree_depth=_MAX_TREE_DEPTH,
        )
        devices = [start.device] if start.device.type == "cuda" else []
        # Pyro draws from the global generators; the fork puts them back once the chain has ended.
        with torch.random.fork_rng(devices=devices), pyro.validation_enabled(False):
            torch.manual_seed(torch_seed(self._seed, "mcmc draws", self._number))
            kernel.initial_params = {_SITE: start}
            kernel.setup(self._config.mcmc_warmup)
            kernel.mass_matrix_adapter.inverse_mass_matrix = {(_SITE,): self._posterior.rough_sds().square().to(start)}
            state = kernel.initial_params
            for _ in range(self._config.mcmc_warmup + self._config.mcmc_draws):
                state = kernel.sample(state)
                yield state[_SITE].detach()
            self.divergences = len(kernel.diagnostics()["divergences"])
            kernel.cleanup()

    def _potential(self, state: Mapping[str, Tensor]) -> Tensor:
        self.gradients += 1
        # Pyro takes the precision of its momenta from here. Less that of the start it is small enough for a single one.
        return (self._origin - self._density(state[_SITE])).float()
