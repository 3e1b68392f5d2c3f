"""The model card: what was fitted, to what, how sure it is, and what it is not for."""

import re

import numpy as np
import pytest
from factories import log_of, random_matrix

from mnar_recsys import MNARRecommender
from mnar_recsys.data import RatingLog
from mnar_recsys.model_card import certainty, mechanism, model_card

QUICK = {"max_steps": 6, "evaluate_every": 3, "samples": 4, "inference": "variational", "compile": "off"}


@pytest.fixture(scope="module")
def log() -> RatingLog:
    return log_of(random_matrix(30, 8))


def test_sections_and_figures(log: RatingLog) -> None:
    fitted = MNARRecommender(**QUICK).fit(log, seed=0).fitted
    card = model_card(fitted)
    headings = re.findall("^## (.*)$", card, re.MULTILINE)
    assert headings == [
        "Data", "Missingness", "Selection", "Training", "Intended use", "Limits", "Settings"
    ]  # fmt: skip
    counts = np.diff(log.indptr)
    low, middle, high = np.quantile(counts, [0.05, 0.5, 0.95])
    expected = f"Ratings of a user: median {middle:.0f}, 90 % from {low:.0f} to {high:.0f}; "
    assert f"{expected}{(counts == 0).sum()} users without any." in card
    assert "`mnar-recsys sensitivity` holds the selection at several values" in " ".join(card.split())
    assert "Not for judging single people" in card
    assert f"Effective importance samples of a user at the end: {fitted.history[-1]['ess']:.1f} of 4." in card
    assert "It ended at max_steps" in card


@pytest.mark.parametrize(
    ("changes", "expected", "sure"),
    [
        ({}, "the user's activity, a latent exposure of size 6 and the taste, and on the rating itself", "a point"),
        (
            {"exposure_size": 0, "exposure_sees_taste": False, "missing": "shared", "sign": "free"},
            "depend on the item, the user's activity, and on the rating itself (shared, sign free).",
            "a point",
        ),
        ({"missing": "ignorable"}, "taken as missing at random given these", "assumed, not learned"),
        (
            {"missing": "known", "known_propensities": ((1, 0.1), (3, 0.3))},
            "on the rating by a mechanism that was given",
            "assumed, not learned",
        ),
    ],
)
def test_the_mechanism_in_words(log: RatingLog, changes: dict[str, object], expected: str, sure: str) -> None:
    fitted = MNARRecommender(**QUICK, **changes).fit(log, seed=0).fitted
    assert expected in mechanism(fitted)
    assert sure in certainty(fitted)
    assert mechanism(fitted) in " ".join(model_card(fitted).split())
