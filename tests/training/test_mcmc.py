"""Sampling: against a posterior known by enumeration, its seed, its folder, its refusals, its predictions."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exact import Enumeration, enumerate_model, level_probabilities
from factories import log_of, random_matrix, tiny_model
from scipy import stats
from scipy.special import expit

from mnar_recsys import MNARRecommender
from mnar_recsys.config import Settings
from mnar_recsys.data import RatingLog
from mnar_recsys.errors import ConfigError, ModelFolderError
from mnar_recsys.model.missing.base import TYPICAL_SELECTION
from mnar_recsys.model.posterior_draws import PosteriorDraws, SamplingReport
from mnar_recsys.prediction import UNKNOWN, Predictor
from mnar_recsys.prediction.predictor import DRAWS_EACH
from mnar_recsys.training import Trainer, mcmc
from mnar_recsys.training.mcmc import ChainState, check_can_sample, sample_posterior

MATRIX = random_matrix(9, 4, seed=3, density=0.5)
QUICK: dict[str, Any] = {
    "inference": "mcmc", "mcmc_chains": 2, "mcmc_warmup": 20, "mcmc_draws": 20, "mcmc_kept": 12, "latent_size": 2,
    "exposure_size": 1, "max_steps": 20, "evaluate_every": 10, "samples": 3, "batch_size": 10, "code_size": 5,
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def short_trajectories() -> Iterator[None]:
    """Seconds, not minutes: of at most 7 steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mcmc, "_MAX_TREE_DEPTH", 3)
        yield


@pytest.fixture(scope="module")
def log() -> RatingLog:
    return log_of(MATRIX)


@pytest.fixture(scope="module")
def fitted(log: RatingLog) -> MNARRecommender:
    return MNARRecommender(**QUICK).fit(log, seed=1)


def draws_of(model: MNARRecommender) -> PosteriorDraws:
    draws = model.fitted.draws
    assert draws is not None
    return draws


def all_pairs(log: RatingLog) -> tuple[np.ndarray, np.ndarray]:
    users, items = (index.ravel() for index in np.indices((log.n_users, log.n_items)))
    return users, items


def test_the_chain_finds_a_posterior_that_is_known() -> None:
    """Of the selection and one user's latent, all else fixed, with every completion of the ratings enumerated."""
    matrix = np.array([[3, 3, np.nan], [3, np.nan, np.nan], [2, 3, np.nan], [np.nan, 3, 1], [np.nan, np.nan, 3]])
    log = log_of(matrix)
    settings = {"decoder": "ordinal", "missing": "shared", "item_weights": "variational"}
    model = tiny_model(log, seed=5, **settings)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in ("missing.slope.raw", "encoder.log_sd_bias"))
    changes = {"selection_prior_sd": 0.8, "mcmc_warmup": 50, "mcmc_draws": 200, "mcmc_kept": 200, "mcmc_chains": 1}
    chosen = Settings().replace({**settings, "inference": "mcmc", **changes})
    draws = sample_posterior(Trainer(model, log, chosen, seed=0))

    levels = np.array([1.0, 2.0, 3.0])
    centred = (levels - model.missing.centre) / model.missing.unit
    grid = np.linspace(np.log(0.05), np.log(30), 60)  # of the log selection between the ends, 4 units
    tables = [enumerate_model(model, log, np.exp(at) / 4 * centred) for at in grid]
    log_density = stats.norm.logpdf(grid, np.log(TYPICAL_SELECTION), 0.8)
    log_density += [sum(table.log_evidence(row) for row in matrix) for table in tables]
    share = np.exp(log_density - log_density.max())
    share /= share.sum()
    points = np.linspace(-7, 7, 121)  # as ``exact`` has them
    latent = np.array([table.posterior(matrix[0]) for table in tables]).T @ share

    assert set(draws.parameters) == {"missing.slope.raw", "decoder.weight"}
    found = np.log(4 * torch.nn.functional.softplus(draws.parameters["missing.slope.raw"][:, 0]).numpy())
    # Latents and weights may have changed their sign together, to that of the encoder.
    sign = draws.parameters["decoder.weight"][:, 0, 0, 0] / model.decoder.weight[0, 0, 0].detach()
    first = (draws.z[:, 0, 0] * sign).numpy()
    monitored = draws.report.monitored[0]
    assert monitored.name.startswith("selection")
    assert monitored.ess > 40
    for values, at, weights in ((found, grid, share), (first, points, latent)):
        mean = weights @ at
        sd = np.sqrt(weights @ (at - mean) ** 2)
        assert values.mean() == pytest.approx(mean, abs=4 * sd / np.sqrt(monitored.ess))
        assert values.std() == pytest.approx(sd, rel=0.3)


