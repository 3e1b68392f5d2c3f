"""Figure 1b: with a feature missing above its mean, centre and direction are found again."""

import numpy as np
import pytest

from evaluation.paper.gaussian_example import COVARIANCE, principal_angle, run


def test_angles_of_directions() -> None:
    assert principal_angle(COVARIANCE) == pytest.approx(45)
    assert principal_angle(np.diag([1.0, 2.0])) in (pytest.approx(90), pytest.approx(-90))
    turned = np.array([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]])
    assert principal_angle(turned @ np.diag([3.0, 1.0]) @ turned.T) == pytest.approx(np.degrees(0.3))


@pytest.mark.slow
def test_not_miwae_sees_past_the_mask_and_ppca_does_not() -> None:
    example = run(iterations=8_000, learning_rate=1e-2)
    ppca, ours = example.fits
    assert abs(ours.mean[0] - example.truth.mean[0]) < 4 * example.mean_error[0]
    assert abs(ours.angle - example.truth.angle) < 4 * example.angle_error
    assert abs(ppca.mean[0] - example.truth.mean[0]) > 10 * example.mean_error[0]
    assert abs(ppca.angle - example.truth.angle) > 10 * example.angle_error
