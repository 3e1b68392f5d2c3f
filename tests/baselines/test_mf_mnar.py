"""MF-MNAR: densities against scipy, the bound against a simulated evidence, and recovery of a planted selection."""

import numpy as np
import pytest
import torch
from factories import log_of, random_matrix
from scipy.special import logsumexp
from scipy.stats import norm
from torch.distributions import Normal, kl_divergence

from baselines.bias import BiasBaseline, solve_offsets
from baselines.mf_mnar import Cells, MfMnar, bound, factorize, start
from baselines.ordinal_mf import CellTerms, GaussianTable, Layout, OrdinalMf, ordinal
from mnar_recsys.data import RatingLog, RatingScale, Split
from mnar_recsys.data.simulate import simulate_ratings
from mnar_recsys.errors import ConfigError

TINY = log_of([[1, 2, np.nan], [np.nan, 2, np.nan]], RatingScale(1, 2, 1))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_model(log: RatingLog, *, posterior_sd: float = 0.5, taste: int = 2, exposure: int = 1) -> OrdinalMf:
    layout = Layout(taste, exposure, log.scale.n_levels or 0)
    rng = np.random.default_rng(0)
    tables = []
    for rows, parts in ((log.n_users, layout.user), (log.n_items, layout.item)):
        prior = torch.from_numpy(rng.normal(scale=0.5, size=sum(parts))).float()
        table = GaussianTable(rows, prior, torch.full_like(prior, 0.4), posterior_sd)
        with torch.no_grad():
            table.mean[:-1] = torch.from_numpy(rng.normal(scale=0.5, size=(rows, sum(parts)))).float()
        tables.append(table)
    return OrdinalMf(layout, *tables)


def test_level_probabilities_are_differences_of_normal_probabilities() -> None:
    location, log_variance = torch.tensor([[0.3], [-1.0]]), torch.tensor([[0.0], [0.8]])
    cuts = torch.tensor([[-1.0, -0.5, 0.2], [0.4, 0.1, -2.0]])
    found = ordinal(location, cuts, log_variance)
    cut = torch.cat([cuts[:, :1], cuts[:, 1:].exp()], dim=1).cumsum(1).numpy()
    below = norm.cdf(cut, loc=location.numpy(), scale=(0.5 * log_variance).exp().numpy())
    np.testing.assert_allclose(found, np.diff(below, prepend=0.0, append=1.0, axis=1), atol=1e-6)


def test_a_far_level_has_a_probability_and_a_gradient_in_both_tails() -> None:
    for place, level in ((-9.0, 1), (9.0, 0)):
        location = torch.tensor([[place]], requires_grad=True)
        log_probability = ordinal(location, torch.tensor([[0.0]]), torch.zeros(1, 1))[0, level].log()
        log_probability.backward()
        assert location.grad is not None
        np.testing.assert_allclose(log_probability.item(), norm.logcdf(-9.0), rtol=1e-3)
        np.testing.assert_allclose(location.grad.item(), -np.sign(place) * 9.11, rtol=0.01)


def test_cell_terms_sum_out_the_level() -> None:
    terms = CellTerms(torch.tensor([[0.2, 0.5, 0.3]]), torch.tensor([[-1.0, 0.5, 2.0]]))
    rated = 1.0 / (1.0 + np.exp(-terms.log_odds.numpy()[0]))
    joint = [terms.log_rated(torch.tensor([level])).exp().item() for level in range(3)]
    np.testing.assert_allclose(joint, np.array([0.2, 0.5, 0.3]) * rated, rtol=1e-5)
    np.testing.assert_allclose(terms.log_unrated().exp().item() + sum(joint), 1.0, rtol=1e-6)


def test_kl_agrees_with_torch_and_the_unknown_row_has_none() -> None:
    table = random_model(TINY).user
    with torch.no_grad():
        table.log_sd[:-1].uniform_(-2.0, 0.5, generator=generator())
    value_mean = table.prior_mean + table.prior_log_sd.exp() * table.mean
    posterior = Normal(value_mean, (table.prior_log_sd + table.log_sd).exp())
    expected = kl_divergence(posterior, Normal(table.prior_mean, table.prior_log_sd.exp()).expand(value_mean.shape))
    np.testing.assert_allclose(table.kl().item(), expected.sum().item(), rtol=1e-5)
    np.testing.assert_allclose(expected[-1].detach(), 0.0, atol=1e-6)


