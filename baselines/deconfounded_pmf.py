"""The deconfounded recommender: what people were exposed to stands in for what confounds their ratings."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from baselines.alternating_ridge import Shrinkage
from baselines.fitting import check_positive
from baselines.pmf import Pmf
from mnar_recsys.data import Split
from mnar_recsys.propensity.poisson import PoissonFactorization


class DeconfoundedPmf(Pmf):
    r"""PMF with a substitute confounder: :math:`x_{ui} = \mu + \theta_u^T \beta_i + \gamma_u \hat a_{ui} + \epsilon`.

    A Poisson factorisation of who rated what gives the expected exposure :math:`\hat a_{ui} = E[\pi_u]^T E[\lambda_i]`,
    which then is a regressor with a normal slope for each user (Wang, Liang, Charlin and Blei, Causal inference for
    recommender systems, RecSys 2020, eqs. 3-4 and algorithm 1). Predictions keep the confounder's term. The outcome
    model is ``Pmf``, fitted to rated cells only. :math:`\hat a` is divided by its root mean square over these, so that
    one prior of the slopes suits dense and sparse logs; it is 0 for an unknown user or item.

    Parameters
    ----------
    size
        Number of factors of the outcome.
    exposure_size
        Number of factors of the exposure. With a single one, exposure is no more than activity times popularity.
    shrinkage
        See ``Pmf``.
    slope_shrinkage
        Penalty of half the squared slopes: as if the slope 0 had been seen in so many ratings of average exposure.

    Raises
    ------
    ConfigError
        If a setting is not above 0.
    """

    search_space: ClassVar[Mapping[str, tuple[Any, ...]]] = MappingProxyType(
        {"size": (5, 10, 15), "exposure_size": (2, 5, 10), "slope_shrinkage": (3.0, 10.0, 30.0)}
    )

    def __init__(
        self,
        *,
        size: int = 10,
        exposure_size: int = 5,
        shrinkage: float | None = None,
        slope_shrinkage: float = 10.0,
    ) -> None:
        super().__init__(size=size, shrinkage=shrinkage)
        check_positive(exposure_size=exposure_size, slope_shrinkage=slope_shrinkage)
        self.exposure_size = exposure_size
        self.slope_shrinkage = slope_shrinkage

    def _penalties(self, shrinkage: float) -> Shrinkage:
        return Shrinkage(shrinkage, slopes=self.slope_shrinkage)

    def _fit_exposure(self, split: Split, seed: int) -> None:
        self.exposure = PoissonFactorization(factors=self.exposure_size).fit(split, seed=seed)
        self._shape = (split.mnar_train.n_users, split.mnar_train.n_items)
        # P(at least one exposure) = 1 - exp(-rate).
        self._unit = float(np.sqrt(np.square(np.log1p(-self.exposure.of_log(split.mnar_train))).mean()))

    def _covariate(self, rows: NDArray[np.integer], columns: NDArray[np.integer]) -> NDArray[np.float64]:
        """Return the expected exposure in its unit, (n,)."""
        known = (rows < self._shape[0]) & (columns < self._shape[1])
        exposure = np.zeros(len(rows))
        exposure[known] = -np.log1p(-self.exposure.propensity(rows[known], columns[known])) / self._unit
        return exposure
