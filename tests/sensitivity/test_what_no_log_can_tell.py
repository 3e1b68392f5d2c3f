"""Two truths with one law of what is observed: whichever of them made the log, nothing may be called identified."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import expit, logit
from scipy.stats import norm

from mnar_recsys.config import Settings
from mnar_recsys.data import RatingLog, RatingScale
from mnar_recsys.model.build import build_model
from mnar_recsys.model_folder import FittedModel
from mnar_recsys.sensitivity import PLAUSIBLE, selection_profile
from mnar_recsys.training import Trainer

SCALE = RatingScale(-3.0, 6.0)
POINTS = SCALE.high - SCALE.low
GRID = np.linspace(-8.0, 11.0, 761)


@dataclass(frozen=True)
class World:
    """Ratings N(mean_ij, 1), each shown with log-odds slope * rating + offset_ij."""

    mean: NDArray[np.float64]
    offset: NDArray[np.float64]
    slope: float

    def shown(self, ratings: NDArray[np.float64]) -> NDArray[np.float64]:
        """Density of a cell's showing each of the ratings (Q,): (Q, N, P); what is left is the chance of nothing."""
        x = ratings[:, None, None]
        return np.asarray(norm.pdf(x - self.mean) * expit(self.slope * x + self.offset))

    def log(self, seed: int) -> RatingLog:
        rng = np.random.default_rng(seed)
        ratings = self.mean + rng.normal(size=self.mean.shape)
        rows, items = np.nonzero(rng.random(ratings.shape) < expit(self.slope * ratings + self.offset))
        values = np.clip(ratings[rows, items], SCALE.low, SCALE.high)
        n_users, n_items = self.mean.shape
        return RatingLog.from_arrays(
            rows, items, values, scale=SCALE, user_ids=np.arange(n_users), catalogue=np.arange(n_items)
        )


def law_distance(one: World, other: World) -> float:
    """KL divergence between the laws of what all the cells show, in nats."""
    shown, also = (world.shown(GRID) * (GRID[1] - GRID[0]) for world in (one, other))
    rated, rated_also = shown.sum(0), also.sum(0)
    rating = (shown * (np.log(shown + 1e-300) - np.log(also + 1e-300))).sum(0)
    return float((rating + (1 - rated) * np.log((1 - rated) / (1 - rated_also))).sum())


def fit_from(world: World, *, steps: int, **settings: Any) -> FittedModel:
    """Fit a log of the world from what is true of the items there: of several maxima, the one at this truth."""
    log = world.log(seed=0)
    chosen = {"decoder": "gaussian", "missing": "shared", "exposure_size": 0, "user_activity": False} | settings
    chosen |= {
        "item_weights": "point",
        "latent_size": 1,
        "embedding_size": 4,
        "code_size": 8,
        "selection_prior_sd": None,
        "average_decay": 0,  # a short fit, which starts where it is to end
        "slope_rate": 1,
    }
    chosen |= {"quadrature_nodes": 16, "max_steps": steps, "stop": "never", "device": "cpu"}
    resolved = Settings().replace(chosen).resolve_for(log)
    model = build_model(resolved.model, log, 0)
    low, high = model.decoder.mean_range
    with torch.no_grad():
        model.decoder.bias.copy_(torch.from_numpy(logit((world.mean.mean(0) - low) / (high - low)))[None])
        model.decoder.log_sd.zero_()
        model.missing.slope.raw.fill_(float(np.log(np.expm1(abs(world.slope) * model.missing.unit))))
        model.missing.item_bias.copy_(torch.from_numpy(world.offset.mean(0) + world.slope * model.missing.centre))
    Trainer(model, log, resolved, seed=0).run()
    return FittedModel(resolved, 0, log, model, (), finished=True)


@pytest.mark.slow
@pytest.mark.parametrize(("sign", "sees_taste"), [("negative", False), ("positive", True)])
def test_a_mirror_image_with_the_opposite_selection(sign: str, sees_taste: bool) -> None:
    """Zhang et al. (ICDE 2024): as N(1, 1) with sigma(2 r - 4), and N(3, 1) with sigma(4 - 2 r)."""
    low = np.broadcast_to(np.random.default_rng(1).uniform(-0.5, 0.5, 50), (400, 50))
    liked, disliked = World(low, -2.0 * (low + 1.0), 2.0), World(low + 2.0, 2.0 * (low + 1.0), -2.0)
    assert abs(law_distance(liked, disliked)) < 1e-6
    truth = liked if sign == "positive" else disliked
    fitted = fit_from(truth, steps=200, sign=sign, exposure_sees_taste=sees_taste)
    now = 4 * fitted.model.missing.slope().item()  # a quarter of the scale is its unit
    profile = selection_profile(fitted, [-now, 0.0, now], steps=150)
    mirror = profile.points[0 if sign == "positive" else 2]
    assert profile.fitted == pytest.approx(truth.slope * POINTS, rel=0.15)
    assert mirror.start == "nearest law"  # the fitted weights lead to a fit that is 700 nats worse
    assert mirror.fits or mirror.law_gap <= PLAUSIBLE, profile
    assert profile.verdict().startswith("Not identified")
    assert "only randomly collected ratings" in profile.verdict()
    if sees_taste:  # then nearly every fitted taste has its mirror image; what lies between the two is further
        assert mirror.law_gap < profile.points[1].law_gap


@pytest.mark.slow
def test_a_level_that_the_exposure_absorbs() -> None:
    """With v_j . z in the mask and few cells rated, another slope is another level, and only the prior of v says no.

    Chosen with odds e^(w x + b), N(m, 1) is N(m + w, 1), and shown at a rate that goes by m.
    """
    rng = np.random.default_rng(2)
    taste, loading, means = rng.normal(size=(250, 1)), rng.normal(0.9, 0.1, 120), rng.normal(1.0, 0.3, 120)
    mean = means + taste * loading
    selective = World(mean, np.broadcast_to(-0.6 * means - 3.5, mean.shape), 0.6)
    shown = selective.shown(GRID) * (GRID[1] - GRID[0])
    rate = shown.sum(0)
    level = World((shown * GRID[:, None, None]).sum(0) / rate, logit(rate), 0.0)
    assert float((level.mean - mean).mean()) == pytest.approx(0.6, abs=0.06)
    assert law_distance(selective, level) < PLAUSIBLE
    fitted = fit_from(selective, steps=300, sign="positive", exposure_sees_taste=True, exposure_prior_sd=0.1)
    profile = selection_profile(fitted, [-0.6 * POINTS, 0.0, 0.6 * POINTS], steps=150)
    assert profile.points[1].relative < -20, "the prior of v no longer speaks: the test has lost its point"
    assert profile.points[1].law_gap <= PLAUSIBLE
    assert profile.verdict().startswith("Not identified"), profile
    assert "only priors set it apart" in profile.verdict()
    assert "the level rests on the priors" in profile.verdict()
