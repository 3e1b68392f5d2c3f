"""Doubly robust learning with propensities that depend on the rating, identified by an auxiliary part."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import softplus

from baselines.doubly_robust import JointLearner, MfDrJl
from baselines.fitting import check_positive
from baselines.heads import MatrixFactorization, predict_pairs
from baselines.weighting import Propensities, RatedCells, ridge
from mnar_recsys.data import RatingLog, Split

_AUXILIARY_SD = 0.3
"""Prior standard deviation of the auxiliary factors and offsets, in log-odds: their product then varies by about .4."""


class DtDr(MfDrJl):
    r"""Doubly robust learning that learns its propensities from the mask, with what it predicts.

    .. math:: \operatorname{logit} \hat p_{ui} = c + g (\hat x_{ui} - \mu) + \alpha_u + \beta_i + v_u^T w_i

    A propensity that depends on the rating is identified where something else moves the choice and not the rating, and
    the two enter separably. The users' and items' embeddings are therefore split into a primary part, which predicts
    the rating and through it the choice, and an auxiliary part (:math:`\alpha, \beta, v, w`), which enters the choice
    alone; a penalty draws the two towards being orthogonal (Zhang et al., Uncovering the propensity identification
    problem in debiased recommendations, ICDE 2024). Minimised are the doubly robust loss of ``MfDrJl``, the negative
    log-likelihood of the mask over all cells, and the penalty; propensities enter the first as constants. No label is
    read. :math:`\mu` is the predictions' own mean; c starts at the log-odds of the share rated, and g at 0.

    Departures: the paper predicts binary labels; it has neither offsets nor c, and g = 1, which fits neither a rating
    scale nor a sparse mask. The auxiliary factors and offsets have a normal prior of standard deviation .3, in
    log-odds for the offsets, which counts beside the mask's log-likelihood and is weighted with it.

    Parameters
    ----------
    clip_quantile
        In a step and in validation, propensities below this quantile of those at hand are raised to it.
    size, reg, learning_rate, batch_size
        See ``PropensityWeighted``. The auxiliary part has the same size.
    likelihood
        Weight of the mask's log-likelihood, per rating. The paper's alpha is per cell: this times N P / n.
    disentangling
        Weight of the penalty: for users, for items and for each of the batch and the drawn cells, the mean square of
        the products of a primary and an auxiliary dimension, each product averaged over the cells; see
        ``entanglement``. The paper's, whose weight is beta, grows with the squared size of the batch.

    Raises
    ------
    ConfigError
        If a setting is out of range.
    """

    search_space: ClassVar[Mapping[str, tuple[Any, ...]]] = MappingProxyType(
        {"reg": (3.0, 10.0), "likelihood": (1.0, 2.0, 4.0), "disentangling": (10.0, 1000.0)}
    )
    patience = 10  # the slope g is slow to settle

    def __init__(
        self,
        *,
        clip_quantile: float = 0.02,
        size: int = 16,
        reg: float = 10.0,
        likelihood: float = 2.0,
        disentangling: float = 100.0,
        learning_rate: float = 0.02,
        batch_size: int = 2048,
    ) -> None:
        super().__init__(
            propensity="uniform",  # until the first step
            clip_quantile=clip_quantile,
            size=size,
            reg=reg,
            learning_rate=learning_rate,
            batch_size=batch_size,
        )
        check_positive(likelihood=likelihood, disentangling=disentangling)
        self.likelihood = likelihood
        self.disentangling = disentangling

    def _make_learner(self, split: Split, seed: int) -> "DisentangledLearner":
        return DisentangledLearner(self, split, self._fit_propensities(split, seed), seed)


class ChoiceLogit(nn.Module):
    """Log-odds that a cell is rated: the predicted rating's part plus the auxiliary part."""

    def __init__(self, rating: MatrixFactorization, auxiliary: MatrixFactorization) -> None:
        super().__init__()
        self.rating, self.auxiliary = rating, auxiliary
        self.slope = nn.Parameter(torch.tensor(0.0))
        """g, in log-odds a rating point."""

    def forward(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Return the log-odds of pairs of indices: (n,), (n,) -> (n,)."""
        excess = self.rating(rows, columns) - self.rating.mean
        value: Tensor = self.auxiliary(rows, columns) + self.slope * excess
        return value

    def entanglement(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Return the sum over users and items of ``entanglement`` of the two parts at the pairs' entries, a scalar."""
        users = entanglement(_user_part(self.rating, rows), _user_part(self.auxiliary, rows))
        return users + entanglement(_item_part(self.rating, columns), _item_part(self.auxiliary, columns))


@dataclass(frozen=True, eq=False)
class LearnedPropensities:
    """Propensities of a ``ChoiceLogit``, as it is at the moment of asking."""

    logit: ChoiceLogit
    clip_quantile: float

    def of_log(self, log: RatingLog) -> NDArray[np.float64]:
        """Return the propensity of each rating of a log, (n,), those below the quantile raised to it."""
        found = 1.0 / (1.0 + np.exp(-predict_pairs(self.logit, log.rows, log.items)))
        return np.maximum(found, np.quantile(found, self.clip_quantile))


class DisentangledLearner(JointLearner):
    """The learner of ``MfDrJl`` with propensities that are learned beside the predictions."""

    method: DtDr

    def __init__(self, method: DtDr, split: Split, start: Propensities, seed: int) -> None:
        super().__init__(method, split, start, seed)
        share = min(len(self.rated) / self.n_cells, 1.0 - 0.5 / self.n_cells)  # where all is rated, as good as
        odds = float(np.log(share) - np.log1p(-share))
        auxiliary = self.start(lambda _: MatrixFactorization(self.shape, method.size, mean=odds), "disentangled")
        self.logit = ChoiceLogit(self.head, auxiliary)
        self.propensities = LearnedPropensities(self.logit, method.clip_quantile)
        # Per rating, a normal prior of standard deviation s is a penalty of likelihood / (2 s^2 n) on each square.
        prior = method.likelihood / (2.0 * _AUXILIARY_SD**2)
        self.prediction_optimizer = torch.optim.Adam(
            [
                *ridge(self.head.parameters(), method.reg, len(self.rated)),
                *ridge([*auxiliary.parameters(), self.logit.slope], prior, len(self.rated)),
            ],
            lr=method.learning_rate,
        )

    def take(self, index: NDArray[np.int64]) -> RatedCells:
        """Return the rated cells at ``index``, with the propensities of the moment as constants."""
        rated = super().take(index)
        with torch.no_grad():
            found = torch.sigmoid(self.logit(rated.rows, rated.columns))
        return replace(rated, propensity=found.clamp_min(float(torch.quantile(found, self.method.clip_quantile))))

    def prediction_loss(self, rated: RatedCells, drawn: tuple[Tensor, Tensor]) -> Tensor:
        """Return the doubly robust loss minus the weighted log-likelihood of the mask, plus the penalty."""
        chosen = mask_log_likelihood(
            self.logit(rated.rows, rated.columns), self.logit(*drawn), self.n_cells / len(self.rated)
        )
        penalty = self.logit.entanglement(rated.rows, rated.columns) + self.logit.entanglement(*drawn)
        risk = super().prediction_loss(rated, drawn)
        return risk - self.method.likelihood * chosen + self.method.disentangling * penalty


def mask_log_likelihood(rated: Tensor, drawn: Tensor, cells_per_rating: float) -> Tensor:
    """Return an unbiased estimate of the mask's log-likelihood over all cells, per rating; higher is better.

    With log-odds l it is the mean of l over rated cells minus (N P / n) * the mean of log(1 + exp(l)) over all cells.

    Parameters
    ----------
    rated, drawn
        Log-odds of rated cells, (b,), and of cells drawn uniformly from all, (m,).
    cells_per_rating
        N * P / n.
    """
    return rated.mean() - cells_per_rating * softplus(drawn).mean()


def entanglement(primary: Tensor, auxiliary: Tensor) -> Tensor:
    """Return the mean square of all products of a primary and an auxiliary dimension, each averaged over the batch.

    It is 0 where each primary column is orthogonal to each auxiliary one.

    Parameters
    ----------
    primary, auxiliary
        Embeddings of the same users or items, (b, K) and (b, L).
    """
    return (primary.T @ auxiliary / len(primary)).square().mean()


def _user_part(head: MatrixFactorization, rows: Tensor) -> Tensor:
    offsets = [] if head.user_offset is None else [head.user_offset(rows)]
    return torch.cat([head.user(rows), *offsets], dim=1)


def _item_part(head: MatrixFactorization, columns: Tensor) -> Tensor:
    offsets = [] if head.item_offset is None else [head.item_offset(columns)]
    return torch.cat([head.item(columns), *offsets], dim=1)
