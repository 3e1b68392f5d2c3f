"""Debiasing learnt from random ratings: weights and imputed ratings by meta-learning."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from baselines.base import require_labels
from baselines.fitting import batches, check_positive
from baselines.heads import MatrixFactorization
from baselines.weighting import Propensities, PropensityLearner, PropensityWeighted, RatedCells, descend
from mnar_recsys.data import RatingLog, Split
from mnar_recsys.rng import numpy_generator

_BINS = 5
_SOFTNESS = 5.0
_SPREAD = 5.0
_INNER_LEVEL = 0.9


class AutoDebias(PropensityWeighted):
    r"""Matrix factorization whose weights and imputed ratings are learnt so that a step helps on random ratings.

    The predictions :math:`\theta` descend

    .. math::

        L_T(\theta, \phi) = \sum_{\text{rated}} w^1_{ui} (\hat x_{ui} - x_{ui})^2
        + \lambda \sum_{u,i} w^2_{ui} (\hat x_{ui} - m_{ui})^2 + \text{L2 penalty}.

    Before each step :math:`\theta - \eta \nabla_\theta L_T(\theta, \phi)` the debiasing :math:`\phi` takes an Adam
    step down the mean squared error that the step, made with the present :math:`\phi`, would leave on all of
    ``mcar_labels``; the gradient goes through the step (Chen et al., AutoDebias: Learning to debias for recommendation,
    SIGIR 2021, algorithm 1). As there, log-weights are additive, :math:`w^1` in user, item and rating level,
    :math:`w^2` in user, item and whether the cell is rated; and m depends on the level of the cell's rating, or on
    there being none.

    Departures from the paper and its code:

    - There ratings are -1 or 1 and m is squashed into -1..1. Here m has a value for each level of the scale (for each
      fifth of a scale without levels), squashed into the scale; it starts at the level, and for cells without a rating
      at the mean of the labels.
    - Here predictions have a mean, which stays that of the labels, and the penalty is on offsets too.
    - There a step visits every cell of a block of users and items; here the sum over all cells is estimated from cells
      drawn uniformly, as many as ratings in the batch.
    - There all users and items have one step size. Here that of a user or item is divided by one plus the number of
      cells it has in a batch on average, drawn cells counted ``imputation`` times, so that one learning rate suits
      catalogues of any size.
    - There random ratings end a fit. Here held-out self-selected ratings do, after 20 passes without gain; propensities
      ``"auto"`` (see ``PropensityWeighted``) weigh them: naive Bayes from the same labels if the scale has levels.

    Parameters
    ----------
    clip_quantile
        Of the propensities that weigh held-out ratings; see ``PropensityWeighted``.
    size
        Number of factors.
    reg
        Weight in the L2 penalty of the squared factors and offsets, in squared rating points.
    learning_rate
        eta, before it is divided.
    batch_size
        Ratings a step.
    imputation
        Weight of all cells together, relative to that of all ratings: lambda N P / n.
    meta_learning_rate
        Adam's step size for the debiasing, log-weights and imputed ratings alike.
    meta_reg
        Weight decay of the debiasing's log-weights.

    Raises
    ------
    DataError
        On fitting to a split without labels.
    ConfigError
        If a setting is out of range.
    """

    uses_labels = True
    search_space: ClassVar[Mapping[str, tuple[Any, ...]]] = MappingProxyType(
        {"reg": (3.0, 10.0, 30.0), "imputation": (0.3, 1.0, 3.0)}
    )
    patience = 20  # the level is learnt in a few passes, the tastes in many

    def __init__(
        self,
        *,
        clip_quantile: float = 0.02,
        size: int = 16,
        reg: float = 10.0,
        learning_rate: float = 0.2,
        batch_size: int = 4096,
        imputation: float = 1.0,
        meta_learning_rate: float = 0.01,
        meta_reg: float = 1e-3,
    ) -> None:
        super().__init__(
            clip_quantile=clip_quantile, size=size, reg=reg, learning_rate=learning_rate, batch_size=batch_size
        )
        check_positive(imputation=imputation, meta_learning_rate=meta_learning_rate, meta_reg=meta_reg)
        self.imputation = imputation
        self.meta_learning_rate = meta_learning_rate
        self.meta_reg = meta_reg

    def _make_learner(self, split: Split, seed: int) -> "MetaLearner":
        labels = require_labels(split, "autodebias")
        return MetaLearner(self, split, labels, self._fit_propensities(split, seed), seed)


@dataclass(frozen=True, eq=False)
class KnownCells:
    """What kind of cell each one is: rated at some level, 0..K-1, or without a rating, K."""

    cells: NDArray[np.int64]  # (n,), rising
    kinds: NDArray[np.int64]  # (n,)
    values: NDArray[np.float64]
    """Rating of each level, (K,), in rating points."""

    @classmethod
    def of_log(cls, log: RatingLog) -> "KnownCells":
        """Return the levels of a log; on a real scale the fifths of its range, with their middles for values."""
        scale = log.scale
        if scale.levels is not None:
            return cls(log.cells, scale.level_index(log.ratings), scale.levels)
        edges = np.linspace(scale.low, scale.high, _BINS + 1)
        return cls(log.cells, np.searchsorted(edges[1:-1], log.ratings, side="right"), (edges[1:] + edges[:-1]) / 2)

    def kind_of(self, cells: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the kind of each cell, (m,)."""
        at = np.minimum(np.searchsorted(self.cells, cells), len(self.cells) - 1)
        return np.where(self.cells[at] == cells, self.kinds[at], len(self.values))


