"""Gradient and curvature of log p(x_obs, s, z) in a user's z, where each cell sees z through few linear predictors.

A cell's distribution depends on z through its C natural parameters and through the offset of its log-odds of rating,
all linear in z. So the Hessian is a sum over cells of small matrices (C + 1 a side) between fixed vectors of the items,
and these matrices are known in closed form, or are differences of the gradient that the kernels give for every cell at
once.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mnar_recsys.model.batch import UserBatch
from mnar_recsys.model.missing_term import BLOCK_CELLS, CellTerm, log_mask
from mnar_recsys.model.mnar_vae import MnarVae

# Half the distance of two gradients whose difference is a second derivative, in units of the predictors.
_APART = 0.2


@dataclass(frozen=True)
class _Predictor:
    """A linear predictor of the items' cells: which part of z it sees, and with which vectors."""

    part: slice
    """of the K' dimensions"""
    vectors: Tensor
    """(I, k)"""


class Curvature:
    """Expands log p(x_obs, s, z) of any users about any z, under the model's weights as they now are.

    Parameters
    ----------
    model : MnarVae
        With weights as drawn, where they have a posterior.
    estimator : CellTerm
        That sums missing ratings out.
    """

    def __init__(self, model: MnarVae, estimator: CellTerm) -> None:
        self._model = model
        self._estimator = estimator
        taste, first = model.decoder.latent_size, 0 if model.exposure.shared else model.decoder.latent_size
        weight = model.decoder.current()[0].detach()
        self._predictors = [_Predictor(slice(0, taste), vectors) for vectors in weight]
        self._n_natural = len(weight)
        if not model.exposure.is_absent:
            vectors = model.exposure.vectors(model.decoder.n_items).detach()
            self._predictors.append(_Predictor(slice(first, first + vectors.shape[1]), vectors))
        self._products = {
            (a, b): (one.vectors[:, :, None] * two.vectors[:, None, :]).flatten(1)  # (I, k l)
            for a, one in enumerate(self._predictors)
            for b, two in enumerate(self._predictors[a:], start=a)
        }

    def at(self, z: Tensor, batch: UserBatch) -> tuple[Tensor, Tensor]:
        """Return the gradient at z (B, K') and minus the Hessian: (B, K'), (B, K', K')."""
        total = _Sum(z, self._predictors, self._products)
        total.add_prior(z - self._model.prior_mean(batch))
        self._add_pairs(total, z, batch)
        if self._estimator.missing.depends_on_rating or not self._model.exposure.is_absent:
            n_items = self._estimator.decoder.n_items if batch.drawn is None else len(batch.drawn)
            size = max(1, BLOCK_CELLS // (2 * len(self._predictors) * n_items))
            for start in range(0, batch.n_users, size):
                users = slice(start, min(start + size, batch.n_users))
                self._add_unrated(total, z[users], users, batch.block(users.start, users.stop))
        return total.gradient, total.precision

    def _add_unrated(self, total: "_Sum", z: Tensor, users: slice, batch: UserBatch) -> None:
        """Add the missing-entry term of a block of users."""
        estimator, parts = self._estimator, []
        items = slice(None) if batch.drawn is None else batch.drawn
        unrated = batch.unrated(estimator.decoder.n_items)
        taste, z_x = self._model.split_latent(z[None])
        n_natural = self._n_natural if estimator.missing.depends_on_rating else 0
        if n_natural:
            parts.append(estimator.decoder.natural(taste, items).squeeze(0).transpose(0, 1))  # (C, b, I)
        offset = self._model.exposure.biased_cells(z_x, items, estimator.missing.bias(items))
        moves = not self._model.exposure.is_absent
        if moves:
            parts.append(offset)

        def term(predictors: Tensor) -> Tensor:  # of S points: (S, L, b, I)
            natural = predictors[:, :n_natural].transpose(1, 2) if n_natural else None
            return estimator.given(natural, predictors[:, -1] if moves else offset, None, unrated, items)

        first = 0 if n_natural else self._n_natural
        predictors = torch.cat(parts)
        known = None
        if n_natural:
            natural = predictors[None, :n_natural].transpose(1, 2)
            known = estimator.expand(natural, predictors[None, -1] if moves else None, unrated, items)
        total.add_cells(first, users, *(known or _derivatives(term, predictors)), items)

    def _add_pairs(self, total: "_Sum", z: Tensor, batch: UserBatch) -> None:
        """Add the rated cells: what they are, and that they are rated. Given x and z, the two are independent."""
        model, decoder = self._model, self._estimator.decoder
        taste, z_x = model.split_latent(z[None])
        ratings = _derivatives(
            lambda natural: decoder.distribution(natural, batch.items).log_prob(batch.ratings),
            decoder.natural_pairs(taste, batch).squeeze(0),
        )
        total.add_pairs(0, *ratings, batch)
        offset = model.exposure.pairs(z_x, batch)
        if offset is not None:
            logit = model.missing.logit(batch.ratings[None, :], batch.items).squeeze(0)
            could = model.survey_could_be_rated
            rated = _derivatives(
                lambda shift: log_mask(logit + shift.squeeze(1), batch, survey_could_be_rated=could), offset
            )
            total.add_pairs(self._n_natural, *rated, batch)


class _Sum:
    """Gradient (B, K') and minus the Hessian (B, K', K'), summed over cells."""

    def __init__(self, z: Tensor, predictors: list[_Predictor], products: dict[tuple[int, int], Tensor]) -> None:
        self.gradient = torch.zeros_like(z)
        self.precision = z.new_zeros(*z.shape, z.shape[-1])
        self._predictors = predictors
        self._products = products

    def add_prior(self, distance: Tensor) -> None:
        """Add that of N(0, I) at a distance (B, K') from its mean."""
        self.gradient -= distance
        self.precision += torch.eye(distance.shape[-1], device=distance.device)

    def add_cells(self, first: int, users: slice, slope: Tensor, bend: Tensor, items: slice | Tensor) -> None:
        """Add first (L, b, I) and second derivatives (L, L, b, I) by the predictors from ``first`` on."""
        for a, by_a in enumerate(slope, start=first):
            predictor = self._predictors[a]
            self.gradient[users, predictor.part] += by_a @ predictor.vectors[items]
            for b in range(a, first + len(slope)):
                self._add_block(users, a, b, bend[a - first, b - first] @ self._products[a, b][items])

    def add_pairs(self, first: int, slope: Tensor, bend: Tensor, batch: UserBatch) -> None:
        """Add first (L, n) and second derivatives (L, L, n) by the predictors of pairs from ``first`` on."""
        everyone = slice(None)

        def by_user(values: Tensor, rows: Tensor) -> Tensor:
            weighted = values[:, None] * rows.index_select(0, batch.items)
            return weighted.new_zeros(batch.n_users, weighted.shape[1]).index_add(0, batch.rows, weighted)

        for a, by_a in enumerate(slope, start=first):
            predictor = self._predictors[a]
            self.gradient[:, predictor.part] += by_user(by_a, predictor.vectors)
            for b in range(a, first + len(slope)):
                self._add_block(everyone, a, b, by_user(bend[a - first, b - first], self._products[a, b]))

    def _add_block(self, users: slice, a: int, b: int, hessian: Tensor) -> None:
        one, two = self._predictors[a], self._predictors[b]
        block = hessian.view(-1, one.vectors.shape[1], two.vectors.shape[1])
        self.precision[users, one.part, two.part] -= block
        if a != b:
            self.precision[users, two.part, one.part] -= block.mT


def _derivatives(function: Callable[[Tensor], Tensor], predictors: Tensor) -> tuple[Tensor, Tensor]:
    """Return first (L, ...) and second derivatives (L, L, ...) by the predictors (L, ...) of each cell.

    ``function`` gives S points (S, L, ...) terms, of each cell or summed over some; no cell has a part in another's.
    """
    count = len(predictors)
    apart = _APART * torch.eye(count, device=predictors.device).view(count, count, *[1] * (predictors.dim() - 1))
    with torch.enable_grad():
        points = torch.cat([predictors + apart, predictors - apart]).detach().requires_grad_()  # (2 L, L, ...)
        gradients = torch.autograd.grad(function(points).sum(), points)[0].nan_to_num(0.0, 0.0, 0.0)
    bend = (gradients[:count] - gradients[count:]) / (2 * _APART)
    return gradients.mean(0), (bend + bend.transpose(0, 1)) / 2
