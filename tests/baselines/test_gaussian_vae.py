"""The Gaussian VAE: its KL term against torch, its bound by the dense formula, annealing and dropout."""

import numpy as np
import pytest
import torch
from sparse_rows_case import DENSE, RATED, drawn, gradients_at, two_tastes, whole_batch
from torch.distributions import Normal, kl_divergence

from baselines.autoencoders import RowBatch
from baselines.gaussian_vae import GaussianVae, GaussianVaeNet, kl_to_standard_normal
from mnar_recsys.data import Split
from mnar_recsys.errors import ConfigError


def small_net(**settings: float) -> GaussianVaeNet:
    net = drawn(GaussianVae(latent=2, hidden=3, **{"dropout": 0.0} | settings))
    assert isinstance(net, GaussianVaeNet)
    return net


def test_kl_agrees_with_torch_distributions() -> None:
    generator = torch.Generator().manual_seed(0)
    mean, log_sd = torch.randn(2, 6, 4, generator=generator).double()
    expected = kl_divergence(Normal(mean, log_sd.exp()), Normal(0.0, 1.0)).sum(-1)
    torch.testing.assert_close(kl_to_standard_normal(mean, log_sd), expected)


def dense_bound(net: GaussianVaeNet, beta: float, noise: torch.Tensor) -> torch.Tensor:
    """The negative bound of all users over their number of ratings, with the draws of z given, (7, 2)."""
    rates = DENSE / net.unit / RATED.sum(1, keepdim=True).clamp(min=1).sqrt()
    hidden = torch.tanh(rates @ net.first.weight[:-1] + net.first_bias)
    mean, log_sd = net.posterior(hidden).chunk(2, dim=-1)
    units = torch.tanh(net.decoder(mean + log_sd.exp() * noise))
    found = units @ net.last.weight[:-1].T + net.last_bias.weight[:-1, 0]
    density = Normal(found / net.unit, 1.0).log_prob(DENSE / net.unit) - Normal(0.0, 1.0).log_prob(torch.tensor(0.0))
    divergence = kl_divergence(Normal(mean, log_sd.exp()), Normal(0.0, 1.0))
    return (beta * divergence.sum() - density[RATED].sum()) / RATED.sum()


@pytest.mark.parametrize(("epoch", "share"), [(0, 0.0), (5, 0.25), (20, 1.0), (50, 1.0)])
def test_the_loss_is_the_annealed_bound_over_rated_cells(epoch: int, share: float) -> None:
    net = small_net(beta=0.4, annealing=20)
    loss = net.loss(whole_batch(), epoch, torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(3)
    torch.rand(int(RATED.sum()), generator=generator)  # what dropout draws
    noise = torch.randn((7, 2), generator=generator)
    torch.testing.assert_close(loss, dense_bound(net, 0.4 * share, noise))


def test_nothing_depends_on_unrated_cells() -> None:
    net = small_net()
    net.loss(whole_batch(), 30, torch.Generator().manual_seed(0)).backward()
    tables = [net.first.weight, net.last.weight, net.last_bias.weight]
    assert gradients_at(tables, 4) == 0.0  # nobody rated item 4
    assert gradients_at(tables, 3) > 1e-3


def test_dropout_is_of_the_input_and_off_in_prediction() -> None:
    net = small_net(dropout=0.5, beta=0.0)
    losses = {float(net.loss(whole_batch(), 0, torch.Generator().manual_seed(seed)).detach()) for seed in range(3)}
    assert len(losses) == 3
    with torch.no_grad():
        plain = small_net()
        torch.testing.assert_close(net.encode(whole_batch()), plain.encode(whole_batch()))


def test_kept_inputs_make_up_for_dropped_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    net, batch = small_net(dropout=0.75), whole_batch()
    weights: list[torch.Tensor] = []
    plain = net.posterior_of

    def recorded(batch: RowBatch, kept: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        weights.append(kept)
        return plain(batch, kept)

    monkeypatch.setattr(net, "posterior_of", recorded)
    noise, draws = torch.Generator().manual_seed(0), 300
    for _ in range(draws):
        net.loss(batch, 0, noise)
    table = torch.stack(weights)
    assert set(table.unique().tolist()) == {0.0, 4.0}
    standard_error = (16 * 0.25 * 0.75 / table.numel()) ** 0.5
    assert abs(float(table.mean()) - 1.0) < 4 * standard_error


def test_recovers_two_tastes() -> None:
    log, complete = two_tastes()
    model = GaussianVae(latent=2, hidden=20, dropout=0.2).fit(Split(mnar_train=log), seed=0)
    users, items = np.indices(complete.shape).reshape(2, -1)
    unseen = ~np.isin(users * 40 + items, log.cells)
    missed = model.predict(users[unseen], items[unseen]) - complete.ravel()[unseen]
    assert np.square(missed).mean() < 0.2 * complete.var()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"latent": 0}, "latent must be a number above 0; found 0"),
        ({"annealing": 0}, "annealing must be a number above 0; found 0"),
        ({"beta": -0.1}, "beta must be at least 0; found -0.1"),
        ({"beta": float("nan")}, "beta must be at least 0; found nan"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1; found 1.0"),
    ],
)
def test_settings_must_be_in_range(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        GaussianVae(**settings)