class LogAdditiveWeight(nn.Module):
    """exp((a_u + b_i + c_kind) / 5), 1 at the start. The authors' code divides too: it keeps the weights near 1."""

    def __init__(self, shape: tuple[int, int], kinds: int) -> None:
        super().__init__()
        self.user, self.item, self.kind = (nn.Parameter(torch.zeros(size)) for size in (*shape, kinds))

    def forward(self, rows: Tensor, columns: Tensor, kinds: Tensor) -> Tensor:
        """Return the weight of cells, each argument (m,) -> (m,)."""
        return ((self.user[rows] + self.item[columns] + self.kind[kinds]) / _SOFTNESS).exp()


class Debiasing(nn.Module):
    """phi: the weights of ratings and of imputed ratings, and the imputed ratings.

    Parameters
    ----------
    shape
        Numbers of users and items.
    log
        For its scale.
    start
        Where the imputed rating of each kind starts, (K + 1,), in rating points.
    """

    def __init__(self, shape: tuple[int, int], log: RatingLog, start: NDArray[np.float64]) -> None:
        super().__init__()
        self.centre, self.half_width = log.scale.centre, log.scale.half_width
        self.rated = LogAdditiveWeight(shape, len(start) - 1)
        self.all = LogAdditiveWeight(shape, 2)
        # Off the ends of the scale, where the tanh has no slope to learn by.
        inner = np.clip((start - self.centre) / self.half_width, -_INNER_LEVEL, _INNER_LEVEL)
        self.squashed = nn.Parameter(torch.tensor(np.arctanh(inner), dtype=torch.float32))

    def imputed(self, kinds: Tensor) -> Tensor:
        """Return m of cells by kind, (m,) -> (m,), in rating points."""
        return self.centre + self.half_width * torch.tanh(self.squashed[kinds])


@dataclass(frozen=True, eq=False)
class Batch:
    """What a step sees: ratings with their kinds, and cells drawn from all with theirs."""

    rated: RatedCells
    kinds: Tensor  # (b,)
    rows: Tensor  # (m,)
    columns: Tensor  # (m,)
    drawn_kinds: Tensor  # (m,)


