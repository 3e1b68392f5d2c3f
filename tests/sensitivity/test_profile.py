"""The profile of the selection: what is held, what is said of it, and what must not be claimed."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from factories import log_of, random_matrix, tiny_model

from mnar_recsys import MNARRecommender, simulate_ratings
from mnar_recsys.errors import ConfigError
from mnar_recsys.sensitivity import Profile, ProfilePoint, default_grid, selection_profile


@pytest.mark.parametrize("missing", ["shared", "per-item", "per-level"])
@pytest.mark.parametrize("strength", [-1.5, 0.0, 2.0])
def test_a_held_slope_has_the_strength_and_keeps_its_proportions(missing: str, strength: float) -> None:
    part = tiny_model(log_of(random_matrix(7, 5, seed=2)), seed=3, missing=missing).missing
    before = part.slopes()().detach()
    part.slopes().hold(strength)
    low, _, high = part.selection(torch.tensor([1.0, 2.0, 3.0])).tolist()
    assert high - low == pytest.approx(strength, abs=1e-5)
    after = part.slopes()()
    np.testing.assert_allclose(after * before.sum(), before * after.sum(), atol=1e-5)
    assert not part.slopes().raw.requires_grad
    assert part.log_prior(0.5) == 0.0


def test_a_model_without_a_slope_is_refused() -> None:
    log = log_of(random_matrix(12, 5, seed=2))
    fitted = MNARRecommender(missing="ignorable", inference="variational", max_steps=2, device="cpu").fit(log).fitted
    with pytest.raises(ConfigError, match="'ignorable' has none"):
        selection_profile(fitted)


def test_the_grid_holds_no_selection_the_fitted_one_and_both_signs() -> None:
    assert default_grid(1.0) == (-1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0)
    assert default_grid(-2.0) == (-4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0)
    assert 0.1 in default_grid(0.1)
    assert max(default_grid(0.1)) == 1.2
    assert default_grid(0.0) == (-1.2, -0.6, -0.3, 0.0, 0.3, 0.6, 1.2)


def profile_of(relative: dict[float, float], error: float = 0.0, fitted: float = 1.0) -> Profile:
    point = ProfilePoint(0.0, 0.0, error, 2.5, None, 0.8)
    return Profile(tuple(replace(point, selection=s, relative=r) for s, r in relative.items()), fitted)


def test_verdicts() -> None:
    sharp = profile_of({-1: -90, 0: -40, 0.5: -9, 1: 0, 1.5: -8, 2: -30})
    assert [point.selection for point in sharp.plausible] == [1]
    assert sharp.verdict().startswith("Identified, if decoder and missing model have the right form: people rate what ")
    assert "what they dislike" in profile_of({-2: -30, -1.2: -1, -1: 0, 0: -20}).verdict()
    assert profile_of({-1: -9, 0: -5, 0.5: -1, 1: 0, 2: -1, 3: -9}).verdict().startswith("Weakly identified")
    open_ended = profile_of({0: -5, 1: -1, 2: 0}).verdict()
    assert open_ended.startswith("Weakly identified")
    assert "perhaps values beyond those tried" in open_ended
    for flat in ({-1: -4, 0: -1, 1: 0, 2: -4}, {-1: -0.5, 0: -20, 1: 0}, {0: 0, 1: -5}):
        assert profile_of(flat).verdict().startswith("Not identified")
    assert "no selection by the rating at all" in profile_of({0: 0, 1: -5}).verdict()
    behind = profile_of({-1: -90, 0: 0, 1: -1600}).verdict()
    assert behind.startswith("The fitted selection is far from the best one found: train longer")
    # Where no selection was fitted.
    for none, words in (({-0.5: -9, 0: 0, 0.5: -7}, "near +0.00 nats"), ({-0.6: -9, -0.3: -1, 0: 0, 0.6: -7}, "-0.30")):
        text = profile_of(none, fitted=0.0).verdict()
        assert text.startswith("No selection by the rating, as far as this log tells: it goes with selections ")
        assert words in text
    open_ended = profile_of({-0.5: -9, 0: 0, 0.5: -1}, fitted=0.0).verdict()
    assert open_ended.startswith("Not identified: this log fits as well with no selection")
    assert "rest on there being none" in open_ended
    # What says the same of a log is not told apart by it, however badly its fit with the priors came out.
    likely = profile_of({-1: -90, 0: -40, 1: 0, 2: -30})
    assert likely.verdict().startswith("Identified")
    for same, words in ((-1, "of -1.00 and +1.00 nats"), (0, "from +0.00 to +1.00 nats")):
        points = tuple(replace(p, law_gap=1.0) if p.selection == same else p for p in likely.points)
        text = replace(likely, points=points).verdict()
        assert text.startswith("Not identified")
        assert "only priors set it apart" in text
        assert words in text
    # Unless the fitted model, to which that compares, is itself a bad fit.
    stuck = Profile(tuple(replace(p, law_gap=0.0) if p.selection == 0 else p for p in likely.points), fitted=0.1)
    assert not stuck.verdict().startswith("Not identified")
    assert "train longer" in stuck.verdict()
    assert "the level rests on the priors, the stated sign" in replace(likely, taste_is_exposed=True).verdict()
    # What the Monte Carlo error leaves open is open.
    assert profile_of({-1: -4, 0: -3, 1: 0, 2: -4}).verdict().startswith("Identified")
    assert profile_of({-1: -4, 0: -3, 1: 0, 2: -4}, error=1.0).verdict().startswith("Not identified")


@pytest.mark.slow
def test_a_strong_selection_is_seen_and_its_strength_recovered() -> None:
    data = simulate_ratings("monotone", n_users=800, n_items=60, seed=1, ratings_per_user=20)
    settings = {
        "missing": "shared",
        "inference": "variational",
        "exposure_size": 0,
        "exposure_sees_taste": False,
        "latent_size": 4,
    }
    fitted = MNARRecommender(max_steps=800, device="cpu", **settings).fit(data.train, seed=0).fitted
    profile = selection_profile(fitted, [0.0, 1.2, 2.4, 3.6], steps=200)
    best = max(profile.points, key=lambda point: point.relative)
    assert best.selection == 2.4  # truth: .6 a star
    assert best.relative == 0.0
    assert profile.points[0].relative < -20
    assert not profile.verdict().startswith("Not identified")
    means = [point.mean for point in profile.points]
    assert means == sorted(means, reverse=True)  # the more selection, the lower what was never rated
    assert profile.points[2].overlap > profile.points[0].overlap - 0.05


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "per_user"), [("popularity", 15), ("r3-like", 10)])
def test_held_out_users_judge_where_weights_are_points(preset: str, per_user: int) -> None:
    """In sample a slope is favoured even where the rating decides nothing: it takes part in the overfitting."""
    data = simulate_ratings(preset, n_users=1500, n_items=120, seed=1, ratings_per_user=per_user)
    settings = {"inference": "variational", "item_weights": "point", "validation_samples": 10, "device": "cpu"}
    fitted = MNARRecommender(max_steps=300, samples=4, patience=2, **settings).fit(data.train, seed=0).fitted
    profile = selection_profile(fitted, [-2.0, 0.0, 2.0, 4.0], steps=100)
    assert not profile.in_sample
    if preset == "popularity":
        assert profile.verdict().startswith("No selection by the rating, as far as this log tells")
        assert [point.selection for point in profile.plausible] == [0.0]
    else:
        assert min(point.selection for point in profile.plausible) > 0
        assert "people rate what they like" in profile.verdict()
