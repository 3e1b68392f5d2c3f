"""One loop: maximise the importance-weighted bound, look at held-out users, stop."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mnar_recsys.config import LEAST_STEPS_BETWEEN_LOOKS, Settings
from mnar_recsys.data import RatingLog
from mnar_recsys.errors import ConfigError
from mnar_recsys.model.batch import make_batch
from mnar_recsys.model.bound import importance_bound
from mnar_recsys.model.compiled import compiling
from mnar_recsys.model.missing_term import Marginal
from mnar_recsys.model.mnar_vae import MnarVae
from mnar_recsys.model.proposal import log_weights
from mnar_recsys.rng import numpy_generator, torch_seed
from mnar_recsys.training.held_out import split_users, watched_users
from mnar_recsys.training.state import Progress, copy_weights
from mnar_recsys.training.step import Stepper
from mnar_recsys.training.terms import BoundTerms, mean_terms
from mnar_recsys.training.workers import join_workers

_RATE_CUT = 4.0
LEAST_GAIN = 0.01
"""Nats a user that are worth going on for, where the bound converges on the users trained on."""
# Draws of the items' weights over which the bound of users trained on is averaged at a look.
_WEIGHT_DRAWS = 4


def pick_device(name: str) -> torch.device:
    """Return the device of a setting; raise ConfigError if it is unknown or not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device '{name}' is not available here; use 'auto' or 'cpu'") from error
    return device


def within_an_error(change: Tensor) -> bool:
    """Whether the mean of what changed for each user is at most its standard error."""
    return bool(change.mean() <= change.std(correction=0) / len(change) ** 0.5)


