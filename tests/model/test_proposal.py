"""The proposal of importance samples: exact where the posterior is Gaussian, and good where it is not."""

import numpy as np
import pytest
import torch
from factories import LinearGaussian, log_of, random_matrix, tiny_model
from torch import Tensor

from mnar_recsys.data import RatingLog
from mnar_recsys.model import latent
from mnar_recsys.model.batch import UserBatch, make_batch
from mnar_recsys.model.bound import effective_sample_size
from mnar_recsys.model.decoders import OrdinalRatings
from mnar_recsys.model.decoders.ordinal_kernel import expand_log_unrated, sum_log_unrated_ordinal
from mnar_recsys.model.mnar_vae import MnarVae
from mnar_recsys.model.proposal import log_joint_density, propose, weighted_draws
from mnar_recsys.prediction.posterior import quasi_normal

LATENT = 3


@pytest.fixture(scope="module")
def log() -> RatingLog:
    return log_of(random_matrix(20, 12, seed=5))


@pytest.fixture(scope="module")
def selective(log: RatingLog) -> tuple[MnarVae, UserBatch]:
    model = tiny_model(
        log, seed=1, decoder="ordinal", missing="shared", latent_size=LATENT, exposure_size=1, user_activity=True
    )
    return model, make_batch(log, np.arange(1, 20))


def test_a_gaussian_posterior_is_found_exactly(log: RatingLog) -> None:
    """Probabilistic PCA: precision I + W^T W / sd^2 over the rated items, mean from the normal equations."""
    model = tiny_model(log, seed=3, decoder="gaussian", missing="ignorable", latent_size=LATENT)
    model.decoder.__class__ = LinearGaussian
    users = np.arange(1, 20)
    found = propose(model, make_batch(log, users), model.estimator(marginal=True))
    precisions = found.root @ found.root.mT
    weight, bias = model.decoder.weight[0].detach().numpy(), model.decoder.bias[0].detach().numpy()
    sd = float(torch.exp(model.decoder.log_sd.detach()))
    for place, user in enumerate(users):
        pairs = slice(log.indptr[user], log.indptr[user + 1])
        items, ratings = log.items[pairs], log.ratings[pairs]
        precision = np.eye(LATENT) + weight[items].T @ weight[items] / sd**2
        mode = np.linalg.solve(precision, weight[items].T @ (ratings - bias[items]) / sd**2)
        np.testing.assert_allclose(precisions[place], precision, atol=0.02)
        np.testing.assert_allclose(found.mode[place], mode, atol=1e-3)


def test_the_mode_has_no_gradient_and_the_curvature_is_the_hessian(selective: tuple[MnarVae, UserBatch]) -> None:
    model, batch = selective
    estimator = model.estimator(marginal=True)
    found = propose(model, batch, estimator)

    def log_joint(z: Tensor) -> Tensor:
        log_p_x, log_p_s, _ = model.log_likelihood(batch, z[None], estimator)
        return (log_p_x + log_p_s + latent.log_prior(z[None]))[0]

    mode = found.mode.clone().requires_grad_()
    at_mode = log_joint(mode)
    gradient = torch.autograd.grad(at_mode.sum(), mode)[0]
    assert gradient.abs().max() < 0.05  # the standard deviation of the posterior is of order one
    precision = found.root @ found.root.mT
    step = torch.randn(mode.shape, generator=torch.Generator().manual_seed(0)) * 0.1
    expected = -0.5 * torch.einsum("bi,bij,bj->b", step, precision, step)
    both = (log_joint(found.mode + step) + log_joint(found.mode - step)) / 2 - at_mode  # the odd terms cancel
    np.testing.assert_allclose(both.detach(), expected, rtol=0.05, atol=1e-4)


