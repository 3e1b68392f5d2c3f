import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnar_recsys.data import RatingScale
from mnar_recsys.errors import ConfigError, DataError


@pytest.mark.parametrize(
    ("ratings", "scale"),
    [
        ([1, 5, 3], RatingScale(1, 5, 1)),
        ([2, 4], RatingScale(2, 4, 1)),
        ([0.5, 5, 3], RatingScale(0.5, 5, 0.5)),
        ([0, 0.25, 1], RatingScale(0, 1, 0.25)),
        ([0.1, 0.4], RatingScale(0.1, 0.4, 0.1)),
        ([0, 10, 100], RatingScale(0, 100, 10)),
        ([1, 2, 100], RatingScale(1, 100)),
        ([0.13, 1.57, 2], RatingScale(0.13, 2)),
    ],
)
def test_the_coarsest_usual_grid_is_inferred(ratings, scale):
    inferred = RatingScale.infer(ratings)
    assert (inferred.low, inferred.high, inferred.step) == (scale.low, scale.high, scale.step)


@pytest.mark.parametrize(("ratings", "found"), [([3, 3], "only the rating 3"), ([], "no rating")])
def test_a_scale_of_one_point_cannot_be_inferred(ratings, found):
    with pytest.raises(DataError, match=found):
        RatingScale.infer(ratings)


@pytest.mark.parametrize(
    ("text", "ratings", "scale"),
    [
        ("1,5", None, RatingScale(1, 5, 1)),
        ("1, 5", [2, 3], RatingScale(1, 5, 1)),
        ("1,5", [2, 3.5], RatingScale(1, 5, 0.5)),
        ("1,5", [2, 3.3333], RatingScale(1, 5)),
        ("1,5", [2, 9], RatingScale(1, 5, 1)),
        ("0.5,5,0.5", None, RatingScale(0.5, 5, 0.5)),
        ("0,100,1", None, RatingScale(0, 100, 1)),
        ("0,1,real", [0, 1], RatingScale(0, 1)),
    ],
)
def test_written_scales(text, ratings, scale):
    assert RatingScale.parse(text, ratings) == scale


@pytest.mark.parametrize(
    "text", ["", "1", "a,b", "1,5,x", "1,5,1,1", "5,1", "1,1", "1,5,0.3", "1,5,-1", "0,inf", "nan,1"]
)
def test_unwritable_scales_are_refused(text):
    with pytest.raises(ConfigError, match="scale"):
        RatingScale.parse(text)


def test_levels_centre_and_half_width():
    scale = RatingScale(0.5, 5, 0.5)
    assert scale.n_levels == 10
    assert scale.levels is not None
    assert scale.levels[2] == 1.5
    assert (scale.centre, scale.half_width) == (2.75, 2.25)
    assert RatingScale(0, 1).levels is None
    assert RatingScale(0, 1).n_levels is None


@given(st.sampled_from([RatingScale(1, 5, 1), RatingScale(0.1, 1.9, 0.1), RatingScale(-10, 10, 0.01)]), st.data())
def test_level_index_survives_single_precision(scale, data):
    index = data.draw(st.integers(0, scale.n_levels - 1))
    assert scale.level_index(np.float32([scale.levels[index]])).tolist() == [index]
    assert scale.nearest_level(np.float32([scale.levels[index]])).tolist() == [scale.levels[index]]


@pytest.mark.parametrize("rating", [0, 6, 2.5, np.nan, np.inf])
def test_the_first_rating_off_the_scale_is_named(rating):
    with pytest.raises(DataError, match=r"position 1: found rating \S+, expected one of 5 levels from 1 to 5"):
        RatingScale(1, 5, 1).check([1, rating, 9])


def test_a_real_scale_has_no_levels_to_index():
    with pytest.raises(DataError, match="levels are needed"):
        RatingScale(0, 1).level_index([0.5])


def test_nearest_level_rounds_half_way_up_and_stays_inside():
    assert RatingScale(1, 5, 1).nearest_level([1.5, 2.5, 2.49, -3, 8]).tolist() == [2, 3, 2, 1, 5]
    assert RatingScale(0, 1).clip([-1, 0.5, 2]).tolist() == [0, 0.5, 1]


@pytest.mark.parametrize("scale", [RatingScale(1, 5, 1), RatingScale(0, 1)])
def test_json_round_trip(scale):
    assert RatingScale.from_dict(json.loads(json.dumps(scale.to_dict()))) == scale


@pytest.mark.parametrize(
    "values",
    [{}, {"low": 1, "high": 5}, {"low": "1", "high": 5, "step": 1}, {"low": None, "high": 5, "step": 1}],
)
def test_foreign_descriptions_are_refused(values):
    with pytest.raises(ConfigError, match="rating scale"):
        RatingScale.from_dict(values)


def test_descriptions():
    assert RatingScale(1, 5, 1).describe() == "5 levels from 1 to 5"
    assert RatingScale(0.5, 5, 0.5).describe() == "10 levels from 0.5 to 5 in steps of 0.5"
    assert RatingScale(0, 1).describe() == "the real numbers from 0 to 1"
