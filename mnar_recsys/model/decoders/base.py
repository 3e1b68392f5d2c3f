"""p(x|z): what every decoder and the distributions it returns have in common."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from mnar_recsys.data import FeatureTable
from mnar_recsys.model.affine import affine
from mnar_recsys.model.batch import UserBatch
from mnar_recsys.model.features import ItemEffect
from mnar_recsys.model.indexing import lift, masked_sum, sum_items, take
from mnar_recsys.model.weight_posterior import WeightPosterior

# Where the weights of the user's level start: people differ in it by about so many units of a natural parameter.
_INITIAL_LEVEL = 0.3


class OnSupport(ABC):
    """What the missing-entry term asks of ratings, of which there is a distribution or a draw."""

    @property
    @abstractmethod
    def support(self) -> Tensor:
        """Ratings at which an integrand is evaluated, broadcastable to (..., Q, I), in rating points."""

    @abstractmethod
    def sum_log_unrated(self, logit: Tensor, offset: Tensor | None, unrated: Tensor) -> Tensor:
        """Sum log(1 - pi) over the cells, each ``unrated`` (B, I) times, from the logit on the support: (S, B)."""

    def sum_log_unrated_linear(
        self, slope: Tensor, intercept: Tensor, offset: Tensor | None, unrated: Tensor
    ) -> Tensor:
        """``sum_log_unrated`` of the logit slope * x + intercept, x in rating points; both (1,) or (I,): (S, B)."""
        return self.sum_log_unrated(slope * self.support + intercept, offset, unrated)


class RatingDistribution(OnSupport):
    """Independent distributions of ratings, given z, over a grid of cells (..., I) or pairs (..., n).

    Expectations run over a *support* axis of length Q that stands right before the cells: (..., Q, I). For levels
    the support is the levels themselves and expectations are exact; for a density it is its quadrature nodes.
    """

    has_levels = False
    """Whether the only possible ratings are those of the support."""

    @property
    @abstractmethod
    def support(self) -> Tensor:
        """Ratings at which an integrand is evaluated, broadcastable to (..., Q, I), in rating points."""

    @property
    @abstractmethod
    def support_weights(self) -> Tensor:
        """Weights of the support, broadcastable to (..., Q, I); they sum to 1 over Q."""

    @property
    def mean(self) -> Tensor:
        """E[x|z] in rating points: (..., I)."""
        return self.expectation(self.support)

    def expectation(self, values: Tensor) -> Tensor:
        """E[f(x)|z] from f on the support: (..., Q, I) -> (..., I)."""
        return (self.support_weights * values).sum(-2)

    def log_unrated(self, logit: Tensor, offset: Tensor | None) -> Tensor:
        """Log E[1 - pi(x) | z] of cells: logit of pi on the support (..., Q, I) or (..., Q, 1), offset -> (S, B, I).

        ``offset`` (S, B), (S, B, I), or (1, 1, I) is added to the logit.
        """
        if offset is not None:
            logit = logit + lift(offset).unsqueeze(-2)
        unrated = self.expectation(torch.sigmoid(-logit))
        # The smallest normal number keeps the log finite where pi rounds to 1.
        return torch.log(unrated + torch.finfo(unrated.dtype).tiny)

    def sum_log_unrated(self, logit: Tensor, offset: Tensor | None, unrated: Tensor) -> Tensor:
        """Sum ``log_unrated`` over the cells where ``unrated`` (B, I) is 1: (S, B). The place for a faster kernel."""
        return masked_sum(self.log_unrated(logit, offset), unrated)

    def expand_log_unrated(
        self,
        logit: Tensor,  # noqa: ARG002
        offset: Tensor | None,  # noqa: ARG002
        unrated: Tensor,  # noqa: ARG002
    ) -> tuple[Tensor, Tensor] | None:
        """Return first and second derivatives of each cell's term by its natural parameters and offset, if known.

        For one draw of z: logit (Q, I), offset (1, B, I), unrated (B, I) -> (L, B, I) and (L, L, B, I), natural
        parameters first; None where they have to be found from differences.
        """
        return None

    @abstractmethod
    def log_prob(self, ratings: Tensor) -> Tensor:
        """Log probability (levels) or log density (a density, per rating point) of ratings (..., I)."""

    @abstractmethod
    def mass(self, grid: "Grid") -> Tensor:
        """Probability of each bin of the decoder's grid: (..., G, I)."""

    def masses(self, grid: "Grid") -> Sequence[Tensor]:
        """Return ``mass`` bin by bin: G times (..., I)."""
        return self.mass(grid).unbind(-2)

    @abstractmethod
    def draw(self, noise: Tensor) -> "DrawnRatings":
        """Reparameterised draws of x from the noise that ``Decoder.noise`` makes."""


