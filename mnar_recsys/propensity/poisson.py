"""Propensities from a hierarchical Poisson factorisation of the mask."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import digamma, gammaln

from mnar_recsys.data import RatingLog, Split
from mnar_recsys.errors import DivergedError
from mnar_recsys.propensity.base import PropensityModel
from mnar_recsys.propensity.checks import at_least, positive
from mnar_recsys.propensity.mask import in_blocks, mask_matrix, share_rated
from mnar_recsys.rng import numpy_generator

FACTORS = (1, 2, 5, 10)
"""Candidates for the number of factors, tried in this order until the bound falls."""
_MAX_SWEEPS = 5000
_START_SPREAD = 0.3  # relative; equal factors would stay equal


@dataclass(frozen=True)
class Priors:
    """Of users and items alike."""

    shape: float
    """A factor is Gamma(shape, xi), xi being the rate of its owner, the user or item."""
    rate_shape: float
    """xi is Gamma(rate_shape, rate_shape), of mean 1."""


@dataclass(frozen=True, eq=False)
class Side:
    """The variational posterior, all Gammas, of the factors of users or of items and of their owners' rates."""

    shape: NDArray[np.float64]  # (V, K)
    rate: NDArray[np.float64]  # (V, K)
    owner_rate: NDArray[np.float64]  # (V,), rate of the posterior of xi

    @property
    def mean(self) -> NDArray[np.float64]:
        """E[factor], (V, K)."""
        return np.asarray(self.shape / self.rate)

    @property
    def geometric(self) -> NDArray[np.float64]:
        """The geometric mean exp E[log factor], (V, K)."""
        return np.asarray(np.exp(digamma(self.shape)) / self.rate)


class PoissonFactorization(PropensityModel):
    r"""Non-negative factors of who rates and what is rated.

    .. math:: s_{ui} \sim \mathrm{Poisson}(\theta_u \cdot \beta_i), \quad
              P(s_{ui} \ge 1) = 1 - \exp(-E[\theta_u] \cdot E[\beta_i])

    with Gamma priors on the factors, whose rates, the inverse activity of a user and popularity of an item, have Gamma
    priors of their own (Gopalan, Hofman and Blei, Scalable recommendation with hierarchical Poisson factorization, UAI
    2015; as an exposure model: Wang, Liang, Charlin and Blei, The deconfounded recommender, 2018). Coordinate ascent on
    the evidence lower bound, to a tolerance; a sweep costs O(n K + (N + P) K), as the unrated cells enter by a product
    of sums. The posterior means take the place of the expectation over the factors.

    Parameters
    ----------
    factors
        K, at least 1. Where it is not given, the values of ``FACTORS`` are tried in turn while the bound rises.
    shape
        Shape of the prior of a factor, above 0: below 1, factors are sparse. The authors' 0.3.
    rate_shape
        Shape of the prior of the rates, above 0; their mean is 1. The authors' 0.3.
    tolerance
        Relative rise of the bound in a sweep below which the fit has converged, above 0.

    Raises
    ------
    ConfigError
        If a setting is out of range.
    """

    users: Side
    items: Side
    bounds: list[float]
    """The bound after each sweep of the fit that was kept, in nats: higher is better, and it never falls."""

    def __init__(
        self, *, factors: int | None = None, shape: float = 0.3, rate_shape: float = 0.3, tolerance: float = 1e-6
    ) -> None:
        self.factors = None if factors is None else at_least("factors", factors, 1)
        self.priors = Priors(positive("shape", shape), positive("rate_shape", rate_shape))
        self.tolerance = positive("tolerance", tolerance)

    def _fit(self, split: Split, seed: int) -> None:
        best = None
        for factors in FACTORS if self.factors is None else (self.factors,):
            users, items, bounds = _ascend(split.mnar_train, factors, self.priors, self.tolerance, seed)
            if best is not None and bounds[-1] <= best[-1]:
                break
            self.users, self.items, self.bounds = users, items, bounds
            best = bounds

    def _propensity(self, rows: NDArray[np.integer], columns: NDArray[np.integer]) -> NDArray[np.float64]:
        return np.asarray(-np.expm1(-_products(self.users.mean, self.items.mean, rows, columns)))


