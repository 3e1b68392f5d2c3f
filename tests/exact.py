"""Exact answers for tiny models on levels: z on a grid, every completion of a user's ratings enumerated.

Nothing here is shared with the package: p(x|z) and p(s|x, z) are written out from the raw parameters, and every
answer is a marginal of one table of p(x_obs, x_mis, s | z), so no formula for a conditional is repeated.
"""

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, softmax

from mnar_recsys.data import RatingLog
from mnar_recsys.model.mnar_vae import MnarVae

Array = NDArray[np.float64]


def normal_grid(points: int, reach: float = 7.0) -> tuple[Array, Array]:
    """Points and weights of the trapezoidal rule under N(0, 1): spectrally exact for smooth integrands."""
    t = np.linspace(-reach, reach, points)
    weight = np.exp(-0.5 * t**2)
    return t, weight / weight.sum()


@dataclass(frozen=True)
class Enumeration:
    """A model at G points of its latent space."""

    prior: Array
    """(G,) sums to 1"""
    p: Array
    """(G, P, R) p(x_j = level r | z)"""
    pi: Array
    """(G, P, R) P(s_j = 1 | x_j = level r, z)"""
    levels: Array

    def table(
        self, row: ArrayLike, surveyed: ArrayLike = (), *, could_be_rated: bool = True, ineligible: ArrayLike = ()
    ) -> Array:
        """p(z) p(x_obs, x_mis, s | z) for every completion of a row (nan: unrated): (G, R, ..., R), an axis a gap.

        Known ratings at ``surveyed`` were not given by choice: s = 0, or nothing at all if they could not be. Cells at
        ``ineligible`` were not on offer: nothing at all.
        """
        row = np.asarray(row, dtype=float)
        gaps = np.flatnonzero(np.isnan(row))
        n_levels = len(self.levels)
        table = np.empty((len(self.prior), *[n_levels] * len(gaps)))
        index = np.where(np.isnan(row), 0, np.searchsorted(self.levels, row))
        for filling in product(range(n_levels), repeat=len(gaps)):
            complete = index.copy()
            complete[gaps] = filling
            term = self.prior.copy()
            for j, level in enumerate(complete):
                rated = self.pi[:, j, level]
                mask = rated if j not in gaps else 1 - rated
                if j in np.asarray(surveyed):
                    mask = 1 - rated if could_be_rated else 1.0
                if j in np.asarray(ineligible):
                    mask = 1.0
                term = term * self.p[:, j, level] * mask
            table[(slice(None), *filling)] = term
        return table

    def log_evidence(self, row: ArrayLike, surveyed: ArrayLike = (), **options: Any) -> float:
        """Log p(x_obs, s); ``options`` as of ``table``."""
        return float(np.log(self.table(row, surveyed, **options).sum()))

    def posterior(self, row: ArrayLike, **options: Any) -> Array:
        """p(z | x_obs, s) on the grid: (G,)."""
        table = self.table(row, **options)
        over_z = table.reshape(len(table), -1).sum(1)
        return over_z / over_z.sum()

    def given_z(self, row: ArrayLike, j: int) -> Array:
        """p(x_j | z, x_obs, s) of an unrated cell at each point: (G, R)."""
        table = self.table(row)
        axis = 1 + list(np.flatnonzero(np.isnan(np.asarray(row, dtype=float)))).index(j)
        by_level = np.moveaxis(table, axis, -1).reshape(len(table), -1, len(self.levels)).sum(1)
        return by_level / by_level.sum(1, keepdims=True)

    def cell(self, row: ArrayLike, j: int) -> Array:
        """p(x_j | x_obs, s) of an unrated cell: (R,)."""
        return self.posterior(row) @ self.given_z(row, j)

    def two_cells(self, row: ArrayLike, j: int, k: int) -> Array:
        """p(x_j, x_k | x_obs, s) of two unrated cells, j before k: (R, R)."""
        gaps = list(np.flatnonzero(np.isnan(np.asarray(row, dtype=float))))
        table = self.table(row).sum(0)
        others = tuple(axis for axis in range(len(gaps)) if axis not in (gaps.index(j), gaps.index(k)))
        joint = table.sum(others)
        return joint / joint.sum()


def enumerate_model(model: MnarVae, log: RatingLog, selection: ArrayLike) -> Enumeration:
    """Enumerate a model with one dimension of taste, at most one of exposure, and activity or none.

    ``selection`` (R,) or (P, R): what each level adds to the log-odds of an item, worked out by the test.
    """
    exposure = model.exposure
    blocks = [normal_grid(121)]
    loadings = []  # what a unit of each further latent adds to the items' log-odds
    if exposure.weight is not None:
        loadings.append(exposure.weight.detach().double().numpy()[:, 0])
    if exposure.log_activity_sd is not None:
        loadings.append(np.full(log.n_items, np.exp(exposure.log_activity_sd.item())))
    blocks += [normal_grid(41, 6.0)] * len(loadings)
    z, *others = (axis.ravel() for axis in np.meshgrid(*(points for points, _ in blocks), indexing="ij"))
    prior = blocks[0][1]
    for _, weights in blocks[1:]:
        prior = np.outer(prior, weights).ravel()
    shift = sum((np.outer(t, loading) for t, loading in zip(others, loadings, strict=True)), np.zeros((1, 1)))
    log_odds = np.asarray(selection) + model.missing.item_bias.detach().double().numpy()[:, None]  # (P, R)
    pi = np.broadcast_to(expit(log_odds + shift[..., None]), (len(z), *log_odds.shape))
    levels = np.arange(log.scale.low, log.scale.high + 1e-9, log.scale.step)
    return Enumeration(prior, level_probabilities(model, z), pi, levels)


def level_probabilities(model: MnarVae, z: Array) -> Array:
    """p(x_j = r | z) from the raw parameters: (G, P, R)."""
    weight, bias = (value.detach().double().numpy() for value in (model.decoder.weight, model.decoder.bias))
    natural = z[:, None, None] * weight[..., 0] + bias  # (G, C, P)
    if hasattr(model.decoder, "first_cut"):
        gaps = np.logaddexp(0, model.decoder.raw_gaps.detach().double().numpy()) + 1e-3
        cuts = model.decoder.first_cut.item() + np.append(0, np.cumsum(gaps))
        below = expit(cuts - natural[:, 0, :, None])
        return np.diff(below, prepend=0, append=1, axis=-1)
    return np.moveaxis(softmax(natural, axis=1), 1, 2)