@dataclass(frozen=True)
class Grid:
    """G bins that cover the ratings a decoder can produce, in rating points, rising; each field is (G,).

    A level is a bin of no width: ``lower``, ``centre`` and ``upper`` are the level.
    """

    lower: Tensor
    centre: Tensor
    upper: Tensor


class DrawnRatings(OnSupport):
    """Reparameterised draws of the ratings of a grid of cells (..., I), each as weights on support points.

    A hard draw is one point of weight 1; a Gumbel-softmax draw is a soft one-hot over the levels.
    """

    @property
    @abstractmethod
    def support(self) -> Tensor:
        """Ratings of the support points, broadcastable to (..., Q, I), in rating points."""

    @property
    @abstractmethod
    def weights(self) -> Tensor:
        """Weights of the support points, broadcastable to (..., Q, I)."""

    @property
    def ratings(self) -> Tensor:
        """The ratings drawn, (..., I), in rating points: of a soft draw the mean."""
        return (self.weights * self.support).sum(-2)

    def sum_log_unrated(self, logit: Tensor, offset: Tensor | None, unrated: Tensor) -> Tensor:
        """Sum log(1 - pi) over the cells where ``unrated`` (B, I) is 1, from the logit on the support: (S, B)."""
        logit = (self.weights * logit).sum(-2)
        return masked_sum(logsigmoid(-(logit if offset is None else logit + lift(offset))), unrated)


