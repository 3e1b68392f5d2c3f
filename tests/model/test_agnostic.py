"""The missing model of whole rows: against its self-masking case, against enumeration, and where it is needed."""

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from exact import level_probabilities, normal_grid
from factories import THREE_LEVELS, log_of, random_matrix, tiny_model
from numpy.typing import NDArray
from scipy.special import expit

from mnar_recsys import MNARRecommender
from mnar_recsys.config import ModelConfig, Settings
from mnar_recsys.data import RatingLog
from mnar_recsys.data.eligible import EligibleCells
from mnar_recsys.errors import ConfigError
from mnar_recsys.model import missing_term
from mnar_recsys.model.batch import make_batch
from mnar_recsys.model.bound import importance_bound
from mnar_recsys.model.build import build_model
from mnar_recsys.model.missing import agnostic
from mnar_recsys.model.mnar_vae import MnarVae
from mnar_recsys.prediction import Predictor
from mnar_recsys.sensitivity import selection_profile
from mnar_recsys.training import Trainer

NAN = np.nan
MATRIX = np.array([[3, NAN, 1, NAN], [NAN, 2, NAN, NAN], [3, 3, 1, 2], [NAN, NAN, NAN, NAN]])
ON_OFFER = np.array([[1, 1, 1, 0], [0, 1, 0, 1], [1, 1, 1, 1], [0, 1, 0, 0]], dtype=bool)
LEVELS = np.array([1.0, 2.0, 3.0])


