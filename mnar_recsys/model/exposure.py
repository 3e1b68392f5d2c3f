"""What decides who rates what apart from the rating: a user's activity, and exposure along a latent."""

import math

import torch
from torch import Tensor, nn

from mnar_recsys.data import FeatureTable
from mnar_recsys.model.affine import affine
from mnar_recsys.model.batch import UserBatch
from mnar_recsys.model.features import ItemEffect
from mnar_recsys.model.indexing import shifted, sum_items, take
from mnar_recsys.model.weight_posterior import WeightPosterior

_INITIAL_LOG_ACTIVITY_SD = -0.5


class Exposure(nn.Module):
    """Offset of the log-odds of rating: a_i + v_j . z_x, with activity a_i ~ N(0, tau^2) and z_x ~ N(0, I).

    ``z_x`` is a block of the latent that the decoder does not see, so that who meets what is not explained by
    distorting ratings; with ``shared`` it is the taste as well, so that what people rated at all says something of
    their taste. (Sharing has a price: a shift of the rating level can then be absorbed by the exposure at almost no
    cost in likelihood, and the level rests on the slope's sign and on the priors.) Any part may be absent.

    Parameters
    ----------
    n_items : int
        Items P.
    size : int
        Size E of the block of its own; 0 for none.
    shared : int
        Size K of the taste if the exposure sees it, else 0.
    activity : bool
        Whether users differ in activity.
    """

    def __init__(self, n_items: int, size: int, *, activity: bool, shared: int = 0) -> None:
        super().__init__()
        self.own_size = size
        self.shared = shared
        self.size = size + shared
        start = torch.randn(n_items, self.size) * (0.1 / math.sqrt(max(self.size, 1)))
        self.weight = nn.Parameter(start) if self.size else None
        self.posterior: WeightPosterior | None = None
        self.effect: ItemEffect | None = None
        self.log_activity_sd = nn.Parameter(torch.tensor(_INITIAL_LOG_ACTIVITY_SD)) if activity else None

    @property
    def latent_size(self) -> int:
        """Size of the block of the latent that is its own: E, and one for the activity."""
        return self.own_size + (self.log_activity_sd is not None)

    @property
    def is_absent(self) -> bool:
        """Whether there is neither exposure nor activity."""
        return self.weight is None and self.log_activity_sd is None

    def split(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Split z into what the decoder sees (S, B, K) and what the exposure sees, the activity last (S, B, E')."""
        taste = z.shape[-1] - self.latent_size
        return z[..., :taste], z if self.shared else z[..., taste:]

    def cells(self, z: Tensor, items: slice | Tensor = slice(None)) -> Tensor | None:
        """Offset of every cell of a block: (S, B, E') -> (S, B, I), (S, B) if it is the same for all items, or None."""
        return self._activity(z) if self.weight is None else self._products(z, items, None)

    def biased_cells(self, z: Tensor, items: slice | Tensor, bias: Tensor) -> Tensor:
        """``cells`` plus the items' biases (I,): (S, B, I), or (1, 1, I) if it is the same for all users."""
        return shifted(self._activity(z), bias) if self.weight is None else self._products(z, items, bias)

    def _products(self, z: Tensor, items: slice | Tensor, bias: Tensor | None) -> Tensor:
        weight, activity, seen = self.current(), self._activity(z), z[..., : self.size]
        assert weight is not None  # noqa: S101
        weight = take(weight, items, dim=0)
        if activity is not None:
            seen = torch.cat([seen, activity[..., None]], dim=-1)
            weight = nn.functional.pad(weight, (0, 1), value=1.0)
        return affine(seen, weight, bias)

    def pairs(self, z: Tensor, batch: UserBatch) -> Tensor | None:
        """Offset of the pairs of a batch: (S, B, E') -> (S, n)."""
        activity = self._activity(z)
        if activity is not None:
            activity = activity.index_select(1, batch.rows)
        weight = self.current()
        if weight is None:
            return activity
        pairs = batch.pair_products(z[..., : self.size], weight[None]).squeeze(1)
        return pairs if activity is None else pairs + activity

    def vectors(self, n_items: int) -> Tensor:
        """Return by how much each dimension of z_x raises the log-odds of rating each of P items: (P, E')."""
        weight, parts = self.current(), []
        if weight is not None:
            parts.append(weight)
        if self.log_activity_sd is not None:
            parts.append(torch.exp(self.log_activity_sd).expand(n_items, 1))
        return torch.cat(parts, dim=1)

    def be_variational(self) -> None:
        """Give the weights a variational posterior; ``weight`` becomes its mean."""
        self.posterior = None if self.weight is None else WeightPosterior(self.weight.detach())

    def current(self) -> Tensor | None:
        """Return the weights (P, E) as drawn for this step, or their values where nothing is drawn."""
        if self.weight is None:
            return None
        weight = self.weight if self.posterior is None else self.posterior.draw(self.weight)
        return weight if self.effect is None else weight + self.effect.of_items()

    def know_items(self, table: FeatureTable) -> None:
        """Let features of the items decide where their weights are expected."""
        self.effect = ItemEffect(table, (self.size,)) if self.size else None

    def kl(self, shift_variance: Tensor | float = 0.0) -> Tensor | float:
        """KL divergence of the variational posterior from the prior, in nats: a scalar; see ``WeightPosterior.kl``."""
        return 0.0 if self.weight is None or self.posterior is None else self.posterior.kl(self.weight, shift_variance)

    def log_weight_prior(self, sd: float | None, item_weights: Tensor | None = None) -> Tensor | float:
        """Log density, up to a constant, of the weights under independent N(0, sd^2): a scalar.

        ``item_weights`` (P,): how many items each stands for, where they are a sample.
        """
        if self.weight is None or sd is None:
            return 0.0
        return -0.5 * sum_items(self.weight.square().sum(-1), item_weights) / sd**2

    def item_axes(self) -> dict[str, int]:
        """Return which tensors have a row for each item; see ``HasItemRows``."""
        return {} if self.weight is None else {"weight": 0}

    def _activity(self, z: Tensor) -> Tensor | None:
        return None if self.log_activity_sd is None else z[..., -1] * torch.exp(self.log_activity_sd)
