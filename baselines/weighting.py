"""What methods that weigh ratings by inverse propensities share: choosing, clipping and applying propensities."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from baselines.base import Baseline, require_valid
from baselines.fitting import check_positive, fit_to_convergence, seeded
from baselines.heads import MatrixFactorization, predict_pairs
from mnar_recsys.data import RatingLog, Split
from mnar_recsys.errors import ConfigError
from mnar_recsys.propensity.base import PropensityModel
from mnar_recsys.propensity.diagnostics import clip
from mnar_recsys.propensity.registry import find_propensity
from mnar_recsys.rng import torch_seed

AUTO = "auto"
_WITH_LABELS, _WITHOUT_LABELS = "naive_bayes", "user_item_popularity"

H = TypeVar("H", bound=MatrixFactorization)


class OfLog(Protocol):
    """What can say how probable the ratings of a log were."""

    def of_log(self, log: RatingLog) -> NDArray[np.float64]:
        """Return the propensity of each rating of a log of the split fitted to, (n,)."""
        ...


@dataclass(frozen=True, eq=False)
class Propensities:
    """A fitted propensity model, and the floor to which its smaller values are raised.

    Small propensities are rare large weights; raising them trades a little bias for much variance.
    """

    model: PropensityModel
    floor: float

    @classmethod
    def fit(cls, wanted: str | PropensityModel, split: Split, *, clip_quantile: float, seed: int) -> Self:
        """Fit to the split; the floor is the ``clip_quantile`` of the propensities of its training ratings."""
        model = _resolve(wanted, split).fit(split, seed=seed)
        return cls(model, float(np.quantile(model.of_log(split.mnar_train), clip_quantile)))

    def of_log(self, log: RatingLog) -> NDArray[np.float64]:
        """Return the propensity of each rating of a log of the same split, (n,), none below the floor."""
        return clip(self.model.of_log(log), self.floor).values


def _resolve(wanted: str | PropensityModel, split: Split) -> PropensityModel:
    if isinstance(wanted, PropensityModel):
        return copy(wanted)  # fitting must not change what the caller holds
    if wanted == AUTO:
        has_marginal = split.n_labels > 0 and split.mnar_train.scale.levels is not None
        wanted = _WITH_LABELS if has_marginal else _WITHOUT_LABELS
    return find_propensity(wanted)()


@dataclass(frozen=True, eq=False)
class RatedCells:
    """Rated cells as tensors, each (n,)."""

    rows: Tensor
    columns: Tensor
    ratings: Tensor
    propensity: Tensor
    """P(rated), clipped."""

    @classmethod
    def of_log(cls, log: RatingLog, propensity: NDArray[np.float64]) -> Self:
        """Return the ratings of a log with the given propensities, (n,)."""
        return cls(
            torch.tensor(log.rows, dtype=torch.int64),
            torch.tensor(log.items, dtype=torch.int64),
            torch.tensor(log.ratings),
            torch.tensor(propensity, dtype=torch.float32),
        )

    def take(self, index: NDArray[np.int64]) -> Self:
        """Return the cells at ``index``."""
        at = torch.from_numpy(index)
        return type(self)(self.rows[at], self.columns[at], self.ratings[at], self.propensity[at])

    def __len__(self) -> int:
        return len(self.ratings)


def ips_loss(errors: Tensor, propensity: Tensor, n_cells: float) -> Tensor:
    """Return sum(e / p) / n_cells: with true propensities unbiased for the mean error of all cells.

    Parameters
    ----------
    errors, propensity
        Of the rated cells, (b,).
    n_cells
        How many cells, rated or not, these stand for: N * P for all n ratings, N * P * b / n for a batch of b.
    """
    return (errors / propensity).sum() / n_cells


def snips_loss(errors: Tensor, propensity: Tensor) -> Tensor:
    """Return sum(e / p) / sum(1 / p): the mean error of all cells, slightly biased, but never outside the errors."""
    weights = 1.0 / propensity
    return (weights * errors).sum() / weights.sum()


class PropensityLearner(ABC):
    """A prediction head with its weighted training ratings; subclasses say what a pass is.

    Attributes
    ----------
    rated : RatedCells
        The n training ratings.
    shape : (int, int)
        Numbers of users N and items P.
    n_cells : int
        N * P.
    propensities : OfLog
        By which the held-out ratings are weighed.
    head : MatrixFactorization
        What predicts. Subclasses set it.
    """

    head: MatrixFactorization

    def __init__(self, split: Split, propensities: Propensities, seed: int) -> None:
        log = split.mnar_train
        self.split, self.seed = split, seed
        self.propensities: OfLog = propensities
        self.shape = (log.n_users, log.n_items)
        self.n_cells = log.n_users * log.n_items
        self.rated = RatedCells.of_log(log, propensities.of_log(log))

    @abstractmethod
    def run_epoch(self, epoch: int) -> float:
        """Make one pass; return the mean training loss."""

    def start(self, make: Callable[[float], H], *name: str) -> H:
        """Return ``make(weighted mean of the ratings)``, where what has no rating starts as what is unknown."""
        mean = float(snips_loss(self.rated.ratings, self.rated.propensity))
        head = seeded(lambda: make(mean), self.seed, *name, "start")
        head.zero_unrated(self.rated.rows, self.rated.columns)
        return head

    def validation_loss(self) -> float:
        """Return the SNIPS-weighted squared error on ``split.mnar_valid``; lower is better."""
        valid = require_valid(self.split)
        return weighted_error(predict_pairs(self.head, valid.rows, valid.items), valid, self.propensities)


class PropensityWeighted(Baseline):
    """A method that weighs each rating by one over the propensity of its being given.

    Tuning and stopping minimise the SNIPS-weighted squared error on held-out ratings, under the method's own
    propensities.

    Parameters
    ----------
    propensity
        A name of ``mnar_recsys.propensity.registry.PROPENSITIES``, or a propensity model, of which a copy is fitted.
        ``"auto"`` is ``naive_bayes`` where the split has labels and the scale has levels, else
        ``user_item_popularity``. The latter cannot know that the rating itself decides what is rated: it corrects
        for popularity and activity only.
    clip_quantile
        Propensities below this quantile of those of the training ratings are raised to it; 0 leaves them alone. It is
        not for tuning by ``validation_loss``, which weighs by the clipped propensities.
    size
        Number of factors.
    reg
        Penalty on squared factors and offsets, in squared rating points, where each rating adds its squared error
        times a weight, about 1 on average.
    learning_rate
        Step size of Adam.
    batch_size
        Ratings a step.

    Raises
    ------
    ConfigError
        If the name is unknown or a setting is out of range.
    DataError
        From ``fit``, if the split lacks labels, features or rating levels that the propensities need.
    """

    patience: ClassVar[int] = 5
    """Passes without gain on the held-out ratings after which a fit ends."""

    def __init__(
        self,
        *,
        propensity: str | PropensityModel = AUTO,
        clip_quantile: float = 0.02,
        size: int = 16,
        reg: float = 6.0,
        learning_rate: float = 0.01,
        batch_size: int = 2048,
    ) -> None:
        if isinstance(propensity, str) and propensity != AUTO:
            find_propensity(propensity)
        if not 0.0 <= clip_quantile < 1.0:
            raise ConfigError(f"clip_quantile must be at least 0 and below 1; found {clip_quantile}. Typical is .02")
        check_positive(size=size, reg=reg, learning_rate=learning_rate, batch_size=batch_size)
        self.propensity = propensity
        self.clip_quantile = clip_quantile
        self.size = size
        self.reg = reg
        self.learning_rate = learning_rate
        self.batch_size = batch_size

    @property
    def needs_labels(self) -> bool:
        """Whether the propensities read ``mcar_labels``; true of ``"auto"``, which does where it can."""
        if isinstance(self.propensity, PropensityModel):
            return self.propensity.needs_labels
        return self.propensity == AUTO or find_propensity(self.propensity).needs_labels

    def _validation_loss(self, split: Split) -> float:
        """Return the SNIPS-weighted squared error on ``split.mnar_valid`` under this method's own propensities."""
        valid = require_valid(split)
        predicted = self._predict(valid.rows.astype(np.int64), valid.items.astype(np.int64))
        return weighted_error(predicted, valid, self._learner.propensities)

    def _fit(self, split: Split, seed: int) -> None:
        self._learner = fit_to_convergence(self._make_learner, split, seed, patience=self.patience)

    def _predict(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float64]:
        return predict_pairs(self._learner.head, rows, columns)

    @abstractmethod
    def _make_learner(self, split: Split, seed: int) -> PropensityLearner:
        """Return an untrained learner on the training ratings of the split."""

    def _fit_propensities(self, split: Split, seed: int) -> Propensities:
        return Propensities.fit(self.propensity, split, clip_quantile=self.clip_quantile, seed=seed)


