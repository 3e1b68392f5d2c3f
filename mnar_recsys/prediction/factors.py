"""A fitted model with a linear decoder as factors of users and items, and these as a recommender of ``implicit``."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from implicit.cpu.matrix_factorization_base import MatrixFactorizationBase
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from mnar_recsys.errors import ConfigError
from mnar_recsys.model.batch import iterate_batches
from mnar_recsys.prediction.posterior import infer, quasi_normal
from mnar_recsys.prediction.predictor import DRAWS, Predictor
from mnar_recsys.rng import torch_seed

_USERS_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class LinearFactors:
    """Factors whose product is the decoder's score: log-odds, of which the expected rating is a rising function."""

    users: NDArray[np.float32]
    """(N, K + 1): the posterior mean of each user's taste, and a one"""
    items: NDArray[np.float32]
    """(P, K + 1): the items' weights and biases, at their posterior means"""


def linear_factors(predictor: Predictor) -> LinearFactors:
    r"""Return factors with :math:`u_i^T v_j = w_j^T E[z_i | x_i, s_i] + b_j`.

    The ordinal decoder's cut points are shared by the items, and the Gaussian's and Student-t's location is one rising
    function of the score, so that for one user the order of the scores is exactly the order of E[x_ij | z_i] at the
    posterior mean of z_i and of the items' weights. What predictions have beside that is left out: the spread of z_i
    and of the weights, over which they average (the more certain of two items with one score is nearer the ends), and
    that the cell stayed unrated, whose factor 1 - pi differs between items.

    Users without ratings have the prior mean. Where the posterior was sampled, the factors are those of the model that
    was fitted once more to the draws.

    Raises
    ------
    ConfigError
        If the decoder has no score: a categorical one has a weight vector for each level; or if the missing model is of
        whole rows, for which there is no marginal posterior of z.
    """
    model, log = predictor.model, predictor.log
    weight, bias = (values.detach() for values in model.decoder.current())
    if len(weight) != 1:
        raise ConfigError(
            f"factors need a decoder with one score an item; found one with {len(weight)} (categorical). "
            "Fit with decoder 'ordinal', 'gaussian' or 'student-t'"
        )
    if model.missing.needs_row:
        raise ConfigError("factors need a missing model of single cells; found 'agnostic'. Fit with another")
    noise = quasi_normal(DRAWS, model.latent_size, torch_seed(predictor.seed, "predict")).to(predictor.device)
    means = []
    for _, batch in iterate_batches(log, np.arange(log.n_users), _USERS_AT_ONCE, predictor.device):
        posterior = infer(model, batch, noise)
        means.append((posterior.share[..., None] * posterior.taste).sum(0))
    taste = torch.cat(means)
    return LinearFactors(
        users=torch.cat([taste, torch.ones_like(taste[:, :1])], dim=1).cpu().numpy(),
        items=torch.cat([weight[0], bias[0, :, None]], dim=1).cpu().numpy(),
    )


class ImplicitFactors(MatrixFactorizationBase):  # type: ignore[misc]
    """Fitted factors behind the interface of ``implicit``: ``recommend``, ``similar_items``, ``save``, ``load``.

    Users and items are indices into the log's ``users`` and ``catalogue``; ``user_items`` are rows of
    ``scipy.sparse.csr_matrix(log.to_scipy())``. Scores are log-odds. ``similar_items`` and ``similar_users`` are
    cosines of the factors, as in implicit's own models with biases.

    Parameters
    ----------
    factors : LinearFactors, optional
        None for ``load``, which sets them.
    num_threads : int
        Of ``recommend`` and the similarities, over batches of users; 0 for all cores. With one, the products may use
        BLAS's own threads; with more, these are limited to one, or the two kinds would wait for each other.
    """

    def __init__(self, factors: LinearFactors | None = None, *, num_threads: int = 1) -> None:
        super().__init__(num_threads=num_threads)
        if factors is not None:
            self.user_factors, self.item_factors = factors.users, factors.items

    def recommend(self, *arguments: Any, **options: Any) -> Any:
        """Return the best items of users and their scores, as any recommender of implicit does."""
        with self._threads():
            return super().recommend(*arguments, **options)

    def _get_similarity_score(self, *arguments: Any, **options: Any) -> Any:
        with self._threads():
            return super()._get_similarity_score(*arguments, **options)

    def _threads(self) -> AbstractContextManager[object]:
        return nullcontext() if self.num_threads == 1 else threadpool_limits(1, "blas")

    def fit(self, user_items: Any, show_progress: bool = True, callback: Any = None) -> None:
        """Raise NotImplementedError: the factors come from a model that was fitted already."""
        raise NotImplementedError("these factors come from a fitted MNARRecommender; fit that and call to_implicit()")

    def save(self, fileobj_or_path: Any) -> None:
        """Write the factors to a ``.npz`` file, without pickles; ``load`` reads it."""
        np.savez(
            fileobj_or_path,
            user_factors=self.user_factors,
            item_factors=self.item_factors,
            num_threads=self.num_threads,
        )
