"""The slope of a stated sign, and its prior."""

import math

import pytest
import torch

from mnar_recsys.model.missing.base import TYPICAL_SELECTION, Slope


@pytest.mark.parametrize("size", [1, 4])
@pytest.mark.parametrize("sign", ["positive", "negative"])
def test_the_prior_is_log_normal_in_the_selection_between_the_ends(sign: str, size: int) -> None:
    slope = Slope(sign, 4.0, size)
    prior = torch.distributions.Normal(math.log(TYPICAL_SELECTION), 0.5)
    start = slope.log_prior(0.5)
    assert float(start.detach()) == pytest.approx(0.0, abs=1e-6)  # it starts at the median
    with torch.no_grad():
        slope.raw.copy_(torch.linspace(-1.0, 2.0, size))
    selection = 4.0 * slope().abs().mean()
    expected = prior.log_prob(torch.log(selection)) - prior.log_prob(prior.loc)
    torch.testing.assert_close(slope.log_prior(0.5), expected)


def test_a_free_slope_and_no_sd_have_no_prior() -> None:
    assert Slope("free", 4.0).log_prior(0.5) == 0.0
    assert Slope("positive", 4.0).log_prior(None) == 0.0


@pytest.mark.parametrize("units", [4.0, 9.0])
def test_a_signed_slope_starts_at_a_typical_selection_over_the_scale(units: float) -> None:
    assert units * Slope("positive", units).forward().item() == pytest.approx(TYPICAL_SELECTION)
    assert units * Slope("negative", units).forward().item() == pytest.approx(-TYPICAL_SELECTION)