class MetaLearner(PropensityLearner):
    """Predictions, the debiasing they descend by, and the labels that the debiasing descends by."""

    def __init__(
        self, method: AutoDebias, split: Split, labels: RatingLog, propensities: Propensities, seed: int
    ) -> None:
        super().__init__(split, propensities, seed)
        log, level = split.mnar_train, float(labels.ratings.mean(dtype=np.float64))
        self.method = method
        self.labels = RatedCells.of_log(labels, np.ones(labels.n_ratings))
        self.known = KnownCells.of_log(log)
        self.debiasing = Debiasing(self.shape, log, np.append(self.known.values, level))
        # The mean stays that of the labels: it is in every cell, and one step for it would be a step for all offsets.
        self.head = self.start(lambda _: MatrixFactorization(self.shape, method.size, mean=level), "autodebias")
        self.head.mean.requires_grad_(False)
        with torch.no_grad():
            for table in (self.head.user, self.head.item):
                table.weight.mul_(_SPREAD)  # near 0 plain gradient steps hardly move a product
        self.parameters = {name: p for name, p in self.head.named_parameters() if p.requires_grad}
        self.steps = self._steps(log)
        log_weights = [*self.debiasing.rated.parameters(), *self.debiasing.all.parameters()]
        groups: list[dict[str, Any]] = [
            {"params": log_weights, "weight_decay": method.meta_reg},
            {"params": [self.debiasing.squashed]},
        ]
        self.meta_optimizer = torch.optim.Adam(groups, lr=method.meta_learning_rate)

    def run_epoch(self, epoch: int) -> float:
        """Make one pass over the ratings; return the mean squared error that the steps promised on the labels."""
        total = 0.0
        order = batches(len(self.rated), self.method.batch_size, self.seed, "autodebias", epoch)
        for step, index in enumerate(order):
            batch = self._batch(index, epoch, step)
            total += descend(self.meta_optimizer, self.meta_loss(batch)) * len(index)
            after = self.look_ahead(batch, through=False)
            with torch.no_grad():
                for name, parameter in self.parameters.items():
                    parameter.copy_(after[name])
        return total / len(self.rated)

    def meta_loss(self, batch: Batch) -> Tensor:
        """Return the mean squared error on the labels after the step that the present debiasing would make."""
        after = self.look_ahead(batch, through=True)
        predicted = functional_call(self.head, after, (self.labels.rows, self.labels.columns))
        loss: Tensor = (predicted - self.labels.ratings).square().mean()
        return loss

    def look_ahead(self, batch: Batch, *, through: bool) -> dict[str, Tensor]:
        """Return the parameters after one step, by name; ``through``: as a function of the debiasing."""
        gradients = torch.autograd.grad(self.training_loss(batch), list(self.parameters.values()), create_graph=through)
        return {
            name: parameter - self.steps[name.split(".")[0]] * gradient
            for (name, parameter), gradient in zip(self.parameters.items(), gradients, strict=True)
        }

    def training_loss(self, batch: Batch) -> Tensor:
        """Return the batch's share of L_T, a sum."""
        rated, share = batch.rated, len(batch.rated) / len(self.rated)
        weights = self.debiasing.rated(rated.rows, rated.columns, batch.kinds)
        on_rated = (weights * (self.head(rated.rows, rated.columns) - rated.ratings).square()).sum()
        is_rated = (batch.drawn_kinds < len(self.known.values)).long()
        weights = self.debiasing.all(batch.rows, batch.columns, is_rated)
        imputed = self.debiasing.imputed(batch.drawn_kinds)
        on_all = (weights * (self.head(batch.rows, batch.columns) - imputed).square()).mean()
        penalty = torch.stack([p.square().sum() for p in self.parameters.values()]).sum()
        loss: Tensor = on_rated + self.method.imputation * len(rated) * on_all + self.method.reg * share * penalty
        return loss

    def _batch(self, index: NDArray[np.int64], epoch: int, step: int) -> Batch:
        drawn = numpy_generator(self.seed, "autodebias", "drawn", epoch, step).integers(self.n_cells, size=len(index))
        rows, columns, kinds = (
            torch.from_numpy(values) for values in (*np.divmod(drawn, self.shape[1]), self.known.kind_of(drawn))
        )
        return Batch(self.rated.take(index), torch.from_numpy(self.known.kinds[index]), rows, columns, kinds)

    def _steps(self, log: RatingLog) -> dict[str, Tensor]:
        """Return the step size of each row of each table, (N + 1, 1) and (P + 1, 1)."""
        size = min(self.method.batch_size, log.n_ratings)
        steps = {}
        for part, index, count in (("user", log.rows, log.n_users), ("item", log.items, log.n_items)):
            met = size * (np.bincount(index, minlength=count + 1) / log.n_ratings + self.method.imputation / count)
            step = torch.tensor(self.method.learning_rate / (1.0 + met), dtype=torch.float32).unsqueeze(1)
            steps[part] = steps[f"{part}_offset"] = step
        return steps