def _ascend(
    log: RatingLog, factors: int, priors: Priors, tolerance: float, seed: int
) -> tuple[Side, Side, list[float]]:
    """Return the posterior of users and items, and the bound after each sweep."""
    rng = numpy_generator(seed, "poisson", factors)
    typical = np.sqrt(share_rated(log) / factors)
    users, items = (_start(count, factors, typical, priors, rng) for count in (log.n_users, log.n_items))
    mask: Any = mask_matrix(log).astype(np.float64)
    ratio = 1.0 / _products(users.geometric, items.geometric, log.rows, log.items)
    bounds: list[float] = []
    for _ in range(_MAX_SWEEPS):
        users = _updated(users, items, _with_data(mask, ratio), priors)
        ratio = 1.0 / _products(users.geometric, items.geometric, log.rows, log.items)
        items = _updated(items, users, _with_data(mask, ratio).T, priors)
        ratio = 1.0 / _products(users.geometric, items.geometric, log.rows, log.items)
        explained = -float(np.log(ratio).sum()) - float(users.mean.sum(axis=0) @ items.mean.sum(axis=0))
        bounds.append(explained + _prior_term(users, priors) + _prior_term(items, priors))
        if len(bounds) > 1 and bounds[-1] - bounds[-2] <= tolerance * abs(bounds[-1]):
            return users, items, bounds
    raise DivergedError(f"the Poisson factors of the mask did not settle in {_MAX_SWEEPS} sweeps; raise tolerance")


def _start(count: int, factors: int, typical: float, priors: Priors, rng: np.random.Generator) -> Side:
    shape = 1.0 + _START_SPREAD * rng.random((count, factors))
    return Side(shape, np.full((count, factors), shape.mean() / typical), np.full(count, _owner_shape(priors, factors)))


def _owner_shape(priors: Priors, factors: int) -> float:
    return priors.rate_shape + factors * priors.shape


def _updated(side: Side, other: Side, ratio: Any, priors: Priors) -> Side:
    """Return the optimal posterior of one side's factors, then of their owners' rates, given the other side.

    Parameters
    ----------
    ratio
        One over exp E[log theta] . exp E[log beta] of each rated cell, sparse, this side by the other.
    """
    shape = priors.shape + side.geometric * (ratio @ other.geometric)
    owner_shape = _owner_shape(priors, shape.shape[1])
    rate = (owner_shape / side.owner_rate)[:, None] + other.mean.sum(axis=0)
    return Side(shape, rate, priors.rate_shape + (shape / rate).sum(axis=1))


def _prior_term(side: Side, priors: Priors) -> float:
    """Return E[log p - log q] of one side's factors and rates, in nats."""
    a, own = priors.shape, priors.rate_shape
    owner_shape = _owner_shape(priors, side.shape.shape[1])
    owner, log_owner = owner_shape / side.owner_rate, digamma(owner_shape) - np.log(side.owner_rate)  # (V,)
    log_factor = digamma(side.shape) - np.log(side.rate)
    factors = a * log_owner[:, None] - gammaln(a) + (a - 1.0) * log_factor - owner[:, None] * side.mean
    owners = own * np.log(own) - gammaln(own) + (own - 1.0) * log_owner - own * owner
    entropy = _entropy(side.shape, side.rate).sum() + _entropy(np.full(len(owner), owner_shape), side.owner_rate).sum()
    return float(factors.sum() + owners.sum() + entropy)


def _entropy(shape: NDArray[np.float64], rate: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(shape - np.log(rate) + gammaln(shape) + (1.0 - shape) * digamma(shape))


def _with_data(mask: Any, data: NDArray[np.float64]) -> Any:
    return sparse.csr_matrix((data, mask.indices, mask.indptr), shape=mask.shape)


def _products(
    user: NDArray[np.float64], item: NDArray[np.float64], rows: NDArray[np.integer], columns: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Return the inner products of the factors of cells, (n,)."""
    products = np.empty(len(rows))
    for block in in_blocks(len(rows)):
        products[block] = np.einsum("nk,nk->n", user[rows[block]], item[columns[block]])
    return products
