"""Matrix factorization, blind to how the ratings were selected."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from baselines.base import Baseline, require_valid
from baselines.fitting import batches, check_positive, fit_to_convergence, seeded, squared_error
from baselines.heads import MatrixFactorization, predict_pairs
from mnar_recsys.data import Split


class Mf(Baseline):
    r"""Matrix factorization with offsets.

    Minimises :math:`\sum_{\text{rated}} (x_{ui} - \mu - a_u - b_i - p_u^T q_i)^2 + \lambda (\|p_u\|^2 + \|q_i\|^2 +
    a_u^2 + b_i^2)`, the penalty inside the sum (Koren, Bell and Volinsky, Matrix factorization techniques for
    recommender systems, IEEE Computer 42, 2009, eq. 5), by minibatch Adam; the number of passes is chosen on held-out
    self-selected ratings. :math:`\mu` starts at the mean rating and, other than there, is learned too, without a
    penalty. What has no rating has no offset and no factors, as what is unknown.

    Parameters
    ----------
    size
        Number of factors K.
    reg
        lambda, in squared rating points.
    learning_rate
        Adam's step size.
    batch_size
        Ratings per step.

    Raises
    ------
    ConfigError
        If a setting is not above 0.
    """

    search_space: ClassVar[Mapping[str, tuple[Any, ...]]] = MappingProxyType(
        {"size": (5, 10, 20), "reg": (0.1, 0.2, 0.3)}
    )

    def __init__(
        self, *, size: int = 10, reg: float = 0.2, learning_rate: float = 0.01, batch_size: int = 1024
    ) -> None:
        check_positive(size=size, reg=reg, learning_rate=learning_rate, batch_size=batch_size)
        self.size = size
        self.reg = reg
        self.learning_rate = learning_rate
        self.batch_size = batch_size

    def _fit(self, split: Split, seed: int) -> None:
        learner = fit_to_convergence(lambda part, seed: _Learner(self, part, seed), split, seed)
        self.factors = learner.factors
        self.factors.zero_unrated(learner.rows, learner.columns)

    def _predict(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float64]:
        return predict_pairs(self.factors, rows, columns)


class _Learner:
    """The factors with the ratings they are trained on."""

    def __init__(self, method: Mf, split: Split, seed: int) -> None:
        log = split.mnar_train
        self.method, self.split, self.seed = method, split, seed
        self.rows = torch.tensor(log.rows, dtype=torch.int64)
        self.columns = torch.tensor(log.items, dtype=torch.int64)
        self.ratings = torch.tensor(log.ratings)
        shape, mean = (log.n_users, log.n_items), float(log.ratings.mean(dtype=np.float64))
        self.factors = seeded(lambda: MatrixFactorization(shape, method.size, mean=mean), seed, "mf", "start")
        self.optimizer = torch.optim.Adam(self.factors.parameters(), lr=method.learning_rate)

    def run_epoch(self, epoch: int) -> float:
        total = 0.0
        for index in batches(len(self.ratings), self.method.batch_size, self.seed, "mf", "order", epoch):
            at = torch.from_numpy(index)
            rows, columns = self.rows[at], self.columns[at]
            error = (self.factors(rows, columns) - self.ratings[at]).square().sum()
            loss = error + self.method.reg * self.factors.penalty(rows, columns)
            self.optimizer.zero_grad()
            (loss / len(at)).backward()
            self.optimizer.step()
            total += float(loss.detach())
        return total / len(self.ratings)

    def validation_loss(self) -> float:
        valid = require_valid(self.split)
        return squared_error(valid, predict_pairs(self.factors, valid.rows, valid.items))