class Decoder(nn.Module, ABC):
    """A linear map from the latent taste to the natural parameters of each item's rating.

    ``weight`` (C, P, K) and ``bias`` (C, P) with C channels an item, which rise with the rating where there are
    several. A priori the items' weights are alike, not near 0: a dimension along which all items move together is the
    user's level, and costs no more than one number. The first one starts as that.
    """

    def __init__(self, bias: Tensor, latent_size: int) -> None:
        super().__init__()
        channels, n_items = bias.shape
        weight = torch.randn(channels, n_items, latent_size) * (0.1 / math.sqrt(latent_size))
        weight[..., 0] += _INITIAL_LEVEL * torch.linspace(-1, 1, channels)[:, None] if channels > 1 else _INITIAL_LEVEL
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(bias.clone())
        self.weight_posterior: WeightPosterior | None = None
        self.bias_posterior: WeightPosterior | None = None
        self.weight_effect: ItemEffect | None = None
        self.bias_effect: ItemEffect | None = None

    def be_variational(self) -> None:
        """Give weights and biases a variational posterior; ``weight`` and ``bias`` become its means."""
        weight, bias = self.weight.detach(), self.bias.detach()
        self.weight_posterior = WeightPosterior(weight, prior_mean=weight.mean(1, keepdim=True))
        self.bias_posterior = WeightPosterior(bias, prior_mean=bias.mean(1, keepdim=True), per_dimension=False)

    def know_items(self, table: FeatureTable) -> None:
        """Let features of the items decide where their weights and biases are expected."""
        channels, _, latent_size = self.weight.shape
        self.weight_effect = ItemEffect(table, (channels, latent_size))
        self.bias_effect = ItemEffect(table, (channels,))

    def current(self) -> tuple[Tensor, Tensor]:
        """Return weight and bias as drawn for this step, or their values where nothing is drawn."""
        weight: Tensor = self.weight
        bias: Tensor = self.bias
        if self.weight_posterior is not None and self.bias_posterior is not None:
            weight, bias = self.weight_posterior.draw(weight), self.bias_posterior.draw(bias)
        if self.weight_effect is not None and self.bias_effect is not None:
            weight = weight + self.weight_effect.of_items().transpose(0, 1)
            bias = bias + self.bias_effect.of_items().T
        return weight, bias

    def kl(self) -> Tensor:
        """KL divergence of the variational posterior from the prior, in nats: a scalar."""
        if self.weight_posterior is None or self.bias_posterior is None:
            return self.weight.new_zeros(())
        return self.weight_posterior.kl(self.weight) + self.bias_posterior.kl(self.bias)

    @property
    def latent_size(self) -> int:
        """Size K of the latent taste."""
        return self.weight.shape[2]

    @property
    def n_items(self) -> int:
        """Number of items P."""
        return self.weight.shape[1]

    def cells(self, z: Tensor, items: slice | Tensor = slice(None)) -> RatingDistribution:
        """p(x|z) of every user and item of a block: z (S, B, K) -> cells (S, B, I)."""
        return self.distribution(self.natural(z, items), items)

    def natural(self, z: Tensor, items: slice | Tensor = slice(None)) -> Tensor:
        """Return the natural parameters of every user and item of a block: z (S, B, K) -> (S, B, C, I)."""
        weight, bias = (take(values, items, dim=1) for values in self.current())
        channels, n_items, _ = weight.shape
        natural = affine(z, weight.flatten(0, 1), bias.flatten())  # (S, B, C * I)
        return natural.view(*z.shape[:-1], channels, n_items)

    def pairs(self, z: Tensor, batch: UserBatch) -> RatingDistribution:
        """p(x|z) of the observed pairs only: z (S, B, K) -> pairs (S, n)."""
        return self.distribution(self.natural_pairs(z, batch), batch.items)

    def natural_pairs(self, z: Tensor, batch: UserBatch) -> Tensor:
        """Return the natural parameters of the observed pairs only: z (S, B, K) -> (S, C, n)."""
        weight, bias = self.current()
        return batch.pair_products(z, weight) + take(bias, batch.items)

    def on_levels(self, levels: Tensor) -> "Decoder":  # noqa: ARG002
        """Return the decoder of the ratings rounded to ``levels`` (R,), with the same weights; of levels, itself."""
        return self

    def log_weight_prior(
        self, weight_sd: float | None, bias_sd: float | None, item_weights: Tensor | None = None
    ) -> Tensor:
        """Log density, up to a constant, of weights under N(m, weight_sd^2) and biases under N(m, bias_sd^2).

        m is their mean over the items, for each latent dimension apart. A scalar; a part whose sd is None has none.
        ``item_weights`` (P,): how many items each stands for, where they are a sample.
        """
        total = self.weight.new_zeros(())
        for values, sd in ((self.weight.transpose(1, 2), weight_sd), (self.bias, bias_sd)):
            if sd is not None:
                n_items = self.n_items if item_weights is None else item_weights.sum()
                centred = values - sum_items(values, item_weights)[..., None] / n_items
                total = total - 0.5 * sum_items(centred.square(), item_weights).sum() / sd**2
        return total

    def item_axes(self) -> dict[str, int]:
        """Return which tensors have a row for each item; see ``HasItemRows``."""
        return {"weight": 1, "bias": 1}

    def log_density(self) -> Tensor | float:
        """Log prior density, up to a constant, of the parameters that items share, as they are stored: a scalar.

        For a sampler: an optimiser takes them as flat. Here there are none.
        """
        return 0.0

    @abstractmethod
    def distribution(self, natural: Tensor, items: slice | Tensor) -> RatingDistribution:
        """Distribution of cells from natural parameters (..., C, I); ``items`` says which items they are."""

    @abstractmethod
    def grid(self) -> Grid:
        """Bins for distribution functions, quantiles and draws."""

    @abstractmethod
    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Noise for ``RatingDistribution.draw`` over cells of this shape (S, B, I)."""
