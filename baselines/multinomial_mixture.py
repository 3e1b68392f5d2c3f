"""A mixture of users over rating levels, with a model of who rates what, fitted by EM: the core of CPT-v and Logit-vd.

Symbols: N users, P items, R levels, K clusters; theta (P, R, K) sums to 1 over R and weight (K,) to 1.
"""

from abc import abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import logsumexp, softmax

from baselines.fitting import check_positive
from baselines.selection import SelectionBaseline, levels_of
from mnar_recsys.data import RatingLog, Split
from mnar_recsys.rng import numpy_generator

Array = NDArray[np.float64]

_START_CONCENTRATION = 20.0  # of the starting theta around the marginal: clusters differ, none is extreme
_TOLERANCE = 1e-7  # nats a rating


class Selection(Protocol):
    """P(s_ij = 1 | x_ij = level r): how the choice to rate depends on the item and the level. Immutable."""

    def probabilities(self) -> Array:
        """Return the probabilities, (P, R), each strictly between 0 and 1."""
        ...

    def log_prior(self) -> float:
        """Return the log prior density of the parameters, up to a constant."""
        ...

    def update(self, rated: Array, unrated: Array) -> Self:
        """Return what the M-step makes of the counts of rated cells and the expected ones of unrated cells, (P, R)."""
        ...

    def coordinates(self) -> Array:
        """Return the parameters as unconstrained numbers, one vector."""
        ...

    def at(self, coordinates: Array) -> Self:
        """Return the selection with these ``coordinates``."""
        ...


@dataclass(frozen=True, eq=False)
class LevelCells:
    """The rated cells as an indicator matrix: entry (i, j R + r) is 1 where user i gave item j level r."""

    given: "sparse.csr_array[Any, tuple[int, int]]"  # (N, P R)
    n_items: int
    n_levels: int

    @classmethod
    def of_log(cls, log: RatingLog, who: str) -> Self:
        """Return the cells of a log; raise ConfigError if its scale has no levels."""
        n_levels = len(levels_of(log, who))
        columns = log.items.astype(np.int64) * n_levels + log.scale.level_index(log.ratings)
        shape = (log.n_users, log.n_items * n_levels)
        return cls(sparse.csr_array((np.ones(log.n_ratings), columns, log.indptr), shape=shape), log.n_items, n_levels)

    @cached_property
    def by_cell(self) -> "sparse.csr_array[Any, tuple[int, int]]":
        """The transpose, (P R, N)."""
        return self.given.T.tocsr()

    @cached_property
    def counts(self) -> Array:
        """How often each item got each level, (P, R)."""
        return np.asarray(self.given.sum(axis=0), dtype=np.float64).reshape(self.n_items, self.n_levels)


