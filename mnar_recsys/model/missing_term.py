"""log p(s | x_obs, x_mis) with the missing ratings drawn (the paper's estimator) or summed out.

The two estimators differ in one method, the probability that a cell stays unrated given z. Where the log-odds of a cell
depend on its whole row, there is a third one, which draws the row.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from torch.utils.checkpoint import checkpoint

from mnar_recsys.model.batch import UserBatch
from mnar_recsys.model.decoders import Decoder, RatingDistribution
from mnar_recsys.model.decoders.base import OnSupport
from mnar_recsys.model.exposure import Exposure
from mnar_recsys.model.indexing import lift, masked_sum, take
from mnar_recsys.model.missing import MissingModel

# Cells (S x B x I) worked on at a time: of fewer, calls take as long as what they do; of more, memory grows.
BLOCK_CELLS = 1_000_000
# Up to so many cells a step, the backward pass finds what it needs stored, some 10 bytes a cell, up to 100 where
# ratings are drawn. Beyond, it computes a block again, which takes twice the time but no memory that grows with the
# batch.
STORED_CELLS = 20_000_000

ALL_ITEMS = slice(None)


class MissingTerm(ABC):
    """Sum over the unrated cells of log p(s_ij = 0 | z), for each draw of z."""

    def __init__(self, decoder: Decoder, missing: MissingModel, exposure: Exposure) -> None:
        self.decoder = decoder
        self.missing = missing
        self.exposure = exposure

    def __call__(
        self,
        taste: Tensor,
        z_x: Tensor,
        batch: UserBatch,
        noise: Tensor | None,
        block_cells: int = BLOCK_CELLS,
    ) -> Tensor:
        """Return the term of each user: taste (S, B, K), latent of the exposure (S, B, E') -> (S, B).

        ``block_cells``: cells of a block, instead of the number that is fast.
        """
        if not self.missing.depends_on_rating and self.exposure.is_absent:
            return self._constant(batch).expand(taste.shape[:-1])
        n_items = self.decoder.n_items if batch.drawn is None else len(batch.drawn)
        cells = taste.shape[0] * n_items  # of a user
        size = max(1, block_cells // cells)
        parts = []
        for start in range(0, batch.n_users, size):
            users = slice(start, min(start + size, batch.n_users))
            arguments = (
                taste[:, users],
                z_x[:, users],
                batch if size >= batch.n_users else batch.block(users.start, users.stop),
                None if noise is None else noise[:, users],
            )
            if torch.is_grad_enabled() and taste.shape[0] * batch.n_users * n_items > STORED_CELLS:
                part = checkpoint(self._block, *arguments, use_reentrant=False, preserve_rng_state=False)
            else:
                part = self._block(*arguments)
            parts.append(part)
        return torch.cat(parts, dim=1)

    @abstractmethod
    def _block(self, taste: Tensor, z_x: Tensor, batch: UserBatch, noise: Tensor | None) -> Tensor:
        """Return the term of the users of one block."""

    def _constant(self, batch: UserBatch) -> Tensor:
        """Return the term of a mask that depends on nothing but the item: (B,)."""
        logit = self.missing.logit(self.missing.bias(), ALL_ITEMS).squeeze(0)
        log_unrated = logsigmoid(-logit)
        if batch.item_weights is not None:
            log_unrated = log_unrated * batch.item_weights
        if batch.eligible is not None:
            return batch.unrated(self.decoder.n_items) @ log_unrated
        return log_unrated.sum() - batch.sum_by_user(log_unrated.index_select(0, batch.items))


class CellTerm(MissingTerm):
    """The term of a missing model whose log-odds depend on the cell's own rating alone."""

    def _block(self, taste: Tensor, z_x: Tensor, batch: UserBatch, noise: Tensor | None) -> Tensor:
        unrated = batch.unrated(self.decoder.n_items)
        items = ALL_ITEMS if batch.drawn is None else batch.drawn
        natural = self.decoder.natural(taste, items) if self.missing.depends_on_rating else None
        offset = self.exposure.biased_cells(z_x, items, self.missing.bias(items))
        return self.given(natural, offset, noise, unrated, items)

    def given(
        self,
        natural: Tensor | None,
        offset: Tensor,
        noise: Tensor | None,
        unrated: Tensor,
        items: slice | Tensor,
    ) -> Tensor:
        """Return the term of a block, given all that z decides of its cells: (S, B).

        ``natural`` (S, B, C, I) parameters of the decoder, None if the mask does not depend on the rating; ``offset``
        (S, B, I) or (1, 1, I): log-odds of rating that are not the rating's, items' biases and exposure.
        """
        if natural is not None:
            return self.sum_log_unrated(self.decoder.distribution(natural, items), offset, noise, unrated, items)
        return masked_sum(logsigmoid(-offset), unrated)

    def expand(
        self,
        natural: Tensor,  # noqa: ARG002
        offset: Tensor | None,  # noqa: ARG002
        unrated: Tensor,  # noqa: ARG002
        items: slice | Tensor,  # noqa: ARG002
    ) -> tuple[Tensor, Tensor] | None:
        """Return the derivatives of each cell's part of ``given``, if they are known, for one draw of z.

        ``natural`` (1, B, C, I), ``offset`` (1, B, I) as in ``given``, or None if it is the same for all users: see
        ``RatingDistribution.expand_log_unrated``.
        """
        return None

    @abstractmethod
    def sum_log_unrated(
        self,
        cells: RatingDistribution,
        offset: Tensor,
        noise: Tensor | None,
        unrated: Tensor,
        items: slice | Tensor,
    ) -> Tensor:
        """Sum of log p(s = 0 | z) over the cells of a block, ``items``, each ``unrated`` (B, I) times: (S, B)."""

    def sum_over(self, ratings: OnSupport, offset: Tensor, unrated: Tensor, items: slice | Tensor) -> Tensor:
        """Sum log(1 - pi) of a block over its ratings, a distribution that they are summed out of or a draw: (S, B)."""
        line = self.missing.line(items)
        if line is not None:
            return ratings.sum_log_unrated_linear(*line, offset, unrated)
        return ratings.sum_log_unrated(self.missing.added(ratings.support, items), offset, unrated)


class Marginal(CellTerm):
    """The missing rating summed out: log E[1 - pi(x) | z].

    Exact for levels, Gauss-Hermite for a density. No noise in data space, and by Jensen's inequality a tighter
    bound than ``Sampled``. No published deep latent-variable model that we know of has it.
    """

    def sum_log_unrated(
        self,
        cells: RatingDistribution,
        offset: Tensor,
        noise: Tensor | None,  # noqa: ARG002
        unrated: Tensor,
        items: slice | Tensor,
    ) -> Tensor:
        """Sum log E[1 - pi(x) | z]."""
        return self.sum_over(cells, offset, unrated, items)

    def expand(
        self, natural: Tensor, offset: Tensor | None, unrated: Tensor, items: slice | Tensor
    ) -> tuple[Tensor, Tensor] | None:
        """Return the derivatives where the decoder knows them."""
        cells = self.decoder.distribution(natural, items)
        added = self.missing.logit if offset is None else self.missing.added
        return cells.expand_log_unrated(added(cells.support, items), offset, unrated)


class Sampled(CellTerm):
    """The missing rating drawn from p(x|z), reparameterised: log(1 - pi(x_mis)), eq. 9 of the paper."""

    def sum_log_unrated(
        self,
        cells: RatingDistribution,
        offset: Tensor,
        noise: Tensor | None,
        unrated: Tensor,
        items: slice | Tensor,
    ) -> Tensor:
        """Sum log(1 - pi(x)) at one draw of every cell."""
        if noise is None:
            raise ValueError("the sampled estimator needs noise")
        return self.sum_over(cells.draw(noise), offset, unrated, items)


class SampledRow(MissingTerm):
    """log p(s | x_obs, x_mis) of whole rows, the missing ratings drawn from p(x|z): eq. 9 of the paper as it stands.

    Other than the terms of single cells it has the known ratings' part as well, which rests on the drawn ones, too.
    """

    def __init__(
        self, decoder: Decoder, missing: MissingModel, exposure: Exposure, *, survey_could_be_rated: bool
    ) -> None:
        super().__init__(decoder, missing, exposure)
        self.survey_could_be_rated = survey_could_be_rated

    def logits(self, taste: Tensor, z_x: Tensor, batch: UserBatch, noise: Tensor | None) -> Tensor:
        """Log-odds of rating every cell, given its row as known and drawn: (S, B, P)."""
        if noise is None:
            raise ValueError("the sampled estimator needs noise")
        drawn = self.decoder.cells(taste).draw(noise).ratings  # (S, B, P)
        given = drawn.new_zeros(drawn.shape[1:])
        given[batch.rows, batch.items] = batch.ratings
        logit = self.missing.row_logit(torch.where(batch.unknown(drawn.shape[-1]) == 1, drawn, given))
        offset = self.exposure.cells(z_x)
        return logit if offset is None else logit + lift(offset)

    def _block(self, taste: Tensor, z_x: Tensor, batch: UserBatch, noise: Tensor | None) -> Tensor:
        logit, n_items = self.logits(taste, z_x, batch, noise), self.decoder.n_items
        known = take(logit.flatten(1), batch.rows * n_items + batch.items)  # (S, n)
        log_known = log_mask(known, batch, survey_could_be_rated=self.survey_could_be_rated)
        return masked_sum(logsigmoid(-logit), batch.unrated(n_items)) + batch.sum_by_user(log_known)


def log_mask(logit: Tensor, batch: UserBatch, *, survey_could_be_rated: bool) -> Tensor:
    """Log p(s | x) of known ratings from their logit (..., n): s = 1 where they were given by choice.

    A rating collected at random was not given by choice, s = 0; if it could not have been, nothing is said.
    """
    surveyed = batch.surveyed
    if surveyed is None:
        return logsigmoid(logit)
    log_p = logsigmoid(logit * (1 - 2 * surveyed))
    if not survey_could_be_rated:
        return log_p * (1 - surveyed)
    return log_p if batch.eligible is None else log_p * batch.eligible.known
