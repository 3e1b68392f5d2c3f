"""Masks drawn from the posterior predictive distribution of a fitted model, and what they add up to."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import one_hot

from mnar_recsys.data import RatingLog, RatingScale
from mnar_recsys.model.batch import make_batch
from mnar_recsys.model.indexing import lift
from mnar_recsys.model.mnar_vae import MnarVae
from mnar_recsys.prediction.posterior import UserPosterior, infer, quasi_normal
from mnar_recsys.prediction.weight_draws import WeightDraws
from mnar_recsys.rng import torch_seed

SAMPLES = 512
"""Draws of a user's latents from which those of the masks are resampled, by weight."""
_BINS = 10
_BLOCK_CELLS = 4_000_000


@dataclass(frozen=True, eq=False)
class MaskCounts:
    """Numbers of ratings in M masks; of the actual mask, without the first axis."""

    by_user: NDArray[np.float64]
    """(M, U)"""
    by_group: NDArray[np.float64]
    """(M, G), of each group of items"""
    by_level: NDArray[np.float64]
    """(M, R)"""


class MaskTally:
    """Counts masks of some users of a log, by groups of the items and by rating.

    Parameters
    ----------
    log : RatingLog
        The actual ratings; those of a survey are not counted.
    users : ndarray
        (U,) indices into it.
    groups : int
        Groups of about the same size into which the items fall, by how many ratings they have in the log.
    """

    def __init__(self, log: RatingLog, users: NDArray[np.int64], groups: int) -> None:
        chosen = log.chosen
        order = np.argsort(np.bincount(chosen.items, minlength=log.n_items), kind="stable")
        parts = np.array_split(order, min(groups, log.n_items))
        self.users = users
        self.group_sizes = np.array([len(part) for part in parts])
        self.group = np.empty(log.n_items, dtype=np.int64)
        for number, part in enumerate(parts):
            self.group[part] = number
        self.levels, self.level_names = _levels(log.scale)
        self._chosen = chosen.select_users(users)

    def actual(self) -> MaskCounts:
        """Return the counts of the actual mask."""
        log = self._chosen
        level = np.searchsorted((self.levels[1:] + self.levels[:-1]) / 2, log.values, side="right")
        counts = (
            np.diff(log.indptr),
            np.bincount(self.group[log.items], minlength=len(self.group_sizes)),
            np.bincount(level, minlength=len(self.levels)),
        )
        return MaskCounts(*(count.astype(np.float64) for count in counts))


def _levels(scale: RatingScale) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Return the levels and their names; of a real interval, the middles of equal parts."""
    if scale.levels is not None:
        return scale.levels, tuple(f"{level:g}" for level in scale.levels)
    edges = np.linspace(scale.low, scale.high, _BINS + 1)
    return (edges[1:] + edges[:-1]) / 2, tuple(f"{low:g} to {high:g}" for low, high in pairwise(edges.tolist()))


class MaskReplicator:
    """Draws masks and ratings together, each user's latents from p(z | x_obs, s)."""

    def __init__(self, model: MnarVae, log: RatingLog, tally: MaskTally, seed: int) -> None:
        self._model, self._log, self._seed = model.eval(), log, seed
        self._users = tally.users
        self._device = next(model.parameters()).device
        self._levels = torch.tensor(tally.levels, dtype=torch.float32, device=self._device)
        self._decoder = model.decoder.on_levels(self._levels)
        self._groups = one_hot(torch.from_numpy(tally.group).to(self._device)).float()  # (P, G)

    def draw(self, count: int, on_share: Callable[[float], None] | None = None) -> MaskCounts:
        """Return the counts of ``count`` masks; mask m has the items' weights of their draw m mod W."""
        users, n_items = self._users, self._log.n_items
        counts = MaskCounts(
            *(np.zeros((count, size)) for size in (len(users), self._groups.shape[1], len(self._levels)))
        )
        weights = WeightDraws(self._model, self._seed)
        noise = quasi_normal(SAMPLES, self._model.latent_size, torch_seed(self._seed, "mask checks")).to(self._device)
        generator = torch.Generator(self._device).manual_seed(torch_seed(self._seed, "masks"))
        size = max(1, _BLOCK_CELLS // (SAMPLES * n_items))
        for number in range(len(weights)):
            masks = np.arange(number, count, len(weights))
            with weights.at(number), torch.no_grad():
                for start in range(0, len(users), size):
                    rows = slice(start, min(start + size, len(users)))
                    self._add(counts, masks, rows, noise, generator)
                    if on_share:
                        on_share((number + rows.stop / len(users)) / len(weights))
        return counts

    def _add(
        self, counts: MaskCounts, masks: NDArray[np.int64], rows: slice, noise: Tensor, generator: torch.Generator
    ) -> None:
        """Draw the rows of some users in some masks."""
        batch = make_batch(self._log, self._users[rows], self._device)
        posterior = infer(self._model, batch, noise)
        picks = torch.multinomial(posterior.share.T, len(masks), replacement=True, generator=generator).T  # (M, B)
        # A cell of a survey was not open to choice.
        is_open = torch.ones(batch.n_users, self._log.n_items, device=self._device)
        if batch.surveyed is not None:
            is_open[batch.rows, batch.items] = 1 - batch.surveyed
        size = max(1, _BLOCK_CELLS // (batch.n_users * len(self._levels) * self._log.n_items))
        for first in range(0, len(masks), size):
            block = masks[first : first + size]
            rates = self._rates(posterior, picks[first : first + size])  # (M, B, R, P)
            chance = torch.rand(*rates.shape[:2], rates.shape[-1], generator=generator, device=self._device)
            # One number decides whether the cell is rated, and how: the levels' probabilities laid end to end.
            reached = [(chance < edge) * is_open for edge in rates.cumsum(-2).unbind(-2)]  # R of (M, B, P)
            rated = reached[-1]
            counts.by_user[block, rows] = rated.sum(-1).cpu().numpy()
            counts.by_group[block] += (rated.sum(1) @ self._groups).cpu().numpy()
            up_to = torch.stack([cells.sum((1, 2)) for cells in reached], dim=-1).cpu().numpy()
            counts.by_level[block] += np.diff(up_to, axis=-1, prepend=0.0)

    def _rates(self, posterior: UserPosterior, picks: Tensor) -> Tensor:
        """P(rated, and at level r) of every cell at the picked draws (M, B) of the latents: (M, B, R, P)."""
        people = torch.arange(picks.shape[1], device=picks.device)
        cells = self._decoder.cells(posterior.taste[picks, people])
        logit = self._model.missing.logit(self._levels[:, None], slice(None))
        offset = self._model.exposure.cells(posterior.z_x[picks, people])
        if offset is not None:
            logit = logit + lift(offset).unsqueeze(-2)
        return cells.support_weights * torch.sigmoid(logit)
