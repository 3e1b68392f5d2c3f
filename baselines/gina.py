"""GINA: a deep latent-variable model of ratings and mask, whose prior is learned from an auxiliary variable."""

import math
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from baselines.descent import descend
from baselines.fitting import check_positive, seeded
from baselines.gina_model import GinaModel, Ratings
from baselines.selection import SelectionBaseline
from mnar_recsys.data import Split
from mnar_recsys.errors import ConfigError
from mnar_recsys.rng import torch_seed

_ITEMS_DRAWN = 128  # in a step; the unrated ones among them stand for all unrated items
_GAIN = 0.01  # nats a rating
_SLOWING = 400  # steps
_PREDICTION_DRAWS = 50
_NODES = 9  # of Gauss-Hermite quadrature over a rating
_CELLS_AT_ONCE = 500_000  # draws x users x items

Statistic = Callable[[Tensor, Tensor, Tensor], Tensor]


class Gina(SelectionBaseline):
    r"""GINA: an identifiable deep latent-variable model of ratings and of who rates what.

    Ma and Zhang, Identifiable generative models for missing not at random data imputation, NeurIPS 2021:
    :math:`p(x, s, z \mid u) = p(s \mid x, z)\, p(x \mid z)\, p(z \mid u)`, where u is observed for everyone: here the
    user's mask s itself, the authors' choice where nothing else is. p(z|u) is Gaussian with mean and log variance
    linear in the mask; p(x|z) is Gaussian with a sigmoid mean on the scale's range, from a network with one hidden
    layer; q(z|x, s) sums codes of the rated (item, rating) pairs. Maximises the importance-weighted bound
    :math:`E \log \frac 1L \sum_l w_l` with :math:`w = p(s|x, z)\, p(x_{obs}|z)\, p(z|u) / q(z|x_{obs}, s)` and missing
    ratings drawn from p(x|z).

    Other than in the authors' code: the log-odds of being rated are linear in the cell's own rating, with one slope for
    all items and a bias an item, where theirs come from a network over all of a user's ratings and z; the decoder's
    variance is learned unless given; in training, the unrated among at most 128 drawn items are weighted to stand for
    all unrated ones, which is unbiased for log w but not for the bound of several draws; and steps have one size until
    the bound, averaged over 100 of them, twice in a row has not risen by .01 nats a rating, or for 5000 steps, then
    fall to 0 in 400, instead of a fixed number of passes.

    The prediction is E[x] over the posterior of z, by self-normalised importance sampling from 50 draws with all items'
    masks: what the user would answer if asked. An unknown user has the prior of an empty mask, an unknown item the mean
    of all items.

    Parameters
    ----------
    latent_size
        Dimension of z.
    hidden_size
        Width of the decoder's hidden layer.
    mask_weight
        Weight of log p(s|x, z), at least 0; 0 ignores how the ratings were selected.
    latent_connection
        Whether the log-odds of being rated have a term linear in z beside the item's bias and the rating. With it the
        mask, which z is inferred from, can explain itself and leave little for the ratings to explain; without it,
        people who rate more or less than others can only be explained by their ratings.
    decoder_variance
        Of p(x|z), in squared ranges of the scale; learned where not given.
    draws
        L in training.
    learning_rate
        Adam's step size.
    batch_size
        Users per step.

    Raises
    ------
    ConfigError
        If ``mask_weight`` is below 0, or another setting not above 0.
    """

    search_space: ClassVar[Mapping[str, tuple[Any, ...]]] = MappingProxyType(
        {"latent_size": (10, 20), "latent_connection": (False, True)}
    )

    model: GinaModel

    def __init__(
        self,
        *,
        latent_size: int = 20,
        hidden_size: int = 10,
        mask_weight: float = 1.0,
        latent_connection: bool = False,
        decoder_variance: float | None = None,
        draws: int = 5,
        learning_rate: float = 0.02,
        batch_size: int = 100,
    ) -> None:
        check_positive(latent_size=latent_size, hidden_size=hidden_size, draws=draws)
        check_positive(learning_rate=learning_rate, batch_size=batch_size)
        if decoder_variance is not None:
            check_positive(decoder_variance=decoder_variance)
        if not 0.0 <= mask_weight < math.inf:
            raise ConfigError(f"mask_weight must be a number from 0; found {mask_weight}. Give 0 to ignore the mask")
        self.latent_size = latent_size
        self.hidden_size = hidden_size
        self.mask_weight = mask_weight
        self.latent_connection = latent_connection
        self.decoder_variance = decoder_variance
        self.draws = draws
        self.learning_rate = learning_rate
        self.batch_size = batch_size

    def _fit(self, split: Split, seed: int) -> None:
        log = split.mnar_train
        self._scale = log.scale
        self._ratings = Ratings.of_log(log)
        self.model = seeded(lambda: self._make(log.n_items), seed, "gina", "start")
        self.model.start_at(self._ratings)
        generator = torch.Generator().manual_seed(torch_seed(seed, "gina", "train"))
        users, items = passes(log.n_users, self.batch_size, generator), passes(log.n_items, _ITEMS_DRAWN, generator)
        per_user = log.n_ratings / log.n_users
        descend(
            lambda: self._loss(next(users), next(items), generator) / per_user,
            [parameter for parameter in self.model.parameters() if parameter.requires_grad],
            learning_rate=self.learning_rate,
            gain=_GAIN,
            slowing=_SLOWING,
            who=type(self).__name__,
        )
        # The same draws for every user, so that a prediction does not depend on what else is asked for.
        generator = torch.Generator().manual_seed(torch_seed(seed, "gina", "predict"))
        self._noise = torch.randn(_PREDICTION_DRAWS, 1, self.latent_size, generator=generator)
        self._rating_noise = torch.randn(_PREDICTION_DRAWS, 1, log.n_items, generator=generator)

    def _make(self, n_items: int) -> GinaModel:
        model = GinaModel(n_items, self.latent_size, self.hidden_size, latent_connection=self.latent_connection)
        if self.decoder_variance is not None:
            torch.nn.init.constant_(model.log_sd, 0.5 * math.log(self.decoder_variance))
            model.log_sd.requires_grad_(False)
        return model

    def _loss(self, users: Tensor, items: Tensor, generator: torch.Generator) -> Tensor:
        """Return minus the bound, the mean over the users, in nats."""
        noise = torch.randn(self.draws, len(users), self.latent_size, generator=generator)
        rating_noise = torch.randn(self.draws, len(users), len(items), generator=generator)
        terms = self.model.log_weights(self._ratings.of_users(users), noise, items, rating_noise)
        return math.log(self.draws) - terms.total(self.mask_weight).logsumexp(0).mean()

    def _predict(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float64]:
        return self._in_points(self._over_pairs(self._mean, rows, columns))

    def _expected_if_rated(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float64]:
        return self._in_points(self._over_pairs(self._mean_if_rated, rows, columns))

    def _in_points(self, ratings: NDArray[np.float64]) -> NDArray[np.float64]:
        return self._scale.low + (self._scale.high - self._scale.low) * ratings

    def _mean(self, z: Tensor, weight: Tensor, items: Tensor) -> Tensor:
        """Return E[x] of pairs, (n,), given their draws of z, (S, n, K), and weights of these, (S, n)."""
        unknown = items == self.model.n_items
        mean = self.model.mean_rating_of_pairs(z, torch.where(unknown, 0, items))
        if unknown.any():
            mean[:, unknown] = self.model.mean_rating(z[:, unknown], torch.arange(self.model.n_items)).mean(-1)
        return (weight * mean).sum(0)

    def _mean_if_rated(self, z: Tensor, weight: Tensor, items: Tensor) -> Tensor:
        """Return E[x | rated] of pairs, as ``_mean`` does E[x]."""
        nodes, node_weight = (torch.from_numpy(part).float() for part in np.polynomial.hermite_e.hermegauss(_NODES))
        ratings = self.model.mean_rating_of_pairs(z, items)[..., None] + self.model.log_sd.exp() * nodes
        log_odds = self.model.log_odds_of_pairs(z, items)[..., None] + self.model.effect(ratings)
        joint = weight[..., None] * node_weight * torch.sigmoid(log_odds)  # (S, n, nodes)
        return (joint * ratings).sum((0, 2)) / joint.sum((0, 2))

    @torch.no_grad()
    def _over_pairs(
        self, statistic: Statistic, rows: NDArray[np.int64], columns: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Return a statistic of index pairs, (n,), a block of users at a time: their weights need all items."""
        result = np.empty(len(rows))
        users, place = np.unique(rows, return_inverse=True)
        size = max(1, _CELLS_AT_ONCE // (_PREDICTION_DRAWS * self.model.n_items))
        for begin in range(0, len(users), size):
            inside = np.flatnonzero((place >= begin) & (place < begin + size))
            z, weight = self._weighted_draws(torch.from_numpy(users[begin : begin + size]))
            at = torch.from_numpy(place[inside] - begin)
            result[inside] = statistic(z[:, at], weight[:, at], torch.from_numpy(columns[inside])).numpy()
        return result

    def _weighted_draws(self, users: Tensor) -> tuple[Tensor, Tensor]:
        """Return draws of users' z, (S, B, K), and weights that sum to 1 over the draws, (S, B)."""
        batch = self._ratings.of_users(users)
        noise = self._noise.expand(-1, len(users), -1)
        items = torch.arange(self.model.n_items)
        weight = self.model.log_weights(batch, noise, items, self._rating_noise).total(self.mask_weight).softmax(0)
        z = self.model.draw(self.model.posterior_of(batch), noise)
        unknown = users == len(self._ratings.indptr) - 2
        if unknown.any():
            # Nobody knows that this user rated nothing: the mask says nothing of z, the prior all.
            z[:, unknown] = self.model.draw(self.model.prior_of(batch), noise)[:, unknown]
            weight[:, unknown] = 1.0 / _PREDICTION_DRAWS
        return z, weight


def passes(n: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield 0..n-1 in random order, ``size`` at a time, again and again without end."""
    while True:
        yield from torch.split(torch.randperm(n, generator=generator), size)
