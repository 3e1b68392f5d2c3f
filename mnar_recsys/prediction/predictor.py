"""Predictions for pairs of users and items: posterior moments, quantiles, level probabilities, draws."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mnar_recsys.data import RatingLog
from mnar_recsys.model.batch import UserBatch, make_batch
from mnar_recsys.model.compiled import compiling
from mnar_recsys.model.mnar_vae import MnarVae
from mnar_recsys.model.posterior_draws import PosteriorDraws
from mnar_recsys.prediction.cells import UNTILTED, CellPosterior, Estimand, Moments, level_masses, quantiles
from mnar_recsys.prediction.known_cells import KnownCells
from mnar_recsys.prediction.posterior import UserPosterior, as_sampled, infer, modes, pick, quasi_normal
from mnar_recsys.prediction.predictions import UNKNOWN, Predictions
from mnar_recsys.prediction.weight_draws import SampledDraws, WeightDraws
from mnar_recsys.rng import torch_seed

DRAWS = 128
"""Draws of a user's latent where the items' weights are points."""
DRAWS_EACH = 16
"""The same for each draw of the items' weights, where they have a posterior."""

_CELLS_AT_ONCE = 2_000_000
_USERS_AT_ONCE = 256


@dataclass(frozen=True)
class _Chunk:
    """Pairs of one group of users, sorted by user."""

    posteriors: tuple[UserPosterior, ...]
    """of the B users of the group, one a draw of the items' weights"""
    rows: NDArray[np.int64]
    """(n,) in 0..B-1"""
    users: NDArray[np.int64]
    items: NDArray[np.int64]