@pytest.mark.parametrize("has_offset", [True, False])
def test_the_ordinal_derivatives_are_those_of_the_term(has_offset: bool) -> None:
    generator = torch.Generator().manual_seed(2)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    cuts, table = torch.tensor([-1.0, 0.2, 0.9, 2.0], dtype=torch.float64), 2 * normal(5, 3)
    predictors = [3 * normal(1, 4, 3), *([2 * normal(1, 4, 3)] if has_offset else [])]
    unrated = torch.tensor([[1.0, 0.0, 2.5]] * 4, dtype=torch.float64)

    def term(*given: Tensor) -> Tensor:
        offset = given[1] if has_offset else None
        return sum_log_unrated_ordinal(given[0], cuts, table, offset, unrated)

    def plain(*given: Tensor) -> Tensor:  # twice differentiable
        free = torch.sigmoid(-(table if not has_offset else table + given[1].unsqueeze(-2)))  # (1, B, R, I)
        cells = OrdinalRatings(given[0], cuts, torch.arange(1.0, 6.0), 0.5)
        return (torch.log(cells.expectation(free)) * unrated).sum()

    torch.testing.assert_close(term(*predictors).sum(), plain(*predictors))
    slope, bend = expand_log_unrated(predictors[0], cuts, table, predictors[1] if has_offset else None, unrated)
    leaves = [predictor.requires_grad_() for predictor in predictors]
    torch.testing.assert_close(slope, torch.cat(torch.autograd.grad(plain(*leaves), leaves)))
    hessian = torch.autograd.functional.hessian(plain, tuple(predictors))
    for a, row in enumerate(hessian):
        for b, block in enumerate(row):
            cells = block.flatten(3).flatten(0, 2)
            torch.testing.assert_close(bend[a, b].flatten(), cells.diagonal())
            assert torch.count_nonzero(cells - torch.diag(cells.diagonal())) == 0  # no cell has a part in another's


@pytest.mark.parametrize("away", [0.0, 3.0, 30.0, 300.0])
def test_the_mode_is_found_however_far_off_the_encoder_is(monkeypatch: pytest.MonkeyPatch, away: float) -> None:
    """Users with hundreds of ratings: what the encoder sums over them is far from where the posterior is."""
    log = log_of(random_matrix(6, 400, seed=2, density=0.9))
    model = tiny_model(log, seed=1, decoder="ordinal", missing="shared", latent_size=LATENT, user_activity=True)
    batch, estimator = make_batch(log, np.arange(1, 6)), model.estimator(marginal=True)
    mean, log_sd = model.encoder(batch)
    direction = torch.randn(mean.shape, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(model.encoder, "forward", lambda _: (away * direction, log_sd))
    found = propose(model, batch, estimator)
    mode = found.mode.clone().requires_grad_()
    gradient = torch.autograd.grad(log_joint_density(model, batch, mode[None], estimator).sum(), mode)[0]
    left = torch.cholesky_solve(gradient[..., None], found.root)[..., 0]  # what another step would be
    assert left.norm(dim=-1).max() < 0.1


def test_more_of_its_draws_count_than_of_the_encoders(selective: tuple[MnarVae, UserBatch]) -> None:
    model, batch = selective
    noise = quasi_normal(256, model.latent_size, 0).expand(-1, batch.n_users, -1)
    with torch.no_grad():
        estimator = model.estimator(marginal=True)
        _, log_w = weighted_draws(model, batch, noise, estimator)
        encoded, _ = model.log_weights(batch, noise, estimator)
    ess = effective_sample_size(log_w)
    assert ess.min() > 0.6 * 256
    assert ess.mean() > 2 * effective_sample_size(encoded.total).mean()


def test_its_density_is_that_of_the_draws(selective: tuple[MnarVae, UserBatch]) -> None:
    """E_q[prior / q] = 1, and bounded: an eighth of the draws are from the prior."""
    model, batch = selective
    noise = quasi_normal(2**13, model.latent_size, 1).expand(-1, batch.n_users, -1)
    z, log_q = propose(model, batch, model.estimator(marginal=True)).draw(noise)
    ratio = torch.exp(latent.log_prior(z) - log_q)
    assert ratio.max() <= 8 + 1e-3
    np.testing.assert_allclose(ratio.mean(0), 1, atol=0.02)


def test_a_few_draws_are_all_near_the_mode(selective: tuple[MnarVae, UserBatch]) -> None:
    model, batch = selective
    found = propose(model, batch, model.estimator(marginal=True))
    z, log_q = found.draw(torch.zeros(1, batch.n_users, model.latent_size))
    np.testing.assert_allclose(z[0], found.mode, atol=1e-5)
    density = latent.log_prior(torch.zeros_like(z)) + found.root.diagonal(dim1=1, dim2=2).log().sum(-1)
    np.testing.assert_allclose(log_q, density, rtol=1e-4)