def test_drawn_unrated_cells_are_all_of_them_and_no_rated_one() -> None:
    log = log_of(random_matrix(6, 5))
    cells = Cells.of_log(log)
    rows, columns = cells.draw_unrated(20_000, generator())
    counts = np.bincount(rows * 5 + columns, minlength=30)
    assert (counts[log.cells] == 0).all()
    unrated = np.delete(counts, log.cells)
    assert len(unrated) == cells.n_unrated
    assert np.abs(unrated / 20_000 - 1 / 30).max() < 0.008


def test_subsampled_bound_is_unbiased() -> None:
    log = log_of(random_matrix(6, 5))
    # With a posterior this narrow the bound is the complete-data log-likelihood at its mean, less the KL.
    model, cells = random_model(log, posterior_sd=1e-6), Cells.of_log(log)
    rows, columns = (torch.from_numpy(index.ravel()) for index in np.indices((6, 5)))
    with torch.no_grad():
        terms = model.terms(rows, columns, torch.zeros(1), torch.zeros(1))
        value = terms.log_unrated()
        rated = CellTerms(terms.probability[cells.number], terms.log_odds[cells.number])
        value[cells.number] = rated.log_rated(cells.level)
        expected = (value.sum() - model.user.kl() - model.item.kl()).item()
        draws = np.array([bound(model, cells, 8, g).item() for g in map(generator, range(800))])
    assert abs(draws.mean() - expected) < 4.0 * draws.std() / np.sqrt(len(draws))


def test_bound_is_below_the_evidence_and_fitting_brings_it_close() -> None:
    model, cells = random_model(TINY, posterior_sd=1.0, taste=1), Cells.of_log(TINY)
    with torch.no_grad():
        for table in (model.user, model.item):
            table.mean.zero_()  # q is the prior
    layout, draws = model.layout, 100_000
    rows, columns = (torch.from_numpy(index.ravel()) for index in np.indices(cells.shape))
    with torch.no_grad():
        noise = [
            torch.randn(draws, size, sum(parts), generator=generator())
            for size, parts in ((2, layout.user), (3, layout.item))
        ]
        terms = model.terms(rows, columns, noise[0][:, rows], noise[1][:, columns])
        log_p = terms.log_unrated()
        rated = CellTerms(terms.probability[:, cells.number], terms.log_odds[:, cells.number])
        log_p[:, cells.number] = rated.log_rated(cells.level)
        per_draw = log_p.sum(1).double().numpy()
    evidence = logsumexp(per_draw) - np.log(draws)
    priors = [parameter for name, parameter in model.named_parameters() if "prior" in name]
    for parameter in priors:
        parameter.requires_grad_(False)  # the evidence is that of these priors

    def mean_bound(seed: int) -> float:
        with torch.no_grad():
            return bound(model, cells, 50_000, generator(seed)).item()

    assert abs(mean_bound(1) - per_draw.mean()) < 0.05
    optimizer, g = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.02), generator(2)
    for _ in range(300):
        optimizer.zero_grad()
        (-bound(model, cells, 50, g)).backward()
        optimizer.step()
    fitted = mean_bound(3)
    assert per_draw.mean() + 0.05 < fitted < evidence
    assert evidence - fitted < 0.5 * (evidence - per_draw.mean())


def test_factorize_finds_planted_factors() -> None:
    rng = np.random.default_rng(0)
    user, item = rng.normal(size=(80, 2)), rng.normal(size=(60, 2))
    matrix = 3.0 + user @ item.T
    matrix[rng.random(matrix.shape) > 0.5] = np.nan
    log = log_of(matrix, RatingScale(-20.0, 20.0))
    offsets = solve_offsets(log.rows, log.items, log.ratings, (80, 60), (10.0, 10.0))
    factors, item_factors = factorize(log, offsets, 2, 0)
    np.testing.assert_allclose(np.square(factors).mean(axis=0), np.square(item_factors).mean(axis=0))
    predicted = offsets.mean + offsets.user[:, None] + offsets.item + factors @ item_factors.T
    assert np.corrcoef(predicted.ravel(), (3.0 + user @ item.T).ravel())[0, 1] > 0.95