def test_the_same_seed_gives_the_same_draws_and_leaves_no_trace(log: RatingLog, fitted: MNARRecommender) -> None:
    before = torch.random.get_rng_state()
    again = draws_of(MNARRecommender(**QUICK).fit(log, seed=1))
    assert torch.equal(torch.random.get_rng_state(), before)
    for name, values in draws_of(fitted).tensors().items():
        assert torch.equal(again.tensors()[name], values)
    assert not torch.equal(draws_of(MNARRecommender(**QUICK).fit(log, seed=2)).z, again.z)
    # What is left in the model itself is their mean.
    for name, values in draws_of(fitted).parameters.items():
        torch.testing.assert_close(dict(fitted.fitted.model.named_parameters())[name].detach(), values.mean(0))


def test_what_is_told_of_the_chains(log: RatingLog) -> None:
    states: list[ChainState] = []
    model = MNARRecommender(**QUICK).fit(log, seed=1, on_draw=states.append)
    assert [(state.chain, state.draw, state.is_warmup) for state in states] == [
        (chain, draw, draw < 20) for chain in (0, 1) for draw in range(40)
    ]
    draws = draws_of(model)
    assert len(draws) == 12
    assert (draws.report.chains, draws.report.warmup, draws.report.draws) == (2, 20, 20)
    assert draws.report.gradients > 1
    trace = [next(iter(state.monitored.values())) for state in states if not state.is_warmup]
    assert draws.report.monitored[0].mean == pytest.approx(np.mean(trace))
    assert [one.name for one in draws.report.doubtful]  # 40 draws are never enough


def test_predictions_are_those_of_each_draw_averaged() -> None:
    matrix = np.array([[np.nan] * 3, [3, np.nan, 1], [np.nan, 2, np.nan], [1, np.nan, np.nan]])
    log = log_of(matrix)
    settings = {"decoder": "ordinal", "missing": "shared", "item_weights": "variational"}
    model = tiny_model(log, seed=0, **settings)
    others = [tiny_model(log, seed=seed, **settings) for seed in (1, 2, 3)]
    names = [name for name, _ in model.named_parameters() if name.startswith(("decoder.", "missing."))]
    parameters = {name: torch.stack([dict(one.named_parameters())[name].detach() for one in others]) for name in names}
    z = torch.randn(3, 4, 1, generator=torch.Generator().manual_seed(0))
    report = SamplingReport(1, 0, 3, 0.0, 1.0, 0, ())
    predictor = Predictor(model, log, posterior=PosteriorDraws(parameters, z, report))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    users, items = np.nonzero(np.isnan(matrix) & (np.arange(4) > 0)[:, None])  # the first has no ratings
    found = predictor.predict(users, items, levels=True)
    levels = np.array([1.0, 2.0, 3.0])
    for user, item, shares in zip(users, items, found.levels, strict=True):
        expected = []
        for one, latent in zip(others, z[:, user].double().numpy(), strict=True):
            slope = np.logaddexp(0, one.missing.slope.raw.item())
            centred = (levels - one.missing.centre) / one.missing.unit
            pi = expit(slope * centred + one.missing.item_bias.detach().double().numpy()[:, None])
            at_z = Enumeration(np.ones(1), level_probabilities(one, latent), pi[None], levels)
            expected.append(at_z.given_z(matrix[user], item)[0])
        np.testing.assert_allclose(shares, np.mean(expected, axis=0), atol=1e-5)
    assert (predictor.n_draws, found.ess[0]) == (3, 3)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    drawn = predictor.draw(users, items, 600, np.random.default_rng(0))
    np.testing.assert_allclose(drawn.mean(0), found.mean, atol=0.15)


def test_users_outside_the_chains_get_the_prior_or_the_encoder(log: RatingLog) -> None:
    fitted = MNARRecommender(**{**QUICK, "max_steps": 120, "average_decay": 0}).fit(log, seed=1)
    cold = fitted.predictor.predict(np.array([0, UNKNOWN]), np.array([1, 1]), levels=True)  # u0 has no ratings
    np.testing.assert_allclose(cold.levels[0], cold.levels[1], atol=1e-6)
    assert cold.cold.all()
    new = fitted.condition_on(log)
    assert draws_of(new).z is None
    users, items = all_pairs(log)
    assert new.predictor.n_draws == 12 * DRAWS_EACH
    assert new.predictor.predict(users, items).ess[users > 0].min() > 12 * DRAWS_EACH / 2


