"""The selection held at several values, everything else fitted again, and the joint bounds compared."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from mnar_recsys.config import Settings
from mnar_recsys.errors import ConfigError
from mnar_recsys.model.mnar_vae import MnarVae
from mnar_recsys.model_folder import FittedModel
from mnar_recsys.prediction.user_bounds import user_bounds
from mnar_recsys.rng import numpy_generator
from mnar_recsys.sensitivity.effect import Effect
from mnar_recsys.sensitivity.starts import NEAREST_STEPS, device_of, fresh, held, nearest_law
from mnar_recsys.sensitivity.verdict import Profile, ProfilePoint
from mnar_recsys.training import Trainer
from mnar_recsys.training.held_out import split_users

# Nats that nobody meant: a slope with a sign that was set to nothing is never quite 0.
_NOTHING = 1e-5
_BOUND_USERS = 500
_PREDICTED_USERS = 200
_RATE_CUT = 4.0


@dataclass(frozen=True)
class _Fit:
    """A model fitted with the selection held."""

    start: str
    model: MnarVae
    bounds: NDArray[np.float64]
    """of the users that judge, nats"""
    log_likelihood: float
    """of all users, nats; in sample, less what the weights cost under their priors"""


def default_grid(fitted: float) -> tuple[float, ...]:
    """Return selections to try: no selection, the fitted one, others between and beyond, and two of the other sign.

    Where none is fitted, they are as many on both sides.
    """
    unit = max(abs(fitted), 0.6)
    direction = -1.0 if fitted < 0 else 1.0
    shares = (-1.0, -0.5, 0.0, 0.5, 1.5, 2.0) if fitted else (-2.0, -1.0, -0.5, 0.5, 1.0, 2.0)
    grid = {round(direction * unit * share, 3) for share in shares}
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

    A value of the fitted sign is fitted from the fitted weights. No selection, and the opposite sign, are fitted three
    times, and the fit with the highest log-likelihood is kept: from the fitted weights, from the model of the nearest
    law (``nearest_law``), and from new weights. On the default grid that is 13 fits for 7 values, and 21 where no
    selection is fitted; with the search for the nearest laws it takes a little more than twice as long as one fit each.

    Where the fitted model's training stopped on held-out users, they stop the fits here, too, and judge them: weights
    that are points fit what is chance in their own users, a slope with them, and likelihoods of these users favour
    selection where there is none.

    Parameters
    ----------
    fitted : FittedModel
        Its missing model must have a slope.
    values : sequence of float, optional
        Selections between the ends of the scale, in nats; ``default_grid`` of the fitted one.
    steps : int
        Training steps of each fit.
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
    held_out = split_users(fitted.log, fitted.settings.training, seed=fitted.seed)[1]
    judges = held_out if len(held_out) else users
    effect = Effect(fitted, _sample(fitted, _PREDICTED_USERS, seed))
    bounds, points = [], []
    for value in grid:
        nearest, gap = nearest_law(fitted, value, users, seed=seed, steps=min(steps, NEAREST_STEPS))
        if fitted.settings.model.population_marginal is not None:
            gap = math.inf  # a log comes with the survey's shares there, which this does not compare
        starts = _starts(fitted, value, nearest, is_far=value * now <= 0, seed=seed)
        tried = (_fit(start, model, fitted, judges, steps=steps, seed=seed) for start, model in starts)
        best = max(tried, key=lambda fit: fit.log_likelihood)
        bounds.append(best.bounds)
        mean, marginal, overlap = effect.of(best.model)
        points.append(ProfilePoint(value, best.log_likelihood, 0.0, mean, marginal, overlap, gap, best.start))
        if on_point:
            on_point(points[-1])
    return Profile(
        _relative_to_best(points, bounds, fitted.log.n_users, in_sample=not len(held_out)),
        fitted=now,
        in_sample=not len(held_out),
        taste_is_exposed=fitted.model.exposure.shared > 0,
    )


def _starts(
    fitted: FittedModel, value: float, nearest: MnarVae, *, is_far: bool, seed: int
) -> Iterator[tuple[str, MnarVae]]:
    yield "fitted", held(fitted.model, value)
    if is_far:
        yield "nearest law", nearest
        yield "fresh", fresh(fitted, value, seed)


def _relative_to_best(
    points: list[ProfilePoint], bounds: list[NDArray[np.float64]], n_users: int, *, in_sample: bool
) -> tuple[ProfilePoint, ...]:
    """Return the points with the log-likelihood of the best taken off, and the standard error of the difference."""
    best = int(np.argmax([point.relative for point in points]))
    found = []
    for point, bound in zip(points, bounds, strict=True):
        gap = bound - bounds[best]
        error = n_users * float(gap.std(ddof=1)) / np.sqrt(len(gap))
        # All users are a census, if one parameter is in question. Opposite signs are two models, neither inside the
        # other, whose other weights fit what is chance in these users each in its own way (Vuong 1989).
        apart = point.selection * points[best].selection < 0
        # Held-out users are a sample in any case, of those to come.
        is_census = in_sample and not apart
        share = np.sqrt(max(1 - len(gap) / n_users, 0.0)) if is_census else 1.0
        found.append(replace(point, relative=point.relative - points[best].relative, relative_se=float(share * error)))
    return tuple(found)


def _selection(fitted: FittedModel) -> float:
    scale = fitted.log.scale
    with torch.no_grad():
        ends = fitted.model.missing.selection(torch.tensor([scale.low, scale.high]).to(device_of(fitted.model)))
    selection = float(ends[1] - ends[0])
    return selection if abs(selection) > _NOTHING else 0.0


def _sample(fitted: FittedModel, size: int, seed: int) -> NDArray[np.int64]:
    known = np.flatnonzero(np.diff(fitted.log.indptr) > 0)
    rng = numpy_generator(seed, "sensitivity users")
    return np.sort(rng.choice(known, min(size, len(known)), replace=False))


def _fit(start: str, model: MnarVae, fitted: FittedModel, judges: NDArray[np.int64], *, steps: int, seed: int) -> _Fit:
    """Train a model whose selection is held, from the weights that it has."""
    is_held_out = fitted.settings.training.stop == "held-out"
    rate = fitted.settings.training.rate
    cost = 0.0
    for part in (rate, rate / _RATE_CUT):
        changes = {"inference": "variational", "max_steps": max(steps // 2, 1), "learning_rate": part}
        if not is_held_out:
            changes |= {"stop": "never", "evaluate_every": steps}
        settings: Settings = fitted.settings.replace(changes)
        trainer = Trainer(model, fitted.log, settings, seed=fitted.seed)
        trainer.run()
        with torch.no_grad():
            cost = 0.0 if is_held_out else float(trainer.weight_cost())
    bounds = user_bounds(model, fitted.log, judges, seed=seed, predictive=is_held_out)
    return _Fit(start, model, bounds, fitted.log.n_users * float(bounds.mean()) - cost)
