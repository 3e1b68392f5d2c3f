"""One loop: maximise the importance-weighted bound, look at held-out users, stop."""

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Adam

from mnar_recsys.config import Settings
from mnar_recsys.data import RatingLog
from mnar_recsys.errors import ConfigError, DivergedError
from mnar_recsys.model.batch import UserBatch, iterate_batches, make_batch
from mnar_recsys.model.bound import LogWeights, effective_sample_size, importance_bound
from mnar_recsys.model.mnar_vae import MnarVae
from mnar_recsys.rng import numpy_generator, torch_seed
from mnar_recsys.training.population import PopulationMarginal
from mnar_recsys.training.state import Progress, copy_weights

_RATE_CUT = 4.0


@dataclass(frozen=True)
class BoundTerms:
    """Means over users, in nats; higher is better for all but the last three."""

    bound: float
    """importance-weighted bound on log p(x_obs, s)"""
    log_p_x: float
    """log p(x_obs|z) under the self-normalised weights"""
    log_p_s: float
    """log p(s|x) under the same weights"""
    kl: float
    """log q(z|x_obs) - log p(z) under the same weights"""
    ess: float
    """effective sample size, between 1 and S"""
    weight_cost: float
    """what weights and slope cost under their priors, shared out over the users; training maximises bound less this"""


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
        settings = settings.resolve(has_levels=log.scale.levels is not None, n_ratings=log.n_ratings)
        self.config = settings.training
        self.model_config = settings.model
        self.device = pick_device(self.config.device)
        self.model = model.to(self.device)
        self.log = log
        self.seed = seed
        self.estimator = model.estimator(marginal=settings.model.estimator == "marginal")
        self.sampled = settings.model.estimator == "sampled"
        shares = settings.model.population_marginal
        self.population = (
            None if shares is None else PopulationMarginal(shares, settings.model.population_size, log.scale)
        )
        self.train_users, self.held_out = self._split_users()
        self.progress = Progress()
        self.best = copy_weights(model)
        self.optimizer = self._new_optimizer(self.config.learning_rate)
        self._permutation: tuple[int, NDArray[np.int64]] | None = None
        self._recent: list[BoundTerms] = []

    def run(
        self,
        on_step: Callable[["Trainer", BoundTerms], None] | None = None,
        on_look: Callable[["Trainer"], None] | None = None,
    ) -> Progress:
        """Train until the bound no longer rises, or for ``max_steps``; leave the best weights in the model.

        The best weights are those of the highest held-out bound, or without held-out users the last.

        Raises
        ------
        DivergedError
            If the bound or its gradient is not finite; the weights of the last look stay in ``best``.
        """
        while not self.progress.finished:
            terms = self._step()
            self._recent.append(terms)
            if on_step:
                on_step(self, terms)
            if self.progress.step % self.config.evaluate_every == 0 or self.progress.step == self.config.max_steps:
                self._look()
                if on_look:
                    on_look(self)
        self.model.load_state_dict(self.best)
        return self.progress

    def held_out_bound(self) -> Tensor:
        """Joint bound of each held-out user under the current weights, exact missing-entry term: (H,).

        The draws are the same at every look, so that looks differ by the weights only.
        """
        estimator = self.model.estimator(marginal=True)
        generator = self._generator("held out")
        bounds = []
        with torch.no_grad():
            for _, batch in iterate_batches(self.log, self.held_out, self.config.batch_size, self.device):
                noise = self._noise(self.config.validation_samples, batch.n_users, generator)
                weights, _ = self.model.log_weights(batch, noise, estimator)
                bounds.append(importance_bound(weights.total))
        return torch.cat(bounds)

    def _split_users(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        users = np.flatnonzero(np.diff(self.log.indptr) > 0)
        if self.config.stop != "held-out":
            return users, users[:0]
        if len(users) < 2:
            raise ConfigError(f"stop='held-out' needs two users with ratings; found {len(users)}. Set stop='converged'")
        shuffled = numpy_generator(self.seed, "held out users").permutation(users)
        size = int(np.clip(round(self.config.holdout_share * len(users)), 1, self.config.holdout_max))
        return np.sort(shuffled[size:]), np.sort(shuffled[:size])

    def _new_optimizer(self, rate: float) -> Adam:
        return Adam([p for p in self.model.parameters() if p.requires_grad], lr=rate)

    def _generator(self, *name: str | int) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(torch_seed(self.seed, *name))

    def _noise(self, samples: int, users: int, generator: torch.Generator) -> Tensor:
        return torch.randn(samples, users, self.model.latent_size, generator=generator, device=self.device)

    def _batch(self, step: int) -> UserBatch:
        """Return batch ``step``: users without replacement inside an epoch, a new order for each epoch."""
        size = min(self.config.batch_size, len(self.train_users))
        per_epoch = len(self.train_users) // size
        epoch, place = divmod(step, per_epoch)
        if self._permutation is None or self._permutation[0] != epoch:
            order = numpy_generator(self.seed, "batches", epoch).permutation(self.train_users)
            self._permutation = (epoch, order)
        chosen = self._permutation[1][place * size : (place + 1) * size]
        return make_batch(self.log, chosen, self.device)

    def _step(self) -> BoundTerms:
        step = self.progress.step
        batch = self._batch(step)
        generator = self._generator("noise", step)
        noise = self._noise(self.config.samples, batch.n_users, generator)
        cell_noise = None
        if self.sampled and self.model.missing.depends_on_rating:
            shape = (self.config.samples, batch.n_users, self.log.n_items)
            cell_noise = self.model.decoder.noise(shape, generator)
        self.model.resample_weights(generator)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16"):
            weights, z = self.model.log_weights(batch, noise, self.estimator, cell_noise)
            weight_cost = self.weight_cost() / len(self.train_users)
            loss = weight_cost - importance_bound(weights.total).mean()
            if self.population is not None:
                survey = self.population.log_likelihood(self.model, z, weights.total, generator)
                loss = loss - survey / len(self.train_users)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.gradient_clip)
        if not (torch.isfinite(loss) and torch.isfinite(norm)):
            raise DivergedError(
                f"the bound is not finite at step {step + 1} (learning rate {self.optimizer.param_groups[0]['lr']:g}); "
                "the last checkpoint, if there was one, is kept; try a smaller learning_rate or gradient_clip"
            )
        self.optimizer.step()
        self.model.clear_weights()
        self.progress.step = step + 1
        return _terms(weights, float(weight_cost.detach()))

    def weight_cost(self) -> Tensor:
        """Return what the items' weights, the slope and the maps from features cost once a pass over the data, nats."""
        model, config = self.model, self.model_config
        rest = model.missing.log_prior(config.selection_prior_sd) + model.log_feature_prior(config.feature_prior_sd)
        if config.item_weights == "variational":
            return model.weight_kl() - rest
        return -model.log_weight_prior(config) - rest

    def _look(self) -> None:
        """Record where the run stands; keep the best weights; cut the rate, or stop, when nothing is gained."""
        progress = self.progress
        recent = _mean(self._recent)
        held_out = float(self.held_out_bound().mean()) if len(self.held_out) else float("nan")
        progress.history.append(
            {"step": float(progress.step), **recent, "held_out": held_out, **self._slope(),
             "learning_rate": self.optimizer.param_groups[0]["lr"]}
        )  # fmt: skip
        self._recent = []
        watched = held_out if len(self.held_out) else recent["bound"] - recent["weight_cost"]
        gained = watched > progress.best_bound
        if gained or not len(self.held_out):
            progress.best_step, self.best = progress.step, copy_weights(self.model)
        progress.best_bound = max(progress.best_bound, watched)
        progress.looks_without_gain = 0 if gained else progress.looks_without_gain + 1
        if self.config.stop != "never" and progress.looks_without_gain >= self.config.patience:
            self._cut_rate_or_stop()
        if progress.step >= self.config.max_steps:
            progress.finished = True

    def _cut_rate_or_stop(self) -> None:
        if self.progress.rate_cuts == self.config.rate_cuts:
            self.progress.finished = True
            return
        self.progress.rate_cuts += 1
        self.progress.looks_without_gain = 0
        self.model.load_state_dict(self.best)
        self.optimizer = self._new_optimizer(self.optimizer.param_groups[0]["lr"] / _RATE_CUT)

    def _slope(self) -> dict[str, float]:
        """Return the log-odds that the best rating adds to being given, beside the worst, in nats."""
        ends = torch.tensor([self.log.scale.low, self.log.scale.high], device=self.device)
        with torch.no_grad():
            low, high = self.model.missing.selection(ends).tolist()
        return {"selection": high - low}


def _terms(weights: LogWeights, weight_cost: float) -> BoundTerms:
    with torch.no_grad():
        share = torch.softmax(weights.total, dim=0)
        log_p_x, log_p_s, kl = (
            float((share * term).sum(0).mean())
            for term in (weights.log_p_x, weights.log_p_s, weights.log_q_z - weights.log_p_z)
        )
        bound = float(importance_bound(weights.total).mean())
        ess = float(effective_sample_size(weights.total).mean())
        return BoundTerms(bound, log_p_x, log_p_s, kl, ess, weight_cost)


def _mean(terms: list[BoundTerms]) -> dict[str, float]:
    rows = [asdict(term) for term in terms]
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
