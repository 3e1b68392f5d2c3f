"""Joint learning of predictions and imputed errors: the loop that all doubly robust methods share."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from baselines.fitting import batches
from baselines.heads import MatrixFactorization
from baselines.nfm import NeuralFactorizationMachine
from baselines.weighting import (
    AUTO,
    Propensities,
    PropensityLearner,
    PropensityWeighted,
    RatedCells,
    descend,
    ips_loss,
    ridge,
    torch_stream,
)
from mnar_recsys.data import Split
from mnar_recsys.propensity.base import PropensityModel
from mnar_recsys.rng import numpy_generator

DRAWN_PER_RATED = 2
_TINY = 1e-12


@dataclass(frozen=True, eq=False)
class Errors:
    """Squared errors of the predictions, in squared rating points, where a method estimates their mean.

    Attributes
    ----------
    true, imputed : Tensor
        e and e-hat of rated cells, (b,).
    propensity : Tensor
        P(rated) of these, (b,).
    drawn : Tensor
        e-hat of cells drawn uniformly from all N * P, rated or not, (m,).
    n_cells : float
        How many cells, rated or not, the rated ones stand for; see ``weighting.ips_loss``.
    """

    true: Tensor
    imputed: Tensor
    propensity: Tensor
    drawn: Tensor
    n_cells: float


class MfDrJl(PropensityWeighted):
    r"""Doubly robust joint learning with matrix factorizations.

    The prediction model minimises the doubly robust estimate of the mean squared error of all cells,

    .. math::

        \frac{1}{NP} \sum_{u,i} \hat e_{ui} + \frac{1}{NP} \sum_{\text{rated}} (e_{ui} - \hat e_{ui}) / \hat p_{ui},
        \quad e_{ui} = (\hat x_{ui} - x_{ui})^2, \quad \hat e_{ui} = (\hat x_{ui} - \tilde x_{ui})^2,

    unbiased if either the propensities or the imputed errors are right; in turn the imputation model
    :math:`\tilde x_{ui}` learns to impute errors (Wang, Zhang, Sun and Qi, Doubly robust joint learning for
    recommendation on data missing not at random, ICML 2019). A step estimates the first mean without bias
    from cells drawn uniformly, with replacement, from all of them, and the second from a batch of the ratings.

    The imputation loss is the inverse-propensity-weighted squared difference of the signed errors
    :math:`\hat x - x` and :math:`\hat x - \tilde x`, hence of x and :math:`\tilde x`. Squared errors do not tell
    :math:`\tilde x` from its mirror image :math:`2 \hat x - \tilde x`, which on a rating scale is a different rating.

    Parameters
    ----------
    propensity, clip_quantile, size, reg, learning_rate, batch_size
        See ``PropensityWeighted``, also for the errors raised. Both models have this size and penalty; a step draws two
        cells per rating.
    """

    search_space: ClassVar[Mapping[str, tuple[Any, ...]]] = MappingProxyType(
        {"reg": (3.0, 6.0, 10.0, 20.0), "size": (8, 32)}
    )

    def __init__(
        self,
        *,
        propensity: str | PropensityModel = AUTO,
        clip_quantile: float = 0.02,
        size: int = 16,
        reg: float = 6.0,
        learning_rate: float = 0.02,
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

    def make_head(self, shape: tuple[int, int], mean: float) -> MatrixFactorization:
        """Return an untrained prediction or imputation model."""
        return MatrixFactorization(shape, self.size, mean=mean)

    def imputation_weights(self, propensity: Tensor) -> Tensor:
        """Return the weight of each rated cell in the imputation loss, up to a constant, (b,)."""
        return 1.0 / propensity

    def estimate(self, errors: Errors) -> Tensor:
        """Return the estimated mean squared error of all cells, a scalar; lower is better."""
        return errors.drawn.mean() + ips_loss(errors.true - errors.imputed, errors.propensity, errors.n_cells)

    def _make_learner(self, split: Split, seed: int) -> "JointLearner":
        return JointLearner(self, split, self._fit_propensities(split, seed), seed)


class NfmDrJl(MfDrJl):
    """``MfDrJl`` with neural factorization machines for both models.

    Of He and Chua, Neural factorization machines for sparse predictive analytics, SIGIR 2017; see
    ``NeuralFactorizationMachine``. ``size`` is the width of the embeddings and of the hidden layer, dropout is .2, and
    the imputation model imputes without dropout. Settings and errors are those of ``MfDrJl``.
    """

    def make_head(self, shape: tuple[int, int], mean: float) -> MatrixFactorization:
        """Return an untrained prediction or imputation model."""
        return NeuralFactorizationMachine(shape, self.size, mean=mean)


class JointLearner(PropensityLearner):
    """A prediction model and an imputation model, updated in turn batch after batch."""

    def __init__(self, method: MfDrJl, split: Split, propensities: Propensities, seed: int) -> None:
        super().__init__(split, propensities, seed)
        self.method = method
        self.head, self.imputation = (
            self.start(lambda mean: method.make_head(self.shape, mean), "doubly-robust", part)
            for part in ("prediction", "imputation")
        )
        self.prediction_optimizer = self.optimizer(self.head.parameters())
        self.imputation_optimizer = self.optimizer(self.imputation.parameters())

    def optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return an optimizer with the method's penalty and learning rate."""
        return torch.optim.Adam(ridge(parameters, self.method.reg, len(self.rated)), lr=self.method.learning_rate)

    def run_epoch(self, epoch: int) -> float:
        """Make one pass over the ratings; return the mean of the prediction loss."""
        self.head.train()
        total = 0.0
        order = batches(len(self.rated), self.method.batch_size, self.seed, "doubly-robust", epoch)
        with torch_stream(self.seed, "doubly-robust", "dropout", epoch):
            for step, index in enumerate(order):
                rated = self.take(index)
                drawn = self._draw(DRAWN_PER_RATED * len(rated), epoch, step)
                descend(self.imputation_optimizer, self.imputation_loss(rated))
                total += descend(self.prediction_optimizer, self.prediction_loss(rated, drawn)) * len(rated)
        return total / len(self.rated)

    def take(self, index: NDArray[np.int64]) -> RatedCells:
        """Return the rated cells at ``index``, with the propensities of the moment."""
        return self.rated.take(index)

    def imputation_loss(self, rated: RatedCells) -> Tensor:
        """Return the weighted mean squared difference of true and imputed signed errors."""
        self.imputation.train()
        weights = self.method.imputation_weights(rated.propensity)
        imputed = self.imputation(rated.rows, rated.columns)
        # All weights may be 0: those of Mrdr are where everything is rated, and nothing needs imputing.
        loss: Tensor = (weights * (imputed - rated.ratings).square()).sum() / weights.sum().clamp_min(_TINY)
        return loss

    def prediction_loss(self, rated: RatedCells, drawn: tuple[Tensor, Tensor]) -> Tensor:
        """Return the method's estimate of the mean squared error of all cells."""
        self.imputation.eval()
        with torch.no_grad():
            pseudo, pseudo_drawn = self.imputation(rated.rows, rated.columns), self.imputation(*drawn)
        predicted = self.head(rated.rows, rated.columns)
        return self.method.estimate(
            Errors(
                true=(predicted - rated.ratings).square(),
                imputed=(predicted - pseudo).square(),
                propensity=rated.propensity,
                drawn=(self.head(*drawn) - pseudo_drawn).square(),
                n_cells=self.n_cells * len(rated) / len(self.rated),
            )
        )

    def _draw(self, count: int, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        rng = numpy_generator(self.seed, "doubly-robust", "drawn", epoch, step)
        users, items = self.shape
        return torch.from_numpy(rng.integers(users, size=count)), torch.from_numpy(rng.integers(items, size=count))
