"""How far two models are apart in what a log can show: which cells are rated, and with what."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from mnar_recsys.model.batch import UserBatch
from mnar_recsys.model.indexing import lift
from mnar_recsys.model.mnar_vae import MnarVae

_ALL_ITEMS = slice(None)


@dataclass(frozen=True)
class _Law:
    """What a model says of cells (S, B, I), given z, and of ratings that are tried in them (..., Q, I)."""

    log_p: Tensor
    """log p(x|z) of the tried ratings, (S, B, Q, I)"""
    log_odds: Tensor
    """logit of pi at the tried ratings, (S, B, Q, I)"""
    log_unrated: Tensor
    """log P(s = 0 | z), (S, B, I)"""


def law_divergence(model: MnarVae, other: MnarVae, batch: UserBatch, noise: Tensor) -> Tensor:
    r"""Return the KL divergence, given z, between the two models' laws of what is shown of each user: (B,), nats.

    A cell shows its rating if s = 1 and nothing else if s = 0, so with o the model and o' the other it adds

    .. math:: \int p(x|z) \pi(x) \log \frac{p(x|z) \pi(x)}{p'(x|z) \pi'(x)} dx
              + P(s = 0|z) \log \frac{P(s = 0|z)}{P'(s = 0|z)},

    and one that was asked about at random shows its rating in any case. Averaged over z this is no less than the
    divergence of the laws with z summed out, since both models have the same p(z): it bounds the log-likelihood that
    the other model is expected to lose on such a log. Priors of the weights do not enter.

    Parameters
    ----------
    model, other : MnarVae
        With one latent space: the other began as a copy and has kept the prior of z.
    batch : UserBatch
        B users, whose z are drawn from the model's q(z|x_obs).
    noise : Tensor
        (S, B, K') standard normal.
    """
    with torch.no_grad():
        z, _, _ = model.sample_posterior(batch, noise)
        cells = model.decoder.cells(model.split_latent(z)[0])
        ratings, weights = cells.support, cells.support_weights
        mine = _law(model, z, ratings)
        rated = torch.sigmoid(mine.log_odds)
    theirs = _law(other, z, ratings)
    rating = mine.log_p - theirs.log_p
    given = logsigmoid(mine.log_odds) - logsigmoid(theirs.log_odds)
    unrated = torch.exp(mine.log_unrated) * (mine.log_unrated - theirs.log_unrated)
    shown = (weights * rated * (rating + given)).sum(-2) + unrated
    if batch.eligible is not None:  # what was not on offer shows nothing
        on_offer = torch.zeros(shown.shape[1:], device=shown.device)
        on_offer[batch.eligible.rows, batch.eligible.items] = 1.0
        shown = shown * on_offer
    if batch.surveyed is not None:
        withheld = logsigmoid(-mine.log_odds) - logsigmoid(-theirs.log_odds)
        choice = rated * given + (1 - rated) * withheld if model.survey_could_be_rated else 0.0
        shown = torch.where(
            _asked(batch, batch.surveyed, shown.shape[-1]), (weights * (rating + choice)).sum(-2), shown
        )
    return shown.sum(-1).mean(0)


def _law(model: MnarVae, z: Tensor, ratings: Tensor) -> _Law:
    taste, z_x = model.split_latent(z)
    cells, offset = model.decoder.cells(taste), model.exposure.cells(z_x)
    log_odds = model.missing.logit(ratings, _ALL_ITEMS)
    if offset is not None:
        log_odds = log_odds + lift(offset).unsqueeze(-2)
    log_p = torch.stack([cells.log_prob(tried) for tried in ratings.unbind(-2)], dim=-2)
    return _Law(log_p, log_odds, cells.log_unrated(model.missing.logit(cells.support, _ALL_ITEMS), offset))


def _asked(batch: UserBatch, surveyed: Tensor, n_items: int) -> Tensor:
    """Return which cells were asked about at random: (B, P)."""
    asked = torch.zeros(batch.n_users, n_items, dtype=torch.bool, device=surveyed.device)
    pairs = surveyed > 0
    asked[batch.rows[pairs], batch.items[pairs]] = True
    return asked
