"""Matrix factorization fitted to ratings weighted by inverse propensities."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from baselines.fitting import batches
from baselines.heads import MatrixFactorization
from baselines.weighting import (
    Propensities,
    PropensityLearner,
    PropensityWeighted,
    descend,
    ips_loss,
    ridge,
    snips_loss,
)
from mnar_recsys.data import Split
from mnar_recsys.propensity.base import PropensityModel


class MfIps(PropensityWeighted):
    r"""Inverse-propensity-weighted matrix factorization.

    Minimises :math:`\frac{1}{NP} \sum_{\text{rated}} (\hat x_{ui} - x_{ui})^2 / \hat p_{ui}` plus :math:`\lambda / n`
    times the squared norm of factors and offsets, for n ratings (Schnabel, Swaminathan, Singh, Chandak and Joachims,
    Recommendations as treatments: debiasing learning and evaluation, ICML 2016, eq. 14), with
    :math:`\hat x_{ui} = \mu + a_u + b_i + p_u^T q_i`.

    Other than in the paper, which minimises by L-BFGS, minibatch Adam does, its number of passes chosen on held-out
    self-selected ratings; offsets are penalised too, only :math:`\mu` is not; and small :math:`\hat p` are raised
    (``clip_quantile``).

    Parameters
    ----------
    propensity, clip_quantile, size, reg, learning_rate, batch_size
        See ``PropensityWeighted``, also for the errors raised; lambda is ``reg``.
    """

    search_space: ClassVar[Mapping[str, tuple[Any, ...]]] = MappingProxyType(
        {"reg": (3.0, 6.0, 10.0, 20.0), "size": (8, 32)}
    )

    def loss(self, errors: Tensor, propensity: Tensor, n_cells: float) -> Tensor:
        """Return the estimated mean error of all cells, a scalar, from rated ones; see ``weighting.ips_loss``."""
        return ips_loss(errors, propensity, n_cells)

    def parts(self, head: MatrixFactorization) -> list[list[nn.Parameter]]:
        """Return the parameters in groups that are updated in turn, a pass each; here all at once."""
        return [list(head.parameters())]

    def _make_learner(self, split: Split, seed: int) -> "WeightedFactors":
        return WeightedFactors(self, split, self._fit_propensities(split, seed), seed)


class MfSnips(MfIps):
    """``MfIps`` with the weights of each step divided by their sum.

    A step then does not grow where its batch drew large weights (Swaminathan and Joachims, The self-normalized
    estimator for counterfactual learning, NIPS 2015, where it is the sum of all weights that divides). The penalty,
    settings and errors are those of ``MfIps``.
    """

    def loss(self, errors: Tensor, propensity: Tensor, n_cells: float) -> Tensor:  # noqa: ARG002 - the weights normalise
        """Return the self-normalised estimate, a scalar; see ``weighting.snips_loss``."""
        return snips_loss(errors, propensity)


class MfIpsMul(MfSnips):
    """``MfSnips`` with propensities by item and rating, from MCAR labels, and alternating gradient descent.

    One pass over the ratings updates the mean and what belongs to the users, the items' factors and offsets held; the
    next updates the items', the users' held, so that a large weight never moves both sides of a product in one step
    (Huang, Oosterhuis, Mansoury, van Hoof and de Rijke, Going beyond popularity and positivity bias: correcting for
    multifactorial bias in recommender systems, SIGIR 2024). An epoch is both passes. The propensities, with their
    formula, are ``MultifactorialPropensity``.

    Departures: weights are divided by their sum in each step, where the authors' code divides them by their mean over
    all training ratings; the error on held-out ratings, which ends a fit, is an average over ratings, there over items;
    small propensities are raised to a quantile, as in all methods here, where the authors set a lower and an upper
    bound; and the paper's rescaling of each item's weights is left out.

    Parameters
    ----------
    propensity
        As in ``PropensityWeighted``, but for the default, ``"multifactorial"``: it needs labels, and a scale with
        levels.
    clip_quantile, size, reg, learning_rate, batch_size
        See ``PropensityWeighted``.

    Raises
    ------
    DataError
        From ``fit``, if the split lacks the labels, or its scale the levels, that the propensities need.
    ConfigError
        If the name of the propensities is unknown or a setting is out of range.
    """

    def __init__(
        self,
        *,
        propensity: str | PropensityModel = "multifactorial",
        clip_quantile: float = 0.02,
        size: int = 16,
        reg: float = 6.0,
        learning_rate: float = 0.01,
        batch_size: int = 2048,
    ) -> None:
        super().__init__(
            propensity=propensity,
            clip_quantile=clip_quantile,
            size=size,
            reg=reg,
            learning_rate=learning_rate,
            batch_size=batch_size,
        )

    def parts(self, head: MatrixFactorization) -> list[list[nn.Parameter]]:
        """Return the mean with the users' parameters, and the items'."""
        named = list(head.named_parameters())
        of_items = [parameter for name, parameter in named if name.startswith("item")]
        return [[parameter for name, parameter in named if not name.startswith("item")], of_items]


class WeightedFactors(PropensityLearner):
    """A matrix factorization trained by a weighted loss, group after group of its parameters."""

    def __init__(self, method: MfIps, split: Split, propensities: Propensities, seed: int) -> None:
        super().__init__(split, propensities, seed)
        self.method = method
        self.head = self.start(lambda mean: MatrixFactorization(self.shape, method.size, mean=mean), "mf-ips")
        self.optimizers = [
            torch.optim.Adam(ridge(part, method.reg, len(self.rated)), lr=method.learning_rate)
            for part in method.parts(self.head)
        ]

    def run_epoch(self, epoch: int) -> float:
        """Pass over the ratings once for each group of parameters; return the mean loss."""
        self.head.train()
        return float(np.mean([self._pass(part, epoch) for part in range(len(self.optimizers))]))

    def _pass(self, part: int, epoch: int) -> float:
        total = 0.0
        for index in batches(len(self.rated), self.method.batch_size, self.seed, "mf-ips", epoch, part):
            cells = self.rated.take(index)
            errors = (self.head(cells.rows, cells.columns) - cells.ratings).square()
            loss = self.method.loss(errors, cells.propensity, self.n_cells * len(cells) / len(self.rated))
            total += descend(self.optimizers[part], loss) * len(cells)
        return total / len(self.rated)