@dataclass(frozen=True, eq=False)
class Mixture:
    """The parameters: P(cluster), P(level | item, cluster) and P(rated | item, level)."""

    weight: Array  # (K,)
    theta: Array  # (P, R, K)
    selection: Selection

    def log_joint(self, cells: LevelCells) -> Array:
        r"""Return :math:`\log p(x_i^{obs}, s_i, k)` of each user, (N, K).

        The sum over a user's unrated items of :math:`\log \sum_r \theta_{jrk} (1 - \mu_{jr})` is that over all items
        minus that over the rated ones, so only rated cells are visited per user.
        """
        rated, n_clusters = self.selection.probabilities(), len(self.weight)
        unrated = np.log(self._unrated().sum(axis=1))  # (P, K)
        gain = np.log(self.theta) + np.log(rated)[:, :, None] - unrated[:, None, :]
        return np.asarray(cells.given @ gain.reshape(-1, n_clusters) + unrated.sum(axis=0) + np.log(self.weight))

    def log_prior(self, smoothing: float) -> float:
        """Return the log prior density up to a constant: Dirichlet(1 + smoothing), and that of the selection."""
        return float(smoothing * (np.log(self.theta).sum() + np.log(self.weight).sum()) + self.selection.log_prior())

    def step(self, cells: LevelCells, responsibilities: Array, smoothing: float) -> "Mixture":
        """Return the M-step given P(cluster | user), (N, K)."""
        size = responsibilities.sum(axis=0)
        rated = (cells.by_cell @ responsibilities).reshape(self.theta.shape)
        given_unrated = self._unrated()
        given_unrated /= given_unrated.sum(axis=1, keepdims=True)
        # Rounding can leave a tiny negative number of users who did not rate.
        n_unrated = np.maximum(size - rated.sum(axis=1), 0.0)
        unrated = n_unrated[:, None, :] * given_unrated
        theta = rated + unrated + smoothing
        return Mixture(
            weight=(size + smoothing) / (size + smoothing).sum(),
            theta=theta / theta.sum(axis=1, keepdims=True),
            selection=self.selection.update(cells.counts, unrated.sum(axis=-1)),
        )

    def coordinates(self) -> Array:
        """Return the parameters as unconstrained numbers, one vector."""
        return np.concatenate([np.log(self.theta).ravel(), np.log(self.weight), self.selection.coordinates()])

    def at(self, coordinates: Array) -> "Mixture":
        """Return the mixture with these ``coordinates``."""
        theta, weight, selection = np.split(coordinates, [self.theta.size, self.theta.size + self.weight.size])
        return Mixture(softmax(weight), softmax(theta.reshape(self.theta.shape), axis=1), self.selection.at(selection))

    def _unrated(self) -> Array:
        """Return P(level, not rated | item, cluster), (P, R, K)."""
        return np.asarray(self.theta * (1.0 - self.selection.probabilities())[:, :, None])


@dataclass(frozen=True, eq=False)
class MixtureFit:
    """A mixture with the E-step at it."""

    mixture: Mixture
    responsibilities: Array  # (N, K), P(cluster | a user's ratings and what the user left unrated)
    objective: float
    """log p(x_obs, s) + log prior, in nats; higher is better."""


def e_step(cells: LevelCells, mixture: Mixture, smoothing: float) -> MixtureFit:
    """Return the posterior of the clusters and the objective at ``mixture``."""
    joint = mixture.log_joint(cells)
    evidence = logsumexp(joint, axis=1)
    objective = float(evidence.sum()) + mixture.log_prior(smoothing)
    return MixtureFit(mixture, np.exp(joint - evidence[:, None]), objective)


def em_path(cells: LevelCells, start: Mixture, smoothing: float) -> Iterator[MixtureFit]:
    """Yield ever better mixtures from ``start`` to a maximum: EM sped up by squared extrapolation.

    Nearly all cells are unrated, so plain EM needs thousands of steps. Two steps show where they lead; the jump there
    is taken if the objective does not fall, else the second step is (SQUAREM, scheme S3: Varadhan and Roland,
    Scandinavian Journal of Statistics 35, 2008). Ends when two steps and a jump gain less than ``_TOLERANCE``.

    Parameters
    ----------
    smoothing
        Added to every expected count of a level or a cluster: MAP under Dirichlet(1 + smoothing), above 0.
    """
    here = e_step(cells, start, smoothing)
    while True:
        yield here
        once = e_step(cells, here.mixture.step(cells, here.responsibilities, smoothing), smoothing)
        second = once.mixture.step(cells, once.responsibilities, smoothing)
        # A jump can reach where a probability rounds to 0; its objective is then no number, and the jump is refused.
        with np.errstate(divide="ignore", invalid="ignore"):
            there = e_step(cells, _extrapolate(here.mixture, once.mixture, second), smoothing)
        if not there.objective >= once.objective:
            there = e_step(cells, second, smoothing)
        settled = there.objective - here.objective < _TOLERANCE * cells.given.nnz
        here = there
        if settled:
            yield here
            return


