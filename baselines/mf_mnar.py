"""MF-MNAR: ordinal matrix factorization with a second factorization of who rates what."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import ndtri
from torch import Tensor

from baselines.bias import Offsets, solve_offsets
from baselines.descent import descend
from baselines.fitting import check_positive
from baselines.ordinal_mf import CellTerms, GaussianTable, Layout, OrdinalMf
from baselines.selection import SelectionBaseline, levels_of
from mnar_recsys.data import RatingLog, Split
from mnar_recsys.rng import numpy_generator, torch_seed

_START_SD = 0.3  # of priors and, relative to them, of posteriors
_START_RIDGE = 10.0  # ratings, for the offsets and the factors that the fit starts from
_START_SWEEPS = 12
_GAIN = 0.01  # nats a rating
_SLOWING = 400  # steps
_DRAWS = 100  # of the posterior, for a prediction
_PAIRS_AT_ONCE = 2_000


@dataclass(frozen=True, eq=False)
class Cells:
    """The rated cells, (n,), and which numbers they have among all N P."""

    rows: Tensor
    columns: Tensor
    level: Tensor
    number: Tensor
    shape: tuple[int, int]

    @classmethod
    def of_log(cls, log: RatingLog) -> Self:
        """Return the cells of a log on a scale with levels."""
        rows, columns, level, number = (
            torch.from_numpy(np.array(values, dtype=np.int64))
            for values in (log.rows, log.items, log.scale.level_index(log.ratings), log.cells)
        )
        return cls(rows, columns, level, number, (log.n_users, log.n_items))

    @property
    def n_unrated(self) -> int:
        """The number of cells without a rating."""
        return self.shape[0] * self.shape[1] - len(self.rows)

    def draw_unrated(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return users and items of at most n cells drawn evenly from the unrated ones."""
        drawn = torch.randint(self.shape[0] * self.shape[1], (n,), generator=generator)
        place = torch.searchsorted(self.number, drawn).clamp_max(len(self.number) - 1)
        drawn = drawn[self.number[place] != drawn]
        return drawn // self.shape[1], drawn % self.shape[1]


def bound(model: OrdinalMf, cells: Cells, n_drawn: int, generator: torch.Generator) -> Tensor:
    """Return an unbiased estimate of the evidence lower bound, in nats; higher is better.

    ``n_drawn`` rated cells stand for all rated ones, and the unrated among ``n_drawn`` of all cells for all unrated
    ones, drawn evenly with replacement, and each with its own draw from the posterior. That perhaps no cell drawn is
    unrated is neglected.
    """
    rated = torch.randint(len(cells.rows), (n_drawn,), generator=generator)
    rows, columns = cells.draw_unrated(n_drawn, generator)
    everything = model.draw(torch.cat([cells.rows[rated], rows]), torch.cat([cells.columns[rated], columns]), generator)
    of_rated, of_unrated = (
        CellTerms(*(t[part] for t in everything)) for part in (slice(n_drawn), slice(n_drawn, None))
    )
    log_rated = of_rated.log_rated(cells.level[rated]).sum() * (len(cells.rows) / n_drawn)
    log_unrated = of_unrated.log_unrated().sum() * (cells.n_unrated / max(len(rows), 1))
    return log_rated + log_unrated - model.user.kl() - model.item.kl()