def weighted_error(predicted: NDArray[np.float64], log: RatingLog, propensities: OfLog) -> float:
    """Return the SNIPS-weighted squared error of predictions for a log, clipped to its scale first."""
    weights = 1.0 / propensities.of_log(log)
    return float(np.average(np.square(log.scale.clip(predicted) - log.ratings), weights=weights))


def ridge(parameters: Iterable[nn.Parameter], reg: float, n_ratings: int) -> list[dict[str, Any]]:
    """Return optimizer groups for a mean loss over n ratings plus (reg / n) * (squared norm of tables and matrices).

    Single numbers and vectors, such as the mean, are not penalised.
    """
    everything = list(parameters)
    # The optimizer's weight decay w stands for (w / 2) * norm.
    return [
        {"params": [p for p in everything if p.ndim > 1], "weight_decay": 2.0 * reg / n_ratings},
        {"params": [p for p in everything if p.ndim <= 1], "weight_decay": 0.0},
    ]


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> float:
    """Make one step of the optimizer's own parameters down the gradient; return the loss before it."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    optimizer.zero_grad()
    torch.autograd.backward(loss, inputs=parameters)
    optimizer.step()
    return float(loss.detach())


@contextmanager
def torch_stream(seed: int, *name: str | int) -> Iterator[None]:
    """Let torch draw from the stream ``name`` of ``seed`` inside the block; global generators are put back."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(torch_seed(seed, *name))
        yield
