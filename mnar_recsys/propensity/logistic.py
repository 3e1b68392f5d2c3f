"""Propensities from a logistic regression on features of users and items."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import expit

from mnar_recsys.data import FeatureTable, Split
from mnar_recsys.errors import ConfigError
from mnar_recsys.propensity.additive import AdditiveLogOdds, fit_additive
from mnar_recsys.propensity.base import PropensityModel
from mnar_recsys.propensity.case_control import LogOdds, draw_case_control, fit_log_odds
from mnar_recsys.propensity.checks import at_least, positive
from mnar_recsys.propensity.mask import in_blocks
from mnar_recsys.rng import numpy_generator

_MAX_PRODUCTS = 5000
_PRIOR_SD = 1.0  # of the additive log-odds


class LogisticFeatures(PropensityModel):
    r"""The log-odds of a cell are linear in its features.

    .. math:: \mathrm{logit} P(s_{ui} = 1) = c + w \cdot (x_u, y_i, x_u \otimes y_i) + v \, (a_u + b_i)

    with features x of the user, y of the item, all their products (of 0/1 features: matches), and offsets of user and
    item (Schnabel et al., Recommendations as treatments, ICML 2016, sections 5 and 6). The paper has a free offset for
    every user and item in the regression; here they come from ``UserItemPopularity``, which has them exactly at any
    size, with one weight v for all. All ratings but only some unrated cells are in the regression, whose intercept is
    corrected for that: cost follows the number of ratings. Features that are not 0/1 are put on mean 0 and variance 1.

    Parameters
    ----------
    ridge
        Penalty on half the squared weights, above 0.
    products
        Whether the products are in; they need features of users and of items.
    offsets
        Whether the offsets are in.
    unrated_per_rating
        Unrated cells drawn for each rating, above 0.
    max_cells
        Cells in the regression at most, ratings and unrated together; beyond it ratings are subsampled, too.

    Raises
    ------
    ConfigError
        If a setting is out of range; in ``fit``, if there are more than 5,000 products.
    """

    needs_features = True

    weights: LogOdds
    """Weights of the features of the user, of the item, their products (user by user) and, last, the offsets."""

    def __init__(
        self,
        *,
        ridge: float = 1.0,
        products: bool = True,
        offsets: bool = True,
        unrated_per_rating: float = 5.0,
        max_cells: int = 500_000,
    ) -> None:
        self.ridge = positive("ridge", ridge)
        self.products = products
        self.offsets = offsets
        self.unrated_per_rating = positive("unrated_per_rating", unrated_per_rating)
        self.max_cells = at_least("max_cells", max_cells, 100)
        self._user, self._item = np.empty((0, 0)), np.empty((0, 0))
        self._additive: AdditiveLogOdds | None = None

    def _fit(self, split: Split, seed: int) -> None:
        log = split.mnar_train
        self._user = _standardised(log.user_features, log.n_users)
        self._item = _standardised(log.item_features, log.n_items)
        n_products = self._user.shape[1] * self._item.shape[1]
        if self.products and n_products > _MAX_PRODUCTS:
            raise ConfigError(
                f"products of features must be at most {_MAX_PRODUCTS:,}; found {n_products:,}. "
                "Use products=False, or fewer features"
            )
        self._additive = fit_additive(log, prior_sd=_PRIOR_SD) if self.offsets else None
        sample = draw_case_control(
            log,
            unrated_per_rating=self.unrated_per_rating,
            max_cells=self.max_cells,
            rng=numpy_generator(seed, "logistic"),
        )
        self.weights = fit_log_odds(sample, self._design, ridge=self.ridge, solver="lbfgs")

    def _propensity(self, rows: NDArray[np.integer], columns: NDArray[np.integer]) -> NDArray[np.float64]:
        values = np.empty(len(rows))
        for block in in_blocks(len(rows)):
            design = self._design(rows[block], columns[block])
            values[block] = expit(self.weights.intercept + design @ self.weights.weights)
        return values

    def _design(self, rows: NDArray[np.integer], columns: NDArray[np.integer]) -> Any:
        """Return the covariates of cells, (n, F), sparse."""
        user = sparse.csr_matrix(self._user)[rows]
        item = sparse.csr_matrix(self._item)[columns]
        parts = [user, item]
        if self.products:
            parts += [item.multiply(user[:, [feature]]) for feature in range(user.shape[1])]
        if self._additive is not None:
            offsets = self._additive.user[rows] + self._additive.item[columns]
            parts.append(sparse.csr_matrix(offsets[:, None]))
        return sparse.hstack(parts, format="csr")


def _standardised(table: FeatureTable | None, count: int) -> NDArray[np.float64]:
    """Return features, (count, F): 0/1 as they are, which keeps them sparse, others with mean 0 and variance 1."""
    if table is None:
        return np.empty((count, 0))
    values = table.values.astype(np.float64)
    is_binary = ((values == 0.0) | (values == 1.0)).all(axis=0)
    spread = values.std(axis=0)
    scaled = (values - values.mean(axis=0)) / np.where(spread > 0.0, spread, 1.0)
    return np.where(is_binary, values, scaled)