def _extrapolate(first: Mixture, second: Mixture, third: Mixture) -> Mixture:
    start, middle, end = (mixture.coordinates() for mixture in (first, second, third))
    change = middle - start
    bend = end - middle - change
    length = max(float(np.linalg.norm(change) / max(np.linalg.norm(bend), np.finfo(np.float64).tiny)), 1.0)
    return third.at(start + 2.0 * length * change + length**2 * bend)


def random_start(cells: LevelCells, selection: Selection, n_clusters: int, rng: np.random.Generator) -> Mixture:
    """Return equally large clusters whose level distributions are draws around the marginal of the rated cells."""
    marginal = cells.counts.sum(axis=0) + 1.0
    marginal /= marginal.sum()
    drawn = rng.dirichlet(_START_CONCENTRATION * marginal, size=(cells.n_items, n_clusters)).transpose(0, 2, 1)
    # A draw can be 0 to rounding; half of the marginal keeps every level possible.
    theta = 0.5 * drawn + 0.5 * marginal[:, None]
    return Mixture(np.full(n_clusters, 1.0 / n_clusters), theta, selection)


class MixtureBaseline(SelectionBaseline):
    r"""What CPT-v and Logit-vd share: EM from one random start, and predictions from the fitted clusters.

    The prediction for a cell is what its user would answer if asked: :math:`p(x_{ij} = r) = \sum_k q_{ik}
    \theta_{jrk}` with q the posterior of the user's cluster. That posterior knows which items the user rated and which
    not, this one among them; beyond that the cell's own being rated or not does not enter. An unknown user has the
    clusters' weights, an unknown item the mean of all items' theta.

    That some people rate more than others is in neither model but through their ratings: where activity varies much,
    the estimated selection can be far from the truth, in either direction.

    Subclasses say how selection starts.

    Parameters
    ----------
    n_clusters
        K.
    smoothing
        Pseudo-count of every level of every item in every cluster, and of every cluster: the priors are
        Dirichlet(1 + smoothing).

    Raises
    ------
    ConfigError
        If a setting is not above 0; from ``fit``, if the scale of the log has no levels.
    """

    has_level_probabilities = True
    search_space: ClassVar[Mapping[str, tuple[Any, ...]]] = MappingProxyType(
        {"n_clusters": (2, 5, 10, 20), "smoothing": (0.3, 1.0)}
    )

    fitted: MixtureFit

    def __init__(self, *, n_clusters: int = 5, smoothing: float = 1.0) -> None:
        check_positive(n_clusters=n_clusters, smoothing=smoothing)
        self.n_clusters = n_clusters
        self.smoothing = smoothing

    @abstractmethod
    def _start_selection(self, cells: LevelCells) -> Selection:
        """Return a selection that does not depend on the level yet."""

    def _fit(self, split: Split, seed: int) -> None:
        log = split.mnar_train
        cells = LevelCells.of_log(log, type(self).__name__)
        rng = numpy_generator(seed, "multinomial mixture", "start")
        start = random_start(cells, self._start_selection(cells), self.n_clusters, rng)
        self.fitted = deque(em_path(cells, start, self.smoothing), maxlen=1).pop()
        self._levels = levels_of(log, type(self).__name__)
        mixture = self.fitted.mixture
        self._theta = np.concatenate([mixture.theta, mixture.theta.mean(axis=0, keepdims=True)])
        self._posterior = np.concatenate([self.fitted.responsibilities, mixture.weight[None]])

    def _predict(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Array:
        return np.asarray(self._level_probabilities(rows, columns) @ self._levels)

    def _level_probabilities(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Array:
        return np.asarray(np.einsum("nk,nrk->nr", self._posterior[rows], self._theta[columns]))

    def _expected_if_rated(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Array:
        joint = self._level_probabilities(rows, columns) * self.fitted.mixture.selection.probabilities()[columns]
        return np.asarray(joint @ self._levels / joint.sum(axis=1))