class Trainer:
    """Fit a model to a log.

    Every step's noise and batch depend on nothing but (seed, step), so a run that resumes from ``progress``, the
    weights and the optimiser's state continues bit for bit on the CPU.

    Parameters
    ----------
    model : MnarVae
        Trained in place; after ``run`` it holds the best weights.
    log : RatingLog
        Training ratings; users without any are left out.
    settings : Settings
        ``settings.training`` says how, ``settings.model.estimator`` which bound.
    seed : int
        Fixes batches, noise and the held-out users.
    """

    def __init__(self, model: MnarVae, log: RatingLog, settings: Settings, *, seed: int) -> None:
        settings = settings.resolve_for(log)
        self.config = settings.training
        self.workers = join_workers()
        self.device = pick_device(self.config.device)
        self.model = model.to(self.device)
        self.log = log
        self.seed = seed
        self.train_users, self.held_out = split_users(log, self.config, seed=seed)
        self.watched = watched_users(self.train_users, self.held_out, self.config, seed=seed)
        self.stepper = Stepper(
            self.model, log, settings, n_users=len(self.train_users), seed=seed, workers=self.workers
        )
        self.progress = Progress()
        self.average = self._new_average()
        self.best = copy_weights(model)
        self.highest = torch.zeros(0, dtype=torch.float64)
        self._permutation: tuple[int, NDArray[np.int64]] | None = None
        self._recent: list[BoundTerms] = []

    def run(
        self,
        on_step: Callable[["Trainer", BoundTerms], None] | None = None,
        on_look: Callable[["Trainer"], None] | None = None,
    ) -> Progress:
        """Train until the bound no longer rises, or for ``most_steps``; leave the best weights in the model.

        The best weights are those of the highest held-out bound, or of the last look before the rate is cut that these
        users cannot tell from it (``_is_no_worse``); without held-out users the last.

        Raises
        ------
        DivergedError
            If the bound or its gradient is not finite; the weights of the last look stay in ``best``.
        """
        with self.compiling():
            while not self.progress.finished:
                terms = self.step()
                self._recent.append(terms)
                if on_step:
                    on_step(self, terms)
                if self.progress.step % self._look_every == 0 or self.progress.step == self.config.most_steps:
                    self._look()
                    if on_look:
                        on_look(self)
        self.model.load_state_dict(self.best)
        return self.progress

    def held_out_bound(self) -> Tensor:
        """Joint bound of each held-out user under the weights as they are judged: (H,).

        The missing-entry term is exact if there is such a form. The draws are the same at every look, so that looks
        differ by the weights only.
        """
        generator = torch.Generator(self.device).manual_seed(torch_seed(self.seed, "held out"))
        return self._bound(self.held_out, self.config.validation_samples, generator)

    def watched_bound(self) -> Tensor:
        """Return what is to rise, of each watched user, in nats: (W,), none if nobody is watched.

        The bound of held-out users; without any, what ``bound_on`` gives for users trained on.
        """
        if len(self.held_out) or not len(self.watched):
            return self.held_out_bound()
        return self.bound_on(self.watched)

    def bound_on(self, users: NDArray[np.int64]) -> Tensor:
        """Return the bound of users trained on, less their share of what the weights cost, in nats: (W,).

        Its mean over draws of the items' weights that are the same at every call.
        """
        total = torch.zeros(len(users), dtype=torch.float64)
        for draw in range(_WEIGHT_DRAWS):
            generator = torch.Generator(self.device).manual_seed(torch_seed(self.seed, "watched", draw))
            self.judged.resample_weights(generator)
            total += self._bound(users, self.config.samples, generator)
        self.judged.clear_weights()
        with torch.no_grad():
            cost = float(self.stepper.objective.weight_cost(model=self.judged)) / len(self.train_users)
        return total / _WEIGHT_DRAWS - cost

    def _bound(self, judges: NDArray[np.int64], samples: int, generator: torch.Generator) -> Tensor:
        model = self.judged
        is_drawn = model.missing.needs_row
        estimator = model.estimator(marginal=not is_drawn)
        found = torch.zeros(len(judges), dtype=torch.float64)
        size = self.config.batch_size
        for start in range(0, len(judges), size):
            users = judges[start : start + size]
            shape = (samples, len(users), self.model.latent_size)
            noise = torch.randn(shape, generator=generator, device=self.device)
            cells = (*shape[:2], self.log.n_items)
            cell_noise = model.decoder.noise(cells, generator) if is_drawn else None
            if start // size % self.workers.size != self.workers.rank:
                continue
            with torch.no_grad():
                batch = make_batch(self.log, users, self.device)
                if isinstance(estimator, Marginal) and self.config.proposal == "newton":
                    weights, _ = log_weights(model, batch, noise, estimator, steps=1)
                else:
                    weights, _ = model.log_weights(batch, noise, estimator, cell_noise)
            found[start : start + size] = importance_bound(weights.total).double().cpu()
        return self.workers.total(found)

    def compiling(self) -> AbstractContextManager[None]:
        """Return a context in which steps run compiled, if the settings say so or the whole run is long enough."""
        config, sampler = self.config, self.stepper.sampler
        n_items = self.log.n_items if sampler is None else 2 * sampler.size
        users = min(config.batch_size, len(self.train_users))
        visits = float(config.samples) * users * n_items * config.most_steps
        return compiling(config.compile, visits, self.device)

    @property
    def _look_every(self) -> int:
        """Steps between two looks: not less than a quarter of a pass over the users, so that large logs train."""
        if self.config.evaluate_every != "auto":
            return self.config.evaluate_every
        return max(LEAST_STEPS_BETWEEN_LOOKS, len(self.train_users) // (4 * self.config.batch_size))

    def _batch(self, step: int) -> NDArray[np.int64]:
        """Return the users of batch ``step``: without replacement inside an epoch, a new order for each epoch."""
        size = min(self.config.batch_size, len(self.train_users))
        per_epoch = len(self.train_users) // size
        epoch, place = divmod(step, per_epoch)
        if self._permutation is None or self._permutation[0] != epoch:
            order = numpy_generator(self.seed, "batches", epoch).permutation(self.train_users)
            self._permutation = (epoch, order)
        return self._permutation[1][place * size : (place + 1) * size]

    def step(self) -> BoundTerms:
        """Make one update; return the terms of the bound before it."""
        number = self.progress.step
        terms = self.stepper.step(number, self._batch(number), self._batch(number + 1))
        if self.average is not None:
            self.average.update_parameters(self.model)
        self.progress.step = number + 1
        return terms

    @property
    def judged(self) -> MnarVae:
        """The model that looks judge and that is kept: of averaged weights, if there are any."""
        if self.average is None:
            return self.model
        averaged = self.average.module
        assert isinstance(averaged, MnarVae)  # noqa: S101
        return averaged

    def _new_average(self) -> AveragedModel | None:
        decay = self.config.average_decay
        if decay == 0 or self.stepper.sampler is not None:
            return None
        return AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(decay))  # type: ignore[no-untyped-call]

    def weight_cost(self) -> Tensor:
        """Return what the weights cost once a pass over the data, in nats; see ``Objective.weight_cost``."""
        return self.stepper.objective.weight_cost()

    def _look(self) -> None:
        """Record where the run stands; keep the best weights; cut the rate, or stop, when nothing is gained."""
        progress, bounds = self.progress, self.watched_bound()
        recent = mean_terms(self._recent)
        watched = float(bounds.mean()) if len(bounds) else recent["bound"] - recent["weight_cost"]
        self._recent = []
        if progress.best_bound == -np.inf or self._has_gained(bounds, watched):
            progress.best_bound, progress.looks_without_gain, self.highest = watched, 0, bounds
        else:
            progress.looks_without_gain += 1
        is_over = self.config.stop != "never" and progress.looks_without_gain >= self.config.patience
        is_best = progress.looks_without_gain == 0 or (not is_over and self._is_no_worse(bounds))
        is_kept = is_best or not len(self.held_out)
        if is_kept:
            progress.best_step, self.best = progress.step, copy_weights(self.judged)
        held_out = watched if len(self.held_out) else float("nan")
        progress.history.append(
            {"step": float(progress.step), **recent, "held_out": held_out, "watched": watched, **self._slope(),
             "learning_rate": self.stepper.learning_rate, "kept": float(is_kept)}
        )  # fmt: skip
        if is_over:
            self._cut_rate_or_stop()
        if progress.step >= self.config.most_steps:
            progress.finished = True

    def _has_gained(self, bounds: Tensor, watched: float) -> bool:
        """Whether these weights are better than the best.

        For users trained on, by more than one paired standard error and ``LEAST_GAIN``: their bound creeps on long
        after predictions have stopped moving.
        """
        gain = watched - self.progress.best_bound
        if len(self.held_out) or not len(bounds):
            return gain > 0
        return gain > LEAST_GAIN and not within_an_error(bounds - self.highest)

    def _is_no_worse(self, bounds: Tensor) -> bool:
        """Whether held-out users cannot tell these weights from their best.

        Their bound is at its highest some looks before predictions are at their best (docs/inference.md). Once the
        rate has been cut there is nothing to wait for.
        """
        return self.progress.rate_cuts == 0 and len(bounds) > 0 and within_an_error(self.highest - bounds)

    def _cut_rate_or_stop(self) -> None:
        if self.progress.rate_cuts == self.config.rate_cuts:
            self.progress.finished = True
            return
        self.progress.rate_cuts += 1
        self.progress.looks_without_gain = 0
        self.model.load_state_dict(self.best)
        self.average = self._new_average()
        self.stepper.start_again(self.stepper.learning_rate / _RATE_CUT)

    def _slope(self) -> dict[str, float]:
        """Return the log-odds that the best rating adds to being given, beside the worst, in nats."""
        ends = torch.tensor([self.log.scale.low, self.log.scale.high], device=self.device)
        with torch.no_grad():
            low, high = self.judged.missing.selection(ends).tolist()
        return {"selection": high - low}