def test_a_loaded_model_predicts_the_same(tmp_path: Path, log: RatingLog, fitted: MNARRecommender) -> None:
    fitted.save(tmp_path / "m")
    loaded = MNARRecommender.load(tmp_path / "m")
    users, items = all_pairs(log)
    for one, other in ((fitted, loaded), (fitted.condition_on(log), loaded.condition_on(log))):
        np.testing.assert_array_equal(
            one.predictor.predict(users, items).mean, other.predictor.predict(users, items).mean
        )
    assert draws_of(loaded).report == draws_of(fitted).report
    card = (tmp_path / "m" / "card.md").read_text()
    assert "2 chains of 20 + 20 draws" in card
    assert "**Not converged:**" in card
    new = loaded.condition_on(log.select_ratings(np.arange(log.n_ratings) % 2 == 0))
    new.save(tmp_path / "new")
    assert draws_of(MNARRecommender.load(tmp_path / "new")).z is None


def test_damaged_draws_are_named_in_one_line(tmp_path: Path, log: RatingLog, fitted: MNARRecommender) -> None:
    fitted.save(tmp_path / "m")
    path = tmp_path / "m" / "draws.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(ModelFolderError, match="damaged draws") as caught:
        MNARRecommender.load(tmp_path / "m")
    assert "\n" not in str(caught.value)
    path.unlink()
    with pytest.raises(ModelFolderError, match="draws of the posterior are missing"):
        MNARRecommender.load(tmp_path / "m")
    other = MNARRecommender(**{**QUICK, "latent_size": 3}).fit(log, seed=1)
    other.save(tmp_path / "other")
    path.write_bytes((tmp_path / "other" / "draws.safetensors").read_bytes())
    with pytest.raises(ModelFolderError, match="belong to another model"):
        MNARRecommender.load(tmp_path / "m")


def test_draws_that_do_not_fit_the_model_are_refused(fitted: MNARRecommender) -> None:
    draws, model = draws_of(fitted), fitted.fitted.model
    with pytest.raises(ValueError, match="z has shape"):
        PosteriorDraws.from_parts(draws.tensors(), draws.facts(), model, (3, model.latent_size))
    with pytest.raises(KeyError):
        PosteriorDraws.from_parts({**draws.parameters, "foreign": draws.z}, draws.facts(), model, (9, 4))
    facts = {**draws.facts(), "monitored": [{"name": "x"}]}
    with pytest.raises(TypeError):
        PosteriorDraws.from_parts(draws.parameters, facts, model, (9, 4))


def test_interrupted_chains_leave_the_variational_fit_and_begin_anew(
    tmp_path: Path, log: RatingLog, fitted: MNARRecommender
) -> None:
    def interrupt(state: ChainState) -> None:
        if state.chain == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        MNARRecommender(**QUICK).fit(log, seed=1, folder=tmp_path / "m", on_draw=interrupt)
    left = MNARRecommender.load(tmp_path / "m")
    assert left.fitted.draws is None
    assert not left.fitted.finished
    assert np.isfinite(left.predictor.predict(*all_pairs(log)).mean).all()
    resumed = MNARRecommender(**QUICK).fit(log, seed=1, folder=tmp_path / "m", resume=True)
    assert torch.equal(draws_of(resumed).z, draws_of(fitted).z)
    assert MNARRecommender.load(tmp_path / "m").fitted.finished


def test_what_cannot_be_sampled_is_refused_before_any_work(log: RatingLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcmc, "MOST_CELLS", 31)
    with pytest.raises(ConfigError, match=r"at most 31 cells \(users times items\); found 32"):
        MNARRecommender(**QUICK).fit(log)
    monkeypatch.undo()
    check_can_sample(log)
    for key, value in (("item_weights", "point"), ("estimator", "sampled")):
        with pytest.raises(ConfigError, match=f"needs {key} .*; found '{value}'"):
            MNARRecommender(**QUICK, **{key: value})


def test_labels_features_and_a_known_marginal_are_part_of_the_posterior(log: RatingLog) -> None:
    labels = log.select_ratings(np.arange(log.n_ratings) < 2)
    kept = log.select_ratings(np.arange(log.n_ratings) >= 2)
    few = {**QUICK, "mcmc_chains": 1}
    plain = draws_of(MNARRecommender(**few).fit(kept, seed=1))
    told = draws_of(MNARRecommender(**few).fit(kept, labels=labels, seed=1))
    low = draws_of(
        MNARRecommender(**few, population_marginal=(0.98, 0.01, 0.01), population_size=500).fit(kept, seed=1)
    )

    def mean_of_unrated(draws: PosteriorDraws) -> float:
        return next(one.mean for one in draws.report.monitored if one.name == "mean of unrated cells")

    assert mean_of_unrated(low) < min(mean_of_unrated(plain), mean_of_unrated(told)) - 0.2
    assert dataclasses.asdict(told.report)["monitored"] != dataclasses.asdict(plain.report)["monitored"]
