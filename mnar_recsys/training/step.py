"""One update of the weights, on all items or on some of them, by one process or several."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call
from torch.optim import Adam, Optimizer, SparseAdam

from mnar_recsys.config import Settings
from mnar_recsys.data import RatingLog
from mnar_recsys.errors import ConfigError, DivergedError
from mnar_recsys.model.batch import UserBatch, make_batch
from mnar_recsys.model.item_rows import ItemRows
from mnar_recsys.model.mnar_vae import MnarVae
from mnar_recsys.rng import numpy_generator, torch_seed
from mnar_recsys.training.item_sample import ItemSampler, Sample, sample_size, with_rated
from mnar_recsys.training.objective import Loss, Objective
from mnar_recsys.training.terms import BoundTerms
from mnar_recsys.training.workers import Workers


class Stepper:
    """Make updates: gradient of the loss on a batch of users, clipped, and a step of Adam.

    Noise depends on nothing but (seed, step). With drawn items (``sampled_items``) a step touches the rows of these and
    of the items that the batch has rated, and no others: Adam is then lazy (``torch.optim.SparseAdam``).

    Parameters
    ----------
    model : MnarVae
        Trained in place; on its device.
    log : RatingLog
        Training ratings.
    settings : Settings
        Resolved.
    n_users : int
        Users trained on.
    seed : int
        Fixes the noise.
    workers : Workers
        Processes that share each batch.
    """

    def __init__(
        self, model: MnarVae, log: RatingLog, settings: Settings, *, n_users: int, seed: int, workers: Workers
    ) -> None:
        self.model = model
        self.log = log
        self.config = settings.training
        size = sample_size(settings, log.n_items)
        seeks_mode = settings.training.proposal == "newton"
        self.objective = Objective(model, settings.model, n_users, log.scale, seeks_mode=seeks_mode)
        self.seed = seed
        self.workers = workers
        self.device = next(model.parameters()).device
        self._draws_cells = settings.model.estimator == "sampled" and model.missing.depends_on_rating
        self.rows = None if size is None else ItemRows(self.objective)
        counts = np.bincount(log.items, minlength=log.n_items)
        self.sampler = None if size is None else ItemSampler(counts, max(size // 2, 1))
        self.optimizers = self._new_optimizers(self.config.rate)
        self._ahead: tuple[NDArray[np.int64], UserBatch] | None = None
        if workers.size > 1 and self.objective.population is not None:
            raise ConfigError("population_marginal needs the whole batch in one process; train without torchrun")
        if workers.size > min(self.config.batch_size, n_users):
            raise ConfigError(
                f"{workers.size} processes share batches of {min(self.config.batch_size, n_users)} users; "
                "start fewer, or raise batch_size"
            )

    @property
    def learning_rate(self) -> float:
        """Adam's step size now."""
        return float(self.optimizers[0].param_groups[0]["lr"])

    def start_again(self, learning_rate: float) -> None:
        """Forget the moments of the gradient, and go on with another step size."""
        self.optimizers = self._new_optimizers(learning_rate)

    def _new_optimizers(self, rate: float) -> tuple[Optimizer, ...]:
        """Return Adam, and for tensors of which a step touches some rows only, its lazy form."""
        by_row = [] if self.rows is None else self.rows.parameters()
        slopes = self.model.missing.slopes()
        steep = [] if slopes is None else [p for p in slopes.parameters() if p.requires_grad and not _among(p, by_row)]
        learned = [p for p in self.model.parameters() if p.requires_grad and not _among(p, (*by_row, *steep))]
        groups = [{"params": learned, "lr": rate}]
        if steep:
            groups.append({"params": steep, "lr": self.config.slope_rate * rate})
        return (Adam(groups, fused=True), *([SparseAdam(by_row, lr=rate)] if by_row else []))

    def step(self, number: int, users: NDArray[np.int64], following: NDArray[np.int64]) -> BoundTerms:
        """Make update ``number`` on a batch of users; return the terms of the bound before it.

        The batch of the ``following`` update is put together while a graphics card still works on this one.

        Raises
        ------
        DivergedError
            If the bound or its gradient is not finite; the weights are then as before.
        """
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        batch = self._batch(users)
        drawn = None
        if self.sampler is not None:
            uniforms = numpy_generator(self.seed, "items", number).random(2)
            drawn = self.sampler.draw(float(uniforms[0])), self.sampler.draw(float(uniforms[1]))
        found, norm = self.differentiate(number, batch, drawn)
        # A graphics card is still at work on this one; the next line that reads a number waits for it.
        self._ahead = following, make_batch(self.log, following, self.device)
        if not (torch.isfinite(found.loss) and torch.isfinite(norm)):
            raise DivergedError(
                f"the bound is not finite at step {number + 1} (learning rate {self.learning_rate:g}); "
                "the last checkpoint, if there was one, is kept; try a smaller learning_rate or gradient_clip"
            )
        for optimizer in self.optimizers:
            optimizer.step()
        self.model.clear_weights()
        return self._terms(found, batch)

    def _batch(self, users: NDArray[np.int64]) -> UserBatch:
        if self._ahead is not None and np.array_equal(self._ahead[0], users):
            return self._ahead[1]
        return make_batch(self.log, users, self.device)

    def differentiate(self, number: int, batch: UserBatch, drawn: tuple[Sample, Sample] | None) -> tuple[Loss, Tensor]:
        """Give the weights the clipped gradient of the loss; return it and the gradient's norm before.

        With two samples of items in place of all, if they are given.
        """
        rows: dict[str, Tensor] = {}
        items: Tensor | None = None
        other: UserBatch | None = None
        if drawn is not None and self.rows is not None:
            # Items that any process's users have rated, so that all processes hold the same rows.
            joined, weights = with_rated(batch.items.cpu().numpy(), *drawn)
            items = torch.from_numpy(joined).to(self.device)
            batch, other = (batch.among(items, torch.from_numpy(part).to(self.device)) for part in weights)
            rows = self.rows.take(items)
        found = self.loss(number, batch, other, rows)
        found.loss.backward()  # type: ignore[no-untyped-call]
        learned = [*self.model.parameters(), *rows.values()]
        self.workers.average(p.grad for p in learned if p.grad is not None)
        norm = torch.nn.utils.clip_grad_norm_(learned, self.config.gradient_clip)
        if items is not None and self.rows is not None:
            self.rows.give_gradients(items, rows)
        return found, norm

    def loss(
        self,
        number: int,
        batch: UserBatch,
        other: UserBatch | None = None,
        rows: Mapping[str, Tensor] = MappingProxyType({}),
    ) -> Loss:
        """Return the loss of this process's share of batch ``number``, to be differentiated.

        ``rows`` stand in place of what they were taken from, ``other`` as in ``Objective``.
        """
        generator = torch.Generator(self.device).manual_seed(torch_seed(self.seed, "noise", number))
        shape = (self.config.samples, batch.n_users)
        noise = torch.randn(*shape, self.model.latent_size, generator=generator, device=self.device)
        cell_noise = None
        if self._draws_cells:
            n_items = self.log.n_items if batch.drawn is None else len(batch.drawn)
            cell_noise = self.model.decoder.noise((*shape, n_items), generator)
        self.model.resample_weights(generator)
        share = 1.0
        if self.workers.size > 1:
            mine = self._mine(batch)
            share = (mine.stop - mine.start) * self.workers.size / batch.n_users
            batch, noise = batch.block(mine.start, mine.stop), noise[:, mine]
            other = None if other is None else other.block(mine.start, mine.stop)
            cell_noise = None if cell_noise is None else cell_noise[:, mine]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16"):
            found: Loss = functional_call(
                self.objective, dict(rows), (batch, noise, cell_noise, generator, share, other)
            )
        return found

    def _mine(self, batch: UserBatch) -> slice:
        """Return this process's users of a batch: a user costs as many numbers as cells are summed over and rated."""
        return self.workers.share(batch.counts + (self.log.n_items if self.sampler is None else self.sampler.size))

    def _terms(self, found: Loss, batch: UserBatch) -> BoundTerms:
        terms = BoundTerms.of(found.weights, float(found.weight_cost.detach()))
        if self.workers.size == 1:
            return terms
        mine = self._mine(batch)
        share = (mine.stop - mine.start) / batch.n_users
        total: list[float] = self.workers.total([share * value for value in terms.values()]).tolist()
        return BoundTerms(*total)


def _among(parameter: Tensor, others: Iterable[Tensor]) -> bool:
    return any(parameter is other for other in others)
