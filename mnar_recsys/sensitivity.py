"""How the answer depends on the strength of selection, and how much of that strength the log itself tells.

The selection between the ends of the scale is held at several values, everything else is fitted again from where it
was, and the joint bounds are compared: a profile likelihood, as far as the bound is tight. A flat profile means that
the log does not tell, and that what is predicted rests on the stated sign and on priors. A steep one means that it
tells if the decoder and the missing model have the right form; of that no log can say anything. Each fit starts from
the fitted weights: an explanation that lies far from them, such as the mirror image of Zhang et al. (ICDE 2024), can
be missed.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from mnar_recsys.config import Settings
from mnar_recsys.errors import ConfigError
from mnar_recsys.model.mnar_vae import MnarVae
from mnar_recsys.model_folder import FittedModel
from mnar_recsys.prediction import Predictor
from mnar_recsys.prediction.user_bounds import user_bounds
from mnar_recsys.rng import numpy_generator
from mnar_recsys.training import Trainer

PLAUSIBLE = 1.92
"""Nats that a 95 % likelihood interval for one parameter allows below the best (half the quantile of chi square, 1)."""
TOP_N = 10
_BOUND_USERS = 500
_PREDICTED_USERS = 200
_RATE_CUT = 4.0


@dataclass(frozen=True)
class ProfilePoint:
    """The fit with the selection held at one value."""

    selection: float
    """nats between the ends of the scale; positive: people rate what they like"""
    relative: float
    """log-likelihood of all users less that of the best point, in nats, never above 0"""
    relative_se: float
    """standard error of that over users, where not all of them were used, and of the Monte Carlo bound"""
    mean: float
    """predicted mean of unrated cells, rating points"""
    marginal: tuple[float, ...] | None
    """predicted shares of the levels among them, (R,)"""
    overlap: float
    """share of the best unrated items of a user, TOP_N, that are also among the best of the fitted model"""


@dataclass(frozen=True)
class Profile:
    """Points by rising selection, and the fitted selection."""

    points: tuple[ProfilePoint, ...]
    fitted: float

    @property
    def plausible(self) -> tuple[ProfilePoint, ...]:
        """Points that the log does not speak against: within PLAUSIBLE of the best, or within two standard errors."""
        return tuple(point for point in self.points if point.relative + PLAUSIBLE + 2 * point.relative_se >= 0)

    def verdict(self) -> str:
        """Return in words what this log tells of the selection, and what it changes."""
        kept = self.plausible
        low, high = kept[0].selection, kept[-1].selection
        means = [point.mean for point in kept]
        effect = (
            f"Over these the predicted mean of unrated cells goes from {min(means):.2f} to {max(means):.2f}, and at "
            f"least {min(point.overlap for point in kept):.0%} of each person's top {TOP_N} stay."
        )
        at_end = low == self.points[0].selection or high == self.points[-1].selection
        beyond = ", and perhaps values beyond those tried" if at_end else ""
        span = f"from {low:+.2f} to {high:+.2f} nats between the ends of the scale{beyond}"
        if low < 0 < high or low <= 0 <= high:
            return (
                "Not identified: this log fits as well with no selection, or with either sign. It goes with selections "
                f"{span}. The predictions rest on the stated sign and the priors; only randomly collected ratings "
                f"(--mcar-labels) would settle it. {effect}"
            )
        sign = "what they like" if low > 0 else "what they dislike"
        if at_end or high - low > 0.5 * abs(high + low):
            return f"Weakly identified: people rate {sign}, but how strongly is open, {span}. {effect}"
        return f"Identified, if decoder and missing model have the right form: people rate {sign}, {span}. {effect}"


def default_grid(fitted: float) -> tuple[float, ...]:
    """Return selections to try: no selection, the fitted one, others between and beyond, and one of the other sign."""
    unit = max(abs(fitted), 0.6)
    direction = -1.0 if fitted < 0 else 1.0
    grid = {round(direction * unit * share, 3) for share in (-1.0, -0.5, 0.0, 0.5, 1.5, 2.0)}
    return tuple(sorted({*grid, fitted}))


def selection_profile(
    fitted: FittedModel,
    values: Sequence[float] | None = None,
    *,
    steps: int = 400,
    seed: int = 0,
    on_point: Callable[[ProfilePoint], None] | None = None,
) -> Profile:
    """Hold the selection at several values, fit the rest again, and compare.

    Parameters
    ----------
    fitted : FittedModel
        Its missing model must have a slope.
    values : sequence of float, optional
        Selections between the ends of the scale, in nats; ``default_grid`` of the fitted one.
    steps : int
        Training steps for each value, from the fitted weights.
    on_point : callable, optional
        Called with each point as it is done; its ``relative`` is then the log-likelihood itself.

    Raises
    ------
    ConfigError
        If the missing model has no slope that could be held.
    """
    if fitted.model.missing.slopes() is None:
        raise ConfigError(
            f"sensitivity needs a missing model with a slope; '{fitted.settings.model.missing}' has none. Train with "
            "--missing shared or per-level"
        )
    now = _selection(fitted)
    grid = default_grid(now) if values is None else tuple(sorted(set(values)))
    users = _sample(fitted, _BOUND_USERS, seed)
    judge = _Judge(fitted, seed)
    bounds, points = [], []
    for value in grid:
        model, cost = _refit(fitted, value, steps)
        bounds.append(user_bounds(model, fitted.log, users, seed=seed))
        point = judge.point(model, value)
        n_users = fitted.log.n_users
        points.append(replace(point, relative=n_users * float(bounds[-1].mean()) - cost))
        if on_point:
            on_point(points[-1])
    best = int(np.argmax([point.relative for point in points]))
    found = []
    for point, bound in zip(points, bounds, strict=True):
        gap = bound - bounds[best]
        error = fitted.log.n_users * float(gap.std(ddof=1)) / np.sqrt(len(users))
        # All users are a census: what is left of the error is that of the Monte Carlo bound.
        share = np.sqrt(max(1 - len(users) / fitted.log.n_users, 0.0))
        found.append(replace(point, relative=point.relative - points[best].relative, relative_se=float(share * error)))
    return Profile(tuple(found), now)


def _selection(fitted: FittedModel) -> float:
    scale = fitted.log.scale
    with torch.no_grad():
        ends = fitted.model.missing.selection(torch.tensor([scale.low, scale.high]).to(_device(fitted.model)))
    return float(ends[1] - ends[0])


def _device(model: MnarVae) -> torch.device:
    return next(model.parameters()).device


def _sample(fitted: FittedModel, size: int, seed: int) -> NDArray[np.int64]:
    known = np.flatnonzero(np.diff(fitted.log.indptr) > 0)
    rng = numpy_generator(seed, "sensitivity users")
    return np.sort(rng.choice(known, min(size, len(known)), replace=False))


def _refit(fitted: FittedModel, value: float, steps: int) -> tuple[MnarVae, float]:
    """Return the model fitted again with the selection held, and what its weights cost under their priors, in nats."""
    model = copy.deepcopy(fitted.model)
    slopes = model.missing.slopes()
    assert slopes is not None  # noqa: S101
    slopes.hold(value)
    rate = fitted.settings.training.learning_rate
    cost = 0.0
    for part in (rate, rate / _RATE_CUT):
        changes = {"stop": "never", "max_steps": max(steps // 2, 1), "evaluate_every": steps, "learning_rate": part}
        settings: Settings = fitted.settings.replace(changes)
        trainer = Trainer(model, fitted.log, settings, seed=fitted.seed)
        trainer.run()
        with torch.no_grad():
            cost = float(trainer.weight_cost())
    return model, cost


class _Judge:
    """What changes for those who use the predictions: the mean, the marginal, the best items of some users."""

    def __init__(self, fitted: FittedModel, seed: int) -> None:
        self._log = fitted.log
        users = _sample(fitted, _PREDICTED_USERS, seed)
        rows, items = (part.ravel() for part in np.meshgrid(users, np.arange(self._log.n_items), indexing="ij"))
        self._rows, self._items = rows, items
        self._unrated = ~np.isin(rows * self._log.n_items + items, self._log.cells)
        self._best, *_ = self._predict(fitted.model)

    def point(self, model: MnarVae, value: float) -> ProfilePoint:
        """Return the point of a model, its likelihood still to come."""
        best, mean, marginal = self._predict(model)
        shared = [len(np.intersect1d(one, other)) for one, other in zip(best, self._best, strict=True)]
        return ProfilePoint(value, 0.0, 0.0, mean, marginal, float(np.sum(shared)) / best.size)

    def _predict(self, model: MnarVae) -> tuple[NDArray[np.int64], float, tuple[float, ...] | None]:
        has_levels = self._log.scale.levels is not None
        found = Predictor(model, self._log, draws=32).predict(self._rows, self._items, levels=has_levels)
        unrated = self._unrated
        scores = np.where(unrated, found.mean, -np.inf).reshape(-1, self._log.n_items)
        best = np.argsort(-scores, axis=1, kind="stable")[:, :TOP_N]
        marginal = None if found.levels is None else tuple(map(float, found.levels[unrated].mean(0)))
        return best, float(found.mean[unrated].mean()), marginal