def drawn_weights(model: MnarVae, log: RatingLog, samples: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Log p(s|x) and log w under the sampled estimator: (S, B), (S, B)."""
    generator = torch.Generator().manual_seed(5)
    noise = torch.randn(samples, log.n_users, model.latent_size, generator=generator)
    cell_noise = model.decoder.noise((samples, log.n_users, log.n_items), generator)
    batch = make_batch(log, np.arange(log.n_users))
    weights, _ = model.log_weights(batch, noise, model.estimator(marginal=False), cell_noise)
    return weights.log_p_s, weights.total


@pytest.mark.parametrize("decoder", ["gaussian", "categorical", "student-t"])
@pytest.mark.parametrize("settings", [{}, {"user_activity": True, "exposure_size": 2}], ids=["plain", "exposure"])
@pytest.mark.parametrize("sign", ["free", "positive"])
def test_a_diagonal_map_is_the_self_masking_model(decoder: str, settings: dict[str, object], sign: str) -> None:
    log = log_of(random_matrix(9, 5, seed=2))
    # Soft draws: of a linear logit the mean over the levels is the logit of the mean rating.
    options = {"decoder": decoder, "sign": sign, "gumbel_temperature": 0.5, **settings}
    one, other = (tiny_model(log, seed=3, missing=kind, **options) for kind in ("per-item", "agnostic"))
    other.load_state_dict(one.state_dict(), strict=False)
    with torch.no_grad():
        other.missing.weight.copy_(torch.diag(torch.arange(1.0, 6.0)))  # its diagonal is that of the slopes
    found = []
    for model in (one, other):
        log_p_s, total = drawn_weights(model, log, 7)
        model.missing.slope.raw.grad = None
        log_p_s.sum().backward()
        found.append((log_p_s, total, model.missing.slope.raw.grad, model.decoder.weight.grad))
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        other.missing.weight[0, 1] = 1.0
        assert not torch.allclose(drawn_weights(other, log, 7)[0], found[0][0])


def completions(model: MnarVae, row: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Every completion of a row, (C, P), and p(x_obs, x_mis | z) of each at points of z, (G, C)."""
    complete = np.array([filling for filling in product(LEVELS, repeat=len(row)) if _agrees(filling, row)])
    p = level_probabilities(model, normal_grid(121)[0])
    index = np.searchsorted(LEVELS, complete)
    return complete, np.prod([p[:, j, index[:, j]] for j in range(len(row))], axis=0)


def _agrees(filling: tuple[float, ...], row: NDArray[np.float64]) -> bool:
    return all(np.isnan(given) or value == given for value, given in zip(filling, row, strict=True))


def probability_of_rating(model: MnarVae, rows: NDArray[np.float64], centre: float) -> NDArray[np.float64]:
    """Pi of every cell of complete rows, from the raw parameters: (C, P) -> (C, P)."""
    raw = {name: value.detach().double().numpy() for name, value in model.missing.named_parameters()}
    x = (rows - centre) / 0.5  # a quarter of the range from 1 to 3 is one half
    logit = raw["item_bias"] + raw["slope.raw"] * x
    if "inner.weight" in raw:
        return expit(logit + np.tanh(x @ raw["inner.weight"].T + raw["inner.bias"]) @ raw["weight"].T)
    return expit(logit + x @ (raw["weight"] - np.diag(np.diag(raw["weight"]))).T)


@pytest.fixture(params=[0, 2], ids=["linear", "mlp"])
def case(request: pytest.FixtureRequest) -> tuple[RatingLog, MnarVae]:
    """A log with a survey and cells that were not on offer."""
    bare = log_of(MATRIX)
    marks = np.arange(bare.n_ratings) == bare.n_ratings - 1  # item 3 of user 2 was asked about
    log = replace(bare, surveyed=marks, eligible=EligibleCells.from_cells(np.flatnonzero(ON_OFFER), 4, 4))
    model = tiny_model(log, seed=3, missing="agnostic", sign="free", agnostic_hidden=request.param)
    return log, model


def masks(user: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Where s is 1, and where there is an s at all."""
    chosen = ~np.isnan(MATRIX[user])
    if user == 2:
        chosen = chosen & (np.arange(4) != 3)
    return chosen, ON_OFFER[user]


def test_bound_is_the_enumerated_likelihood(case: tuple[RatingLog, MnarVae]) -> None:
    log, model = case
    centre = float(log.ratings[~log.surveyed].mean())
    exact = []
    for user, row in enumerate(MATRIX):
        complete, p = completions(model, row)
        chosen, has_s = masks(user)
        pi = probability_of_rating(model, complete, centre)
        p_mask = np.where(has_s, np.where(chosen, pi, 1 - pi), 1.0).prod(1)
        exact.append(math.log(normal_grid(121)[1] @ p @ p_mask))
    with torch.no_grad():
        log_w = drawn_weights(model, log, 40_000)[1].double()
    w = torch.exp(log_w - log_w.max())
    error = (w.std(0) / w.mean(0)).numpy() / math.sqrt(len(w))
    assert error.max() < 0.04
    np.testing.assert_array_less(np.abs(importance_bound(log_w).numpy() - exact), 3 * error + 1e-5)


def test_predictions_are_the_papers_with_propensities_of_drawn_rows(case: tuple[RatingLog, MnarVae]) -> None:
    log, model = case
    centre = float(log.ratings[~log.surveyed].mean())
    prior = normal_grid(121)[1]
    users, items = np.array([0, 0, 1, 1, 2]), np.array([1, 0, 2, 3, 3])
    found = Predictor(model, log, draws=2**15).predict(users, items, levels=True)
    p_level = level_probabilities(model, normal_grid(121)[0])
    for place, (user, item) in enumerate(zip(users, items, strict=True)):
        complete, p = completions(model, MATRIX[user])
        chosen, has_s = masks(user)
        pi = probability_of_rating(model, complete, centre)
        joint = prior[:, None] * p * np.where(has_s, np.where(chosen, pi, 1 - pi), 1.0).prod(1)
        joint /= joint.sum()
        error = 4 / math.sqrt(found.ess[place])
        assert error < 0.06
        np.testing.assert_allclose(found.levels[place], joint.sum(1) @ p_level[:, item], atol=error)
        assert found.propensity[place] == pytest.approx((joint @ pi[:, item]).sum(), abs=error)
    # Someone without ratings: the row is drawn from the prior, and nothing is held against it.
    cold = Predictor(model, log, draws=2**13).predict(np.array([3]), np.array([0]))
    complete, p = completions(model, MATRIX[3])
    expected = prior @ p @ probability_of_rating(model, complete, centre)[:, 0]
    assert cold.propensity[0] == pytest.approx(expected, abs=0.02)


def test_the_gradient_reaches_every_weight_and_is_that_of_the_bound(case: tuple[RatingLog, MnarVae]) -> None:
    log, _ = case
    hidden = 0 if case[1].missing.inner is None else 2
    model = tiny_model(
        log, seed=3, decoder="gaussian", missing="agnostic", sign="free", agnostic_hidden=hidden, user_activity=True
    )
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(6, 4, 2, generator=generator)
    cell_noise = model.decoder.noise((6, 4, 4), generator)

    def bound() -> torch.Tensor:
        batch = make_batch(log, np.arange(4))
        weights, _ = model.log_weights(batch, noise, model.estimator(marginal=False), cell_noise)
        return importance_bound(weights.total.double()).sum()

    bound().backward()
    for name, parameter in model.missing.named_parameters():
        gradient = parameter.grad
        if name == "weight" and not hidden:
            assert (gradient.diagonal() == 0).all()
            gradient = gradient + torch.eye(4)
        assert (gradient != 0).all(), name
        place = tuple(size - 1 for size in parameter.shape)
        place = (0, 1) if name == "weight" else place
        with torch.no_grad():
            values = []
            for step in (1e-2, -1e-2):
                parameter[place] += step
                values.append(bound().item())
                parameter[place] -= step
        assert parameter.grad[place].item() == pytest.approx((values[0] - values[1]) / 2e-2, rel=1e-2, abs=1e-3), name


def test_neither_blocks_nor_recomputation_change_value_or_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    log = log_of(random_matrix(7, 5, seed=2))
    model = tiny_model(log, missing="agnostic", user_activity=True, exposure_size=2)
    batch = make_batch(log, np.arange(7))
    generator = torch.Generator().manual_seed(0)
    z, z_x = torch.randn(3, 7, 1, generator=generator), torch.randn(3, 7, 3, generator=generator)
    noise = model.decoder.noise((3, 7, 5), generator)
    term, results = model.estimator(marginal=False), []
    for cells, stored in ((1, 0), (3 * 5 * 2, 0), (10**6, 10**6)):
        monkeypatch.setattr(missing_term, "STORED_CELLS", stored)
        model.zero_grad()
        value = term(z, z_x, batch, noise, block_cells=cells)
        value.sum().backward()
        results.append([value.detach(), model.missing.weight.grad.clone(), model.decoder.weight.grad.clone()])
    for other in results[1:]:
        for mine, theirs in zip(results[0], other, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_the_estimator_is_decided_and_a_marginal_one_refused() -> None:
    def resolved(**settings: str) -> str:
        return Settings().replace(settings).model.resolve(has_levels=True, n_ratings=100, all_items=True).estimator

    assert resolved() == "marginal"
    assert resolved(missing="agnostic") == "sampled"
    assert resolved(missing="per-item", estimator="sampled") == "sampled"
    with pytest.raises(ConfigError, match=r"has no marginal form.*--set estimator=sampled"):
        Settings().replace({"missing": "agnostic", "estimator": "marginal"})
    model = tiny_model(log_of(MATRIX), missing="agnostic")
    with pytest.raises(ValueError, match="no marginal form"):
        model.estimator(marginal=True)
    with pytest.raises(ValueError, match="whole row"):
        model.missing.logit(torch.ones(1, 4), slice(None))


def test_too_many_items_are_refused_unless_there_are_hidden_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mnar_recsys.model.build.MAX_ITEMS", 3)
    assert agnostic.MAX_ITEMS == 2000
    config = ModelConfig(missing="agnostic")
    with pytest.raises(ConfigError, match=r"at most 3 of them; found 4\. Set agnostic_hidden"):
        build_model(config, log_of(MATRIX), 0)
    assert build_model(config.model_copy(update={"agnostic_hidden": 2}), log_of(MATRIX), 0).missing.weight.shape == (
        4,
        2,
    )


def test_own_effect_of_a_rating_is_the_slope_of_its_log_odds(case: tuple[RatingLog, MnarVae]) -> None:
    _, model = case
    rows = torch.full((4,), model.missing.centre, requires_grad=True)
    own = torch.autograd.functional.jacobian(model.missing.row_logit, rows).diagonal().mean()
    ends = model.missing.selection(torch.tensor([1.0, 3.0]))
    torch.testing.assert_close(ends[1] - ends[0], 2 * own)


def test_prior_is_that_of_independent_normals(case: tuple[RatingLog, MnarVae]) -> None:
    _, model = case
    missing = model.missing
    found, sizes = missing.log_prior(None), {"linear": 4, "mlp": 2}
    width = sizes["linear" if missing.inner is None else "mlp"]
    expected = torch.distributions.Normal(0.0, 0.5 / math.sqrt(width)).log_prob(missing.weight).sum()
    at_zero = width * 4 * torch.distributions.Normal(0.0, 0.5 / math.sqrt(width)).log_prob(torch.zeros(()))
    if missing.inner is not None:
        inner = torch.distributions.Normal(0.0, 0.5)
        expected = expected + inner.log_prob(missing.inner.weight).sum()
        at_zero = at_zero + 8 * inner.log_prob(torch.zeros(()))
    torch.testing.assert_close(found, expected - at_zero, rtol=1e-4, atol=1e-4)
    missing.prior_sd = None
    assert missing.log_prior(None) == 0


def cross_selected(n_users: int) -> RatingLog:
    """Item 0 is rated by those who like item 1, and item 1 whatever they think of it."""
    rng = np.random.default_rng(0)
    taste = rng.normal(size=(n_users, 1))
    ratings = np.clip(np.round(2 + 0.6 * taste + 0.7 * rng.normal(size=(n_users, 6))), 1, 3)
    logit = np.zeros(ratings.shape)
    logit[:, 0], logit[:, 1] = 4 * (ratings[:, 1] - 2), 2
    return log_of(np.where(rng.random(ratings.shape) < expit(logit), ratings, NAN), THREE_LEVELS)


@pytest.mark.slow
def test_it_explains_what_self_masking_cannot() -> None:
    log = cross_selected(2000)
    bounds = {}
    for kind in ("per-item", "agnostic"):
        settings = Settings().replace(
            {"missing": kind, "sign": "free", "exposure_size": 0, "exposure_sees_taste": False, "user_activity": False,
             "item_weights": "point", "latent_size": 2, "stop": "held-out", "max_steps": 300, "device": "cpu",
             "validation_samples": 50, "holdout_share": 0.4}
        )  # fmt: skip
        model = build_model(settings.model, log, 0)
        trainer = Trainer(model, log, settings, seed=0)
        trainer.run()
        # That of per-item has the missing ratings summed out, which can only help it.
        bounds[kind] = trainer.held_out_bound()
    gain = bounds["agnostic"] - bounds["per-item"]
    assert gain.mean() > 5 * gain.std() / math.sqrt(len(gain))
    weight = (model.missing.weight.detach() * (1 - torch.eye(6))).abs()
    assert model.missing.weight[0, 1] > 0.7
    assert weight[0, 1] > 3 * weight.flatten().sort().values[-2]


def test_sensitivity_refuses_it() -> None:
    fitted = MNARRecommender(missing="agnostic", max_steps=2, evaluate_every=1, samples=2, device="cpu").fit(
        log_of(random_matrix(12, 5, seed=1))
    )
    assert np.isfinite(fitted.predictor.predict(np.arange(12), np.arange(12) % 5).mean).all()
    with pytest.raises(ConfigError, match="'agnostic' has none"):
        selection_profile(fitted.fitted)