class MfMnar(SelectionBaseline):
    r"""MF-MNAR: ordinal matrix factorization of the ratings with a second factorization of who rates what.

    As in Hernandez-Lobato, Houlsby and Ghahramani, Probabilistic matrix factorization with non-random missing data,
    ICML 2014: a rating is the level between whose cuts, one set an item, the latent :math:`a_{ij} \sim
    N(u_i^T v_j, \gamma_i \gamma_j)` lies; it is in the log with probability
    :math:`\text{sigmoid}(e_i^T f_j + \lambda_{ir} + \psi_{jr})` at level r, so that taste and exposure are factorized
    and each user and item selects by level in a way of its own; all of these have Gaussian priors, whose means and
    variances all users share, and all items; ratings not given are summed out.

    Other than in the paper, one mean-field Gaussian posterior of everything is fitted by stochastic gradients of the
    evidence lower bound, with unrated cells subsampled, instead of expectation propagation for the ratings and
    variational bounds for the mask; cuts are ordered by Gaussian log gaps instead of a constraint; noise is log-normal
    instead of inverse gamma; prior means and variances are point estimates; and the logistic is not bounded further.
    The posterior starts at a ridge factorization of the ratings, because from a random start its taste factors often
    stay at zero. Steps have one size until the bound, averaged over 100 of them, twice in a row has not risen by .01
    nats a rating, or for 5000 steps; then they fall to 0 in 400.

    Level probabilities are means over 100 draws from the posterior, the same draws for every pair; it knows what a user
    rated and did not rate. An unknown user or item has the prior. The predicted rating is the mean
    that they give.

    Parameters
    ----------
    size
        Number of taste factors beside two that hold the offsets of users and of items.
    exposure_size
        Number of exposure factors beside two that hold users' activity and items' popularity.
    learning_rate
        Adam's step size.
    batch_size
        Rated cells in a step, drawn with replacement, and the unrated ones among as many drawn from all cells.

    Raises
    ------
    ConfigError
        If a setting is not above 0; from ``fit``, if the scale of the log has no levels.
    """

    has_level_probabilities = True
    search_space: ClassVar[Mapping[str, tuple[Any, ...]]] = MappingProxyType(
        {"size": (4, 8, 16), "exposure_size": (1, 4)}
    )

    model: OrdinalMf

    def __init__(
        self, *, size: int = 8, exposure_size: int = 4, learning_rate: float = 0.05, batch_size: int = 4096
    ) -> None:
        check_positive(size=size, exposure_size=exposure_size, learning_rate=learning_rate, batch_size=batch_size)
        self.size = size
        self.exposure_size = exposure_size
        self.learning_rate = learning_rate
        self.batch_size = batch_size

    def _fit(self, split: Split, seed: int) -> None:
        log = split.mnar_train
        self._levels = levels_of(log, type(self).__name__)
        self.model = start(log, Layout(self.size + 2, self.exposure_size + 2, len(self._levels)), seed)
        cells, generator = Cells.of_log(log), torch.Generator().manual_seed(torch_seed(seed, "mf_mnar", "train"))
        descend(
            lambda: -bound(self.model, cells, self.batch_size, generator) / log.n_ratings,
            self.model.parameters(),
            learning_rate=self.learning_rate,
            gain=_GAIN,
            slowing=_SLOWING,
            who=type(self).__name__,
        )
        generator = torch.Generator().manual_seed(torch_seed(seed, "mf_mnar", "predict"))
        # The same draws for every pair, so that a prediction does not depend on what else is asked for.
        self._noise = tuple(
            torch.randn(_DRAWS, 1, sum(parts), generator=generator)
            for parts in (self.model.layout.user, self.model.layout.item)
        )

    def _predict(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.asarray(self._level_probabilities(rows, columns) @ self._levels)

    def _level_probabilities(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float64]:
        return self._posterior_mean(rows, columns, if_rated=False)

    def _expected_if_rated(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float64]:
        joint = self._posterior_mean(rows, columns, if_rated=True)
        return np.asarray(joint @ self._levels / joint.sum(axis=1))

    @torch.no_grad()
    def _posterior_mean(
        self, rows: NDArray[np.int64], columns: NDArray[np.int64], *, if_rated: bool
    ) -> NDArray[np.float64]:
        """Return the posterior mean of P(x = level), or of P(x = level, rated), of index pairs, (n, R)."""
        parts = [np.empty((0, len(self._levels)))]
        for begin in range(0, len(rows), _PAIRS_AT_ONCE):
            block = slice(begin, begin + _PAIRS_AT_ONCE)
            terms = self.model.terms(torch.from_numpy(rows[block]), torch.from_numpy(columns[block]), *self._noise)
            wanted = terms.probability * torch.sigmoid(terms.log_odds) if if_rated else terms.probability
            parts.append(wanted.double().mean(dim=0).numpy())
        return np.concatenate(parts)


def start(log: RatingLog, layout: Layout, seed: int) -> OrdinalMf:
    """Return a model whose priors fit the marginals of ratings and mask, and whose taste fits the ratings.

    Taste 0 is 1 for users and an offset for items, taste 1 the other way round; so are exposure 0 and 1.
    """
    counts = np.bincount(log.scale.level_index(log.ratings), minlength=layout.levels) + 0.5
    cuts = ndtri(np.cumsum(counts)[:-1] / counts.sum())
    rated = (log.n_ratings + 0.5) / (log.n_users * log.n_items + 1.0)
    user, item = torch.zeros(sum(layout.user)), torch.zeros(sum(layout.item))
    user[[0, layout.taste]] = 1.0
    item[[1, layout.taste + 1]] = 1.0
    user[layout.selection] = math.log(rated / (1.0 - rated))
    item[-(layout.levels - 1) :] = torch.from_numpy(np.append(cuts[0], np.log(np.diff(cuts))))
    tables = [
        GaussianTable(rows, mean, torch.full_like(mean, _START_SD), _START_SD)
        for rows, mean in ((log.n_users, user), (log.n_items, item))
    ]
    generator = torch.Generator().manual_seed(torch_seed(seed, "mf_mnar", "start"))
    offsets = solve_offsets(log.rows, log.items, log.ratings, (log.n_users, log.n_items), (_START_RIDGE, _START_RIDGE))
    factors = factorize(log, offsets, layout.taste - 2, seed)
    unit = float(log.ratings.std()) + 1e-6  # rating points in one unit of the latent
    with torch.no_grad():
        for table, offset, place, own in zip(tables, (offsets.user, offsets.item), (1, 0), factors, strict=True):
            table.mean[:-1] = 0.1 * torch.randn(table.mean[:-1].shape, generator=generator)
            table.mean[:-1, place] = torch.from_numpy(offset / unit / _START_SD)
            table.mean[:-1, 2 : layout.taste] = torch.from_numpy(own / math.sqrt(unit) / _START_SD)
    return OrdinalMf(layout, *tables)


def factorize(
    log: RatingLog, offsets: Offsets, size: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return factors (N, size) and (P, size), equally large, of what the offsets leave of the ratings.

    Ridge regressions of all users and of all items in turn, a fixed number of times: a start, not a solution.
    """
    residual = log.ratings - offsets.mean - offsets.user[log.rows] - offsets.item[log.items]
    shape = (log.n_users, log.n_items)
    left = sparse.csr_array((residual.astype(np.float64), log.items, log.indptr), shape=shape)
    mask = sparse.csr_array((np.ones(log.n_ratings), log.items, log.indptr), shape=shape)
    item = numpy_generator(seed, "mf_mnar", "factors").normal(scale=0.3, size=(log.n_items, size))
    for _ in range(_START_SWEEPS):
        user = _ridge(mask, left, item)
        item = _ridge(mask.T, left.T, user)
    # Without the tiny number ratings that are all alike, whose factors are 0, would give 0 / 0.
    user_size, item_size = (np.sqrt(np.square(factors).mean(axis=0)) + 1e-12 for factors in (user, item))
    balance = np.sqrt(item_size / user_size)
    return user * balance, item / balance


def _ridge(mask: Any, target: Any, factors: NDArray[np.float64]) -> NDArray[np.float64]:
    size = factors.shape[1]
    products = (factors[:, :, None] * factors[:, None, :]).reshape(-1, size * size)
    gram = (mask @ products).reshape(-1, size, size) + _START_RIDGE * np.eye(size)
    return np.asarray(np.linalg.solve(gram, (target @ factors)[:, :, None])[:, :, 0])