def test_start_has_the_marginals_of_ratings_and_mask() -> None:
    log = log_of(random_matrix(40, 30, density=0.3))
    model = start(log, Layout(4, 3, 3), 0)
    zero = torch.zeros(1)
    with torch.no_grad():
        terms = model.terms(torch.tensor([log.n_users]), torch.tensor([log.n_items]), zero, zero)
    marginal = np.bincount(log.ratings.astype(int), minlength=4)[1:] / log.n_ratings
    np.testing.assert_allclose(terms.probability[0], marginal, atol=0.01)
    share = log.n_ratings / (log.n_users * log.n_items)
    np.testing.assert_allclose(torch.sigmoid(terms.log_odds[0]), share, rtol=0.01)


@pytest.fixture(scope="module")
def monotone() -> tuple[MfMnar, RatingLog, RatingLog]:
    simulation = simulate_ratings("monotone", n_users=400, n_items=120, ratings_per_user=12, seed=0)
    model = MfMnar(size=2, exposure_size=1, batch_size=1024).fit(Split(mnar_train=simulation.train), seed=0)
    return model, simulation.train, simulation.test


def test_planted_selection_is_recovered_and_its_bias_removed(monotone: tuple[MfMnar, RatingLog, RatingLog]) -> None:
    model, train, test = monotone
    place = model.model.layout.selection
    selection = (model.model.user.prior_mean[place] + model.model.item.prior_mean[place]).detach().numpy()
    # Planted: .6 a level, rising.
    assert 0.3 < np.polyfit(np.arange(5), selection, 1)[0] < 1.2
    users, items = test.users.take(test.rows), test.catalogue.take(test.items)
    found = model.predict(users, items)
    naive = BiasBaseline().fit(Split(mnar_train=train), seed=0).predict(users, items)
    assert abs(found.mean() - test.ratings.mean()) < 0.5 * abs(naive.mean() - test.ratings.mean())
    assert np.square(found - test.ratings).mean() < 0.8 * np.square(naive - test.ratings).mean()


def test_prediction_depends_on_the_pair_alone_and_strangers_have_the_prior(
    monotone: tuple[MfMnar, RatingLog, RatingLog],
) -> None:
    model, train, _ = monotone
    users = np.array([train.users.ids[3], train.users.ids[9], -5, train.users.ids[3]])
    items = np.array([train.catalogue.ids[7], train.catalogue.ids[2], train.catalogue.ids[7], -5])
    together = model.level_probabilities(users, items)
    np.testing.assert_allclose(together.sum(axis=1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(model.level_probabilities(users[1:2], items[1:2]), together[1:2], rtol=1e-5)
    np.testing.assert_allclose(model.predict(users, items), together @ np.arange(1.0, 6.0), rtol=1e-5)
    assert model.model.user.mean[-1].abs().max() == 0.0
    assert model.model.item.log_sd[-1].abs().max() == 0.0


def test_what_is_expected_if_rated_is_higher_where_selection_rises(
    monotone: tuple[MfMnar, RatingLog, RatingLog],
) -> None:
    model, train, _ = monotone
    split = Split(mnar_train=train).hold_out(0.1, seed=0)
    valid = split.mnar_valid
    assert valid is not None
    plain = model.predict(valid.users.take(valid.rows), valid.catalogue.take(valid.items))
    assert model.validation_loss(split) < np.square(plain - valid.ratings).mean()


def test_settings_and_scale_are_checked() -> None:
    with pytest.raises(ConfigError, match="exposure_size must be a number above 0"):
        MfMnar(exposure_size=0)
    real = RatingLog.from_arrays([1, 1, 2], [1, 2, 1], [1.5, 2.25, 4.0], scale=RatingScale(1, 5))
    with pytest.raises(ConfigError, match="scale for MfMnar must have rating levels"):
        MfMnar().fit(Split(mnar_train=real), seed=0)
