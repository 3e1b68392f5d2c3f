"""A density scored as the probability that it rounds to a level."""

import numpy as np
import pytest
import torch
from factories import log_of, random_matrix, tiny_model
from scipy.stats import norm
from scipy.stats import t as student

from mnar_recsys.model.decoders import GaussianRatings
from mnar_recsys.model.decoders.student_t import StudentTRatings
from mnar_recsys.model.quadrature import gauss_hermite

LEVELS = np.arange(1.0, 6.0)
EDGES = np.array([-np.inf, 1.5, 2.5, 3.5, 4.5, np.inf])


def rounded(mean: list[float], sd: float) -> torch.Tensor:
    given = (torch.tensor(values, dtype=torch.float64) for values in (mean, [sd]))
    ratings = GaussianRatings(*given, gauss_hermite(8))
    return ratings.on_levels(torch.from_numpy(LEVELS))


@pytest.mark.parametrize("sd", [0.05, 0.6, 1.4, 8.0])
def test_masses_are_differences_of_the_normal_distribution_and_sum_to_one(sd: float) -> None:
    mean = [0.3, 1.0, 1.5, 2.9, 3.0, 4.6, 5.7]
    masses = rounded(mean, sd).support_weights.numpy()  # (R, I)
    np.testing.assert_allclose(masses.sum(0), 1, rtol=1e-12)
    np.testing.assert_allclose(masses, np.diff(norm.cdf(EDGES[:, None], mean, sd), axis=0), atol=1e-14)


def test_masses_far_out_do_not_cancel() -> None:
    """At 20 standard deviations and beyond, where differences of the distribution function are 0."""
    mean = [-20.0, 26.0]
    logs = torch.stack([rounded(mean, 1.0).log_prob(torch.tensor([level, level])) for level in LEVELS]).numpy()
    for place, level in enumerate(LEVELS):
        below, above = norm.logsf(EDGES[place], -20), norm.logsf(EDGES[place + 1], -20)
        assert logs[place, 0] == pytest.approx(below + np.log1p(-np.exp(above - below)), rel=1e-9)
        assert logs[place, 1] == pytest.approx(logs[4 - place, 0], rel=1e-9), level  # the mirror image


@pytest.mark.parametrize("df", [2.5, 9.0])
def test_masses_of_a_student_t_are_differences_of_its_distribution(df: float) -> None:
    mean = torch.tensor([0.3, 1.0, 2.9, 5.7])
    ratings = StudentTRatings(mean, torch.tensor([0.6]), torch.tensor([df]), gauss_hermite(8))
    found = ratings.on_levels(torch.from_numpy(LEVELS).float())
    wanted = np.diff(student.cdf((EDGES[:, None] - mean.numpy()) / 0.6, df), axis=0)
    np.testing.assert_allclose(found.support_weights, wanted, atol=2e-5)
    for place, level in enumerate(LEVELS):
        logs = found.log_prob(torch.full((4,), level, dtype=torch.float32))
        np.testing.assert_allclose(logs.exp(), wanted[place], atol=2e-5)


def test_a_rounded_decoder_shares_the_weights_and_leaves_the_original_alone() -> None:
    model = tiny_model(log_of(random_matrix(7, 5, seed=2)), decoder="gaussian", missing="shared", seed=1)
    levels = torch.tensor([1.0, 2.0, 3.0])
    other = model.decoder.on_levels(levels)
    z = torch.linspace(-1, 1, 4)[:, None, None]
    before = other.cells(z).support_weights
    with torch.no_grad():
        model.decoder.bias.add_(1.0)
    assert (other.cells(z).support_weights[..., 2, :] > before[..., 2, :]).all()
    assert isinstance(model.decoder.cells(z), GaussianRatings)
    for level_decoder in ("ordinal", "categorical"):
        decoder = tiny_model(log_of(random_matrix(7, 5, seed=2)), decoder=level_decoder).decoder
        assert decoder.on_levels(levels) is decoder
