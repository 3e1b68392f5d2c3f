"""The descent: to the minimum of a noisy loss, no longer than it gains, and loudly where it diverges."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from baselines.descent import descend
from mnar_recsys.errors import DivergedError


class NoisyQuadratic:
    """(x - 3)^2 with a noisy gradient; counts its calls."""

    def __init__(self) -> None:
        self.x = nn.Parameter(torch.zeros(()))
        self.calls = 0
        self.generator = torch.Generator().manual_seed(0)

    def __call__(self) -> Tensor:
        self.calls += 1
        return (self.x - 3.0).square() + torch.randn((), generator=self.generator) * self.x


def run(loss: NoisyQuadratic, *, gain: float = 0.05, slowing: int = 400) -> None:
    descend(loss, [loss.x], learning_rate=0.05, gain=gain, slowing=slowing, who="the test")


def test_a_falling_step_size_ends_closer_to_the_minimum_than_the_noise_alone() -> None:
    loss = NoisyQuadratic()
    run(loss)
    np.testing.assert_allclose(loss.x.item(), 3.0, atol=0.1)


def test_it_goes_on_while_there_is_a_gain_and_ends_after_two_rounds_without() -> None:
    eager, easily_content = NoisyQuadratic(), NoisyQuadratic()
    run(eager, slowing=1)
    # No fall is worth 1e9: the first round is the best, and two more are waited for.
    run(easily_content, gain=1e9, slowing=1)
    assert easily_content.calls == 301
    assert eager.calls > 301


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    x = nn.Parameter(torch.zeros(()))
    with pytest.raises(DivergedError, match="the test: the loss is not finite; lower learning_rate"):
        descend(lambda: x / 0.0, [x], learning_rate=0.1, gain=0.1, slowing=1, who="the test")
