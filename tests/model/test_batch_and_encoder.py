"""Ragged batches against dense arithmetic; the encoder sees sets."""

import numpy as np
import pytest
import torch
from factories import log_of, random_matrix, tiny_model

from mnar_recsys.data import RatingLog
from mnar_recsys.model.batch import UserBatch, iterate_batches, make_batch

MATRIX = random_matrix(23, 9, seed=1)
MATRIX[1] = 2.0  # someone who rated everything
MATRIX[2:6, 1:] = np.nan
MATRIX[2:6, 0] = 1.0  # several with one rating


@pytest.fixture(scope="module")
def log() -> RatingLog:
    return log_of(MATRIX)


def test_batch_holds_the_ratings_of_its_users_in_the_order_asked_for(log: RatingLog) -> None:
    users = np.array([7, 0, 1, 3])
    batch = make_batch(log, users)
    dense = torch.full((4, 9), torch.nan)
    dense[batch.rows, batch.items] = batch.ratings
    np.testing.assert_array_equal(dense.numpy(), MATRIX[users])
    np.testing.assert_array_equal(batch.counts, (~np.isnan(MATRIX[users])).sum(1))
    np.testing.assert_array_equal(batch.unrated(9).numpy(), np.isnan(MATRIX[users]))


def test_block_is_a_batch_of_its_users(log: RatingLog) -> None:
    whole = make_batch(log, np.arange(23))
    for start, stop in ((0, 1), (0, 23), (5, 11), (22, 23)):
        part, alone = whole.block(start, stop), make_batch(log, np.arange(start, stop))
        for name in ("rows", "items", "ratings"):
            assert torch.equal(getattr(part, name), getattr(alone, name))
        np.testing.assert_array_equal(part.counts, alone.counts)


def test_batches_cover_every_user_once_in_order(log: RatingLog) -> None:
    order = np.random.default_rng(0).permutation(23)
    chosen = [users for users, batch in iterate_batches(log, order, 5) if batch.n_users == len(users)]
    np.testing.assert_array_equal(np.concatenate(chosen), order)
    assert [len(users) for users in chosen] == [5, 5, 5, 5, 3]


def test_sum_by_user_is_the_dense_sum(log: RatingLog) -> None:
    users = np.array([4, 0, 1, 20])
    batch = make_batch(log, users)
    values = torch.stack([batch.ratings, batch.ratings**2]).view(2, 1, -1)
    expected = np.stack([np.nansum(MATRIX[users], 1), np.nansum(MATRIX[users] ** 2, 1)])[:, None]
    np.testing.assert_allclose(batch.sum_by_user(values).numpy(), expected)


@pytest.mark.parametrize("users", [[7, 0, 1, 3, 4, 22, 9], [0], [1, 1, 2]])
def test_pair_products_and_their_gradients_are_those_of_a_dense_product(log: RatingLog, users: list[int]) -> None:
    batch = make_batch(log, np.array(users))
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(6, len(users), 4, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 9, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    pull = torch.randn(6, 3, len(batch.items), generator=generator, dtype=torch.float64)

    found = batch.pair_products(z, weight)
    dense = torch.einsum("sbk,cpk->scbp", z, weight)[..., batch.rows, batch.items]
    torch.testing.assert_close(found, dense)
    for mine, theirs in zip(
        torch.autograd.grad((found * pull).sum() + 0 * z.sum() + 0 * weight.sum(), (z, weight)),
        torch.autograd.grad((dense * pull).sum(), (z, weight)),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs)


def test_decoder_gives_a_pair_what_it_gives_its_cell(log: RatingLog) -> None:
    for decoder in ("categorical", "ordinal", "gaussian"):
        model = tiny_model(log, decoder=decoder, latent_size=3)
        batch = make_batch(log, np.arange(23))
        z = torch.randn(5, 23, 3, generator=torch.Generator().manual_seed(3))
        with torch.no_grad():
            everywhere = model.decoder.cells(z).log_prob(torch.full((9,), 2.0))[:, batch.rows, batch.items]
            at_pairs = model.decoder.pairs(z, batch).log_prob(torch.full(batch.items.shape, 2.0))
        torch.testing.assert_close(at_pairs, everywhere, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("posterior_scale", ["shared", "per-user"])
def test_encoder_does_not_see_the_order_of_ratings_or_users(log: RatingLog, posterior_scale: str) -> None:
    encoder = tiny_model(log, latent_size=3, posterior_scale=posterior_scale).encoder
    batch = make_batch(log, np.arange(23))
    with torch.no_grad():
        mean, log_sd = encoder(batch)
    # All pairs in random order, users not contiguous: a set has no order.
    order = torch.from_numpy(np.random.default_rng(1).permutation(len(batch.items)))
    shuffled = UserBatch(batch.rows[order], batch.items[order], batch.ratings[order], batch.counts)
    users = np.random.default_rng(2).permutation(23)
    with torch.no_grad():
        by_pairs, by_users = encoder(shuffled), encoder(make_batch(log, users))
    torch.testing.assert_close(by_pairs[0], mean)
    torch.testing.assert_close(by_pairs[1], log_sd)
    torch.testing.assert_close(by_users[0], mean[users])
    torch.testing.assert_close(by_users[1], log_sd[users])


@pytest.mark.parametrize("posterior_scale", ["shared", "per-user"])
def test_code_of_a_user_does_not_depend_on_the_batch(log: RatingLog, posterior_scale: str) -> None:
    encoder = tiny_model(log, latent_size=3, posterior_scale=posterior_scale).encoder
    with torch.no_grad():
        together = encoder(make_batch(log, np.arange(23)))
        alone = [encoder(make_batch(log, np.array([user]))) for user in range(23)]
    for place in (0, 1):
        torch.testing.assert_close(torch.cat([one[place] for one in alone]), together[place])


def test_encoder_knows_item_and_rating(log: RatingLog) -> None:
    encoder = tiny_model(log, latent_size=3, posterior_scale="per-user").encoder
    one = np.full((4, 9), np.nan)
    one[0, 2], one[1, 2], one[2, 3], one[3, [2, 3]] = 1, 3, 1, 1
    with torch.no_grad():
        mean, log_sd = encoder(make_batch(log_of(one), np.arange(4)))
    assert len({tuple(row) for row in mean.tolist()}) == 4
    # The empty user's code is the bias; two pairs add up.
    base = encoder.mean.bias.detach()
    torch.testing.assert_close(mean[3] - base, (mean[0] - base) + (mean[2] - base))
    assert len({tuple(row) for row in log_sd.tolist()}) == 4


def test_users_without_ratings_get_finite_codes_and_weights(log: RatingLog) -> None:
    for decoder in ("categorical", "ordinal", "gaussian"):
        model = tiny_model(log, decoder=decoder, user_activity=True, posterior_scale="per-user")
        empty = make_batch(log, np.array([0, 0]))
        weights, z = model.log_weights(empty, torch.randn(4, 2, 2), model.estimator(marginal=True))
        assert z.shape == (4, 2, 2)
        assert torch.isfinite(weights.total).all()
        assert (weights.log_p_x == 0).all()
        weights.total.sum().backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
