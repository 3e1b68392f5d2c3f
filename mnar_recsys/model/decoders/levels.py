"""Distributions on rating levels, and the categorical decoder with linear logits (A.3)."""

import torch
from torch import Tensor

from mnar_recsys.data import RatingScale
from mnar_recsys.model.decoders.base import Decoder, DrawnRatings, Grid, RatingDistribution
from mnar_recsys.model.decoders.fused import SumLogUnratedDrawn, sum_log_unrated_levels
from mnar_recsys.model.decoders.level_math import gumbel, level_index


class LevelRatings(RatingDistribution):
    """x | z takes level r with probability softmax(logits)_r; ``logits`` (..., R, I), ``levels`` (R,)."""

    has_levels = True

    def __init__(self, logits: Tensor, levels: Tensor, temperature: float) -> None:
        self.logits = logits
        self.levels = levels
        self._temperature = temperature

    @property
    def support(self) -> Tensor:
        """The levels: (R, 1), in rating points."""
        return self.levels[:, None]

    @property
    def support_weights(self) -> Tensor:
        """Probability of each level: (..., R, I)."""
        return torch.softmax(self.logits, dim=-2)

    def expectation(self, values: Tensor) -> Tensor:
        """E[f(x)|z], exact. One exponential a level instead of a normalised softmax and a product."""
        unnormalised = torch.exp(self.logits - self.logits.detach().amax(-2, keepdim=True))
        return (unnormalised * values).sum(-2) / unnormalised.sum(-2)

    def log_prob(self, ratings: Tensor) -> Tensor:
        """Log probability of ratings (..., I) that stand on levels."""
        chosen = (
            level_index(ratings, self.levels).expand(self.logits.shape[:-2] + self.logits.shape[-1:]).unsqueeze(-2)
        )  # (..., 1, I)
        return torch.log_softmax(self.logits, dim=-2).gather(-2, chosen).squeeze(-2)

    def sum_log_unrated(self, logit: Tensor, offset: Tensor | None, unrated: Tensor) -> Tensor:
        """Value and gradient in one pass: see ``fused``."""
        return sum_log_unrated_levels(self.logits, logit, offset, unrated)

    def mass(self, grid: Grid) -> Tensor:  # noqa: ARG002
        """Return the probability of each level: (..., R, I)."""
        return self.support_weights

    def draw(self, noise: Tensor) -> DrawnRatings:
        """Gumbel-softmax draw at the decoder's temperature (Jang et al. 2016)."""
        return _SoftDraw(self.logits, noise, self.support, self._temperature)


class _SoftDraw(DrawnRatings):
    def __init__(self, logits: Tensor, noise: Tensor, support: Tensor, temperature: float) -> None:
        self._logits = logits
        self._noise = noise
        self._support = support
        self._temperature = temperature

    @property
    def support(self) -> Tensor:
        """The levels: (R, 1)."""
        return self._support

    @property
    def weights(self) -> Tensor:
        """A soft one-hot over the levels: (..., R, I)."""
        return torch.softmax((self._logits + self._noise) / self._temperature, dim=-2)

    def sum_log_unrated(self, logit: Tensor, offset: Tensor | None, unrated: Tensor) -> Tensor:
        """Value and gradient in one pass: see ``SumLogUnratedDrawn``."""
        summed = SumLogUnratedDrawn.apply(  # type: ignore[no-untyped-call]
            self._logits, self._noise, self._temperature, logit, offset, unrated
        )
        assert isinstance(summed, Tensor)  # noqa: S101
        return summed


class CategoricalDecoder(Decoder):
    """x_ij | z ~ Categorical(softmax_r(w_jr . z + c_jr)).

    Parameters
    ----------
    item_level_shares : Tensor
        (R, P) starting probabilities of the levels of each item.
    temperature : float
        Of the Gumbel-softmax draws of the sampled estimator.
    """

    def __init__(self, item_level_shares: Tensor, scale: RatingScale, *, latent_size: int, temperature: float) -> None:
        super().__init__(torch.log(item_level_shares), latent_size)
        self.temperature = temperature
        self.levels: Tensor
        self.register_buffer("levels", torch.tensor(scale.levels, dtype=torch.float32), persistent=False)

    def distribution(self, natural: Tensor, items: slice | Tensor) -> LevelRatings:  # noqa: ARG002
        """Level probabilities of each cell from natural parameters (..., R, I)."""
        return LevelRatings(natural, self.levels, self.temperature)

    def grid(self) -> Grid:
        """Return the levels themselves."""
        return Grid(self.levels, self.levels, self.levels)

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Return standard Gumbel noise (S, B, R, I)."""
        return gumbel((*shape[:-1], len(self.levels), shape[-1]), generator)