class Predictor:
    """Posterior predictions of a fitted model for the users of a log.

    Parameters
    ----------
    model : MnarVae
        Fitted.
    log : RatingLog
        The ratings to condition on; its catalogue is the model's.
    seed : int
        Fixes the draws. They are shared by all users, so that a prediction does not depend on its neighbours.
    draws : int, optional
        Posterior draws S of a user's latent, for each draw of the items' weights; DRAWS, or DRAWS_EACH.
    estimand : Estimand
        ``CONDITIONAL`` counts a cell's own missingness, ``PAPER`` is eq. 18, all there is for a missing model of whole
        rows.
    trained_items : ndarray, optional
        (P,) whether the model has learned from a rating of the item; default, whether ``log`` has one.
    posterior : PosteriorDraws, optional
        A sampled posterior, which then stands in for the variational one; with latents, if it was sampled from ``log``.
    """

    def __init__(
        self,
        model: MnarVae,
        log: RatingLog,
        *,
        seed: int = 0,
        draws: int | None = None,
        estimand: Estimand = Estimand.CONDITIONAL,
        trained_items: NDArray[np.bool_] | None = None,
        posterior: PosteriorDraws | None = None,
    ) -> None:
        self.model = model.eval()
        self.log = log
        self.seed = seed
        self.estimand = Estimand.PAPER if model.missing.needs_row else estimand
        self.device = next(model.parameters()).device
        self.grid = model.decoder.grid()
        self.weights: WeightDraws | SampledDraws = WeightDraws(model, seed)
        if posterior is not None:
            self.weights = SampledDraws(model, posterior)
        # A chain has one latent a draw for each user; someone without ratings gets a point of the noise.
        is_own = self.weights.latents is not None
        self._each = 1 if is_own else draws or (DRAWS_EACH if self.weights.are_drawn else DRAWS)
        # Of their own for each draw of the weights, (W, S, 1, K'), so that the errors of the W means average out.
        noise = quasi_normal(self.n_draws, model.latent_size, torch_seed(seed, "predict")).to(self.device)
        self.noise = noise.reshape(len(self.weights), self._each, *noise.shape[1:])
        rated = np.bincount(log.items, minlength=log.n_items) > 0
        self.trained_items = rated if trained_items is None else trained_items
        self._known = KnownCells(log)

    def predict(
        self,
        users: NDArray[np.int64],
        items: NDArray[np.int64],
        *,
        probabilities: Sequence[float] = (),
        levels: bool = False,
    ) -> Predictions:
        """Predict pairs given by index into the log's users and catalogue, ``UNKNOWN`` for those outside.

        Parameters
        ----------
        users, items : ndarray
            (n,) each.
        probabilities : sequence of float
            Quantiles wanted.
        levels : bool
            Whether level probabilities are wanted; the scale must have levels.
        """
        if not len(users):
            return Predictions.of_no_pairs(len(probabilities), (self.log.scale.n_levels or 0) if levels else None)
        order = np.argsort(users, kind="stable")
        back = np.argsort(order, kind="stable")
        chunks = self._chunks(users[order], items[order])
        with torch.no_grad(), self.compiling(len(users)):
            parts = [self._describe(chunk, tuple(probabilities), levels) for chunk in chunks]
        columns = {key: np.concatenate([part[key] for part in parts], axis=-1)[..., back] for key in parts[0]}
        shares = columns.pop("levels") if levels else None
        return Predictions(
            levels=None if shares is None else np.ascontiguousarray(shares.T),
            cold=self._known.is_cold(users, items, self.trained_items),
            **columns,
        )

    def compiling(self, n_pairs: int) -> AbstractContextManager[None]:
        """Let the loops of predictions for ``n_pairs`` be compiled while the block runs, if they are many enough."""
        return compiling("auto", float(n_pairs) * self.n_draws, self.device)

    @property
    def n_draws(self) -> int:
        """Posterior draws a user, over all draws of the items' weights."""
        return self._each * len(self.weights)

    def draw(
        self, users: NDArray[np.int64], items: NDArray[np.int64], count: int, rng: np.random.Generator
    ) -> NDArray[np.float32]:
        """Draw ratings from p(x_mis | x_obs, s), sorted by user, indices inside the log: (count, n).

        Sampling importance resampling: for each draw a user's z is picked by its weight, then every rating from its
        conditional distribution. On a level scale draws are levels.
        """
        drawn = []
        picks = np.zeros((count, 0), dtype=np.int64)
        group: tuple[UserPosterior, ...] = ()
        with torch.no_grad():
            for chunk in self._chunks(users, items):
                if chunk.posteriors is not group:  # pairs of one user may fall into several chunks: one pick for all
                    group = chunk.posteriors
                    shares = np.stack([posterior.share.T.cpu().numpy() for posterior in group])
                    picks = pick(shares[np.arange(count) % len(group)], rng)  # (count, B)
                drawn.append([self._draw_once(chunk, number, one, rng) for number, one in enumerate(picks)])
        return np.concatenate(drawn, axis=1) if drawn else np.zeros((count, 0), dtype=np.float32)

    def _draw_once(
        self, chunk: _Chunk, number: int, picks: NDArray[np.int64], rng: np.random.Generator
    ) -> NDArray[np.float32]:
        number %= len(self.weights)
        single = chunk.posteriors[number].keep(torch.from_numpy(picks).to(self.device))
        with self.weights.at(number):
            masses = self._cells(single, chunk, chunk.items).masses()  # (G, n)
        place = torch.from_numpy(pick(masses.T.cpu().numpy(), rng))
        lower, upper = self.grid.lower.cpu()[place].numpy(), self.grid.upper.cpu()[place].numpy()
        ratings = lower + rng.random(len(lower)) * (upper - lower)
        scale = self.log.scale
        return np.asarray(scale.clip(ratings) if scale.levels is None else scale.nearest_level(ratings), np.float32)

    def _chunks(self, users: NDArray[np.int64], items: NDArray[np.int64]) -> Iterator[_Chunk]:
        distinct, starts = np.unique(users, return_index=True)
        ends = np.append(starts[1:], len(users))
        size = max(1, _CELLS_AT_ONCE // (self._each * max(len(self.grid.centre), 8)))
        at_once = _USERS_AT_ONCE
        if self.estimand is Estimand.PAPER:  # every cell of these users is drawn
            at_once = max(1, min(at_once, _CELLS_AT_ONCE // (self._each * self.log.n_items)))
        for first in range(0, len(distinct), at_once):
            group = distinct[first : first + at_once]
            posteriors = self._posteriors(group)
            for start in range(starts[first], ends[first + len(group) - 1], size):
                pairs = slice(start, min(start + size, ends[first + len(group) - 1]))
                yield _Chunk(posteriors, np.searchsorted(group, users[pairs]), users[pairs], items[pairs])

    def _posteriors(self, users: NDArray[np.int64]) -> tuple[UserPosterior, ...]:
        """Return what is known of users under each draw of the weights."""
        batch = make_batch(self.log, users[users != UNKNOWN], self.device)
        if UNKNOWN in users:  # sorted, so the one unknown user is the first: someone without ratings
            batch = batch.after_a_stranger()
        near = modes(self.model, batch) if self.weights.are_drawn and self.weights.are_near else None
        return tuple(self._posterior(users, batch, number, near) for number in range(len(self.weights)))

    def _posterior(
        self, users: NDArray[np.int64], batch: UserBatch, number: int, near: torch.Tensor | None
    ) -> UserPosterior:
        generator = None
        if self.estimand is Estimand.PAPER:
            generator = torch.Generator(self.device)
            generator.manual_seed(torch_seed(self.seed, "cells", int(users[-1]) + 1))
        with self.weights.at(number):
            if self.weights.latents is not None:
                return as_sampled(
                    self.model, batch, self.weights.latents[number, torch.from_numpy(users)], self.noise[number, 0]
                )
            return infer(self.model, batch, self.noise[number], generator, near=near)

    def _cells(
        self, posterior: UserPosterior, chunk: _Chunk, items: NDArray[np.int64], *, untilted: bool = False
    ) -> CellPosterior:
        """Return the mixture for the pairs of a chunk, with ``items`` in place of its items."""
        rows = torch.from_numpy(chunk.rows).to(self.device)
        item = torch.from_numpy(items).to(self.device)
        counts = np.bincount(chunk.rows, minlength=posterior.taste.shape[1])
        pairs = UserBatch(rows, item, torch.empty(0), counts)
        status = np.full(len(items), UNTILTED) if untilted else self._status(chunk.users, items)
        by_row = posterior.row_logit
        return CellPosterior(
            self.model.decoder.pairs(posterior.taste, pairs),
            self.grid,
            self.model.missing if by_row is None else None,
            item,
            offset=self.model.exposure.pairs(posterior.z_x, pairs) if by_row is None else by_row[:, rows, item],
            share=posterior.share.index_select(1, rows),
            status=torch.from_numpy(status).to(self.device),
        )

    def _status(self, users: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.int64]:
        if self.estimand is Estimand.PAPER:
            return np.full(len(items), UNTILTED)
        return self._known.status(users, items)

    def _describe(self, chunk: _Chunk, probabilities: tuple[float, ...], levels: bool) -> dict[str, Any]:
        """Return the columns of a chunk, the pairs on the last axis."""
        known = chunk.items != UNKNOWN
        columns = self._columns(chunk, np.where(known, chunk.items, 0), probabilities, levels)
        columns["ess"] = torch.stack([posterior.ess for posterior in chunk.posteriors]).sum(0).cpu().numpy()[chunk.rows]
        for place in np.flatnonzero(~known):
            for key, values in self._average_item(chunk, int(place), probabilities, levels).items():
                columns[key][..., place] = values
        return columns

    def _columns(
        self,
        chunk: _Chunk,
        items: NDArray[np.int64],
        probabilities: tuple[float, ...],
        levels: bool,
        *,
        average: bool = False,
    ) -> dict[str, Any]:
        """Return the columns of the chunk's users and ``items``; with ``average``, of an item drawn from these."""
        parts, masses = [], []
        for number, posterior in enumerate(chunk.posteriors):
            with self.weights.at(number):
                cells = self._cells(posterior, chunk, items, untilted=average)
                parts.append(cells.moments())
                if probabilities or levels:
                    masses.append(cells.masses())  # (G, n)
        moments = Moments.mixed(parts)
        moments = moments.mixture() if average else moments
        columns = {
            "mean": self._clip(moments.mean),
            "sd": moments.sd.cpu().numpy(),
            "mean_se": moments.mean_se.cpu().numpy(),
            "propensity": moments.propensity.cpu().numpy(),
            "quantiles": np.zeros((0, len(moments.mean)), dtype=np.float32),
        }
        if masses:
            mass = torch.stack(masses).mean(0)
            mass = mass.mean(-1, keepdim=True) if average else mass
            columns["quantiles"] = self._clip(
                quantiles(mass, self.grid, torch.tensor(probabilities, device=self.device))
            )
            if levels:
                on_scale = torch.tensor(self.log.scale.levels, dtype=torch.float32, device=self.device)
                columns["levels"] = level_masses(mass, self.grid, on_scale).cpu().numpy()
        return columns

    def _average_item(
        self, chunk: _Chunk, place: int, probabilities: tuple[float, ...], levels: bool
    ) -> dict[str, Any]:
        """Return what is known of an item outside the catalogue: it is like one drawn from it at random."""
        items = np.arange(self.log.n_items)
        rows, users = np.full(len(items), chunk.rows[place]), np.full(len(items), chunk.users[place])
        everything = _Chunk(chunk.posteriors, rows, users, items)
        columns = self._columns(everything, items, probabilities, levels, average=True)
        return {key: values[..., 0] for key, values in columns.items()}

    def _clip(self, ratings: torch.Tensor) -> NDArray[np.float32]:
        """Return ratings inside the scale: a density may reach beyond it."""
        return ratings.clamp(self.log.scale.low, self.log.scale.high).cpu().numpy()
