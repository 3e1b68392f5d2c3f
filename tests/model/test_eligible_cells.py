"""Cells that were not on offer have no s: likelihood, gradient, starting values and predictions."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from exact import enumerate_model
from factories import log_of, random_matrix, tiny_model
from scipy.special import logit

from mnar_recsys.config import ModelConfig
from mnar_recsys.data import RatingLog
from mnar_recsys.data.eligible import EligibleCells
from mnar_recsys.model.batch import make_batch
from mnar_recsys.model.bound import importance_bound
from mnar_recsys.model.build import build_model
from mnar_recsys.model.mnar_vae import MnarVae
from mnar_recsys.prediction import Predictor

NAN = np.nan
MATRIX = np.array([[3, NAN, 1, NAN], [NAN, 2, NAN, NAN], [3, 3, 1, 2], [NAN, NAN, NAN, NAN]])
# User 0 was not offered item 3, user 1 neither 0 nor 2, user 3 only item 1.
ON_OFFER = np.array([[1, 1, 1, 0], [0, 1, 0, 1], [1, 1, 1, 1], [0, 1, 0, 0]], dtype=bool)
SELECTION = 1.3 * (np.array([1.0, 2.0, 3.0]) - 15 / 7) / 0.5  # a quarter of the range is one half


def offered(log: RatingLog, dense: np.ndarray) -> RatingLog:
    return replace(log, eligible=EligibleCells.from_cells(np.flatnonzero(dense), *dense.shape))


@pytest.fixture(scope="module")
def log() -> RatingLog:
    return offered(log_of(MATRIX), ON_OFFER)


def model_of(log: RatingLog, kind: str = "shared", **settings: object) -> MnarVae:
    model = tiny_model(log, seed=3, missing=kind, sign="free", **settings)
    if kind == "shared":
        with torch.no_grad():
            model.missing.slope.raw.fill_(1.3)
    return model


def log_weights(model: MnarVae, log: RatingLog, *, marginal: bool, samples: int = 20_000) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    noise = torch.randn(samples, log.n_users, model.latent_size, generator=generator)
    cell_noise = None if marginal else model.decoder.noise((samples, log.n_users, log.n_items), generator)
    batch = make_batch(log, np.arange(log.n_users))
    return model.log_weights(batch, noise, model.estimator(marginal=marginal), cell_noise)[0].total.double()


@pytest.mark.parametrize("marginal", [True, False], ids=["marginal", "sampled"])
@pytest.mark.parametrize("exposure", [{}, {"user_activity": True}, {"exposure_size": 1}], ids=["none", "act", "latent"])
@pytest.mark.parametrize("kind", ["shared", "ignorable"])
def test_bound_is_the_enumerated_likelihood(
    *, log: RatingLog, kind: str, exposure: dict[str, object], marginal: bool
) -> None:
    model = model_of(log, kind, **exposure)
    enumeration = enumerate_model(model, log, SELECTION if kind == "shared" else np.zeros(3))
    gaps = [np.flatnonzero(~row) for row in ON_OFFER]
    exact = [enumeration.log_evidence(row, ineligible=gap) for row, gap in zip(MATRIX, gaps, strict=True)]
    with torch.no_grad():
        log_w = log_weights(model, log, marginal=marginal)
    error = (torch.exp(log_w).std(0) / torch.exp(log_w).mean(0)).numpy() / np.sqrt(len(log_w))
    assert error.max() < 0.04
    np.testing.assert_array_less(np.abs(importance_bound(log_w).numpy() - exact), 3 * error + 1e-5)
    # The offer matters: had all been on offer, the likelihood would be another one.
    complete = [enumeration.log_evidence(row) for row in MATRIX[[0, 1, 3]]]
    assert (np.abs(np.array(complete) - np.array(exact)[[0, 1, 3]]) > 0.1).all()


@pytest.mark.parametrize("could_be_rated", [True, False])
def test_a_surveyed_cell_that_was_not_on_offer_has_no_s(log: RatingLog, could_be_rated: bool) -> None:
    marks = np.zeros(log.n_ratings, dtype=bool)
    marks[[0, -1]] = True  # items 0 of user 0 and 3 of user 2 were asked about
    on_offer = ON_OFFER.copy()
    on_offer[0, 0] = False
    surveyed = offered(replace(log, surveyed=marks), on_offer)
    model = tiny_model(surveyed, seed=3, missing="ignorable", survey_could_be_rated=could_be_rated)
    enumeration = enumerate_model(model, surveyed, np.zeros(3))
    exact = [
        enumeration.log_evidence(MATRIX[0], [0], could_be_rated=could_be_rated, ineligible=[0, 3]),
        enumeration.log_evidence(MATRIX[2], [3], could_be_rated=could_be_rated),
    ]
    with torch.no_grad():
        log_w = log_weights(model, surveyed, marginal=True)[:, [0, 2]]
    np.testing.assert_allclose(importance_bound(log_w).numpy(), exact, atol=0.05)


@pytest.mark.parametrize("marginal", [True, False], ids=["marginal", "sampled"])
@pytest.mark.parametrize("settings", [{}, {"user_activity": True, "exposure_size": 2}], ids=["plain", "exposure"])
@pytest.mark.parametrize("kind", ["ignorable", "shared"])
def test_items_never_on_offer_change_neither_bound_nor_gradient(
    kind: str, settings: dict[str, object], marginal: bool
) -> None:
    matrix = random_matrix(7, 5, seed=2)
    small = log_of(matrix)
    # Two more items, at the first and a middle place, that nobody was offered.
    places = np.array([1, 2, 4, 5, 6])
    wide = np.full((7, 7), np.nan)
    wide[:, places] = matrix
    on_offer = np.zeros((7, 7), dtype=bool)
    on_offer[:, places] = True
    large = offered(log_of(wide), on_offer)
    models = [tiny_model(log, seed=1, missing=kind, **settings) for log in (small, large)]
    kept = dict(models[0].named_parameters())
    with torch.no_grad():
        for name, value in models[1].named_parameters():
            axes = [axis for axis in range(value.dim()) if value.shape[axis] != kept[name].shape[axis]]
            if axes:
                value.index_copy_(axes[0], torch.from_numpy(places), kept[name])
            else:
                value.copy_(kept[name])
    noise = torch.randn(6, 7, models[0].latent_size, generator=torch.Generator().manual_seed(0))
    cell_noise = models[1].decoder.noise((6, 7, 7), torch.Generator().manual_seed(1))
    bounds = []
    for model, log, cells in zip(models, (small, large), (cell_noise[..., places], cell_noise), strict=True):
        estimator = model.estimator(marginal=marginal)
        weights, _ = model.log_weights(make_batch(log, np.arange(7)), noise, estimator, cells)
        bounds.append(importance_bound(weights.total))
        bounds[-1].sum().backward()
    torch.testing.assert_close(bounds[1], bounds[0], rtol=1e-5, atol=1e-5)
    for name, value in models[1].named_parameters():
        if value.shape != kept[name].shape:
            axis = next(axis for axis in range(value.dim()) if value.shape[axis] == 7)
            assert (value.grad.index_select(axis, torch.tensor([0, 3])) == 0).all(), name
            torch.testing.assert_close(
                value.grad.index_select(axis, torch.from_numpy(places)), kept[name].grad, rtol=1e-4, atol=1e-5
            )


def test_blocks_and_strangers_keep_their_offer(log: RatingLog) -> None:
    batch = make_batch(log, np.array([2, 0, 3, 1]))
    expected = np.isnan(MATRIX) & ON_OFFER
    np.testing.assert_array_equal(batch.unrated(4).numpy(), expected[[2, 0, 3, 1]])
    np.testing.assert_array_equal(batch.block(1, 3).unrated(4).numpy(), expected[[0, 3]])
    np.testing.assert_array_equal(batch.after_a_stranger().unrated(4)[1:].numpy(), expected[[2, 0, 3, 1]])


def test_items_start_at_their_log_odds_among_those_who_met_them(log: RatingLog) -> None:
    start = build_model(ModelConfig(missing="ignorable"), log, 0).missing.item_bias.detach().numpy()
    rated, met = np.array([2, 2, 2, 1]), np.array([2, 4, 2, 2])
    np.testing.assert_allclose(start, logit((rated + 0.5) / (met + 1)), rtol=1e-5)


def test_a_cell_that_was_not_on_offer_is_predicted_without_its_own_missingness(log: RatingLog) -> None:
    model = model_of(log)
    enumeration = enumerate_model(model, log, SELECTION)
    levels = np.array([1.0, 2.0, 3.0])
    users, items = np.array([0, 0, 1, 1]), np.array([1, 3, 0, 3])
    found = Predictor(model, log, draws=2**14).predict(users, items, levels=True)
    for place, (user, item) in enumerate(zip(users, items, strict=True)):
        row, gaps = MATRIX[user], np.flatnonzero(~ON_OFFER[user])
        p = enumeration.p[:, item]
        if ON_OFFER[user, item]:
            p = p * (1 - enumeration.pi[:, item])
            p /= p.sum(-1, keepdims=True)
        expected = enumeration.posterior(row, ineligible=gaps) @ p
        np.testing.assert_allclose(found.levels[place], expected, atol=2e-3)
        assert found.mean[place] == pytest.approx(expected @ levels, abs=3e-3)
