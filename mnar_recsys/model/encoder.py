"""q(z | x_obs): a permutation-invariant set encoder (Ma et al. 2018; appendix A.3 of the paper)."""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from mnar_recsys.data import FeatureTable, RatingScale
from mnar_recsys.model.batch import UserBatch
from mnar_recsys.model.features import FeatureEffect, ItemEffect

INITIAL_LOG_SD = -1.0


class SetEncoder(nn.Module):
    """Map a user's observed (item, rating) pairs to the mean and log standard deviation of q(z|x_obs).

    Each pair gets a code relu(A [e_j, x_ij] + a); codes are summed over the user's pairs and mapped linearly to z.
    Cost follows the number of ratings. The order of the pairs does not matter.

    Parameters
    ----------
    posterior_scale : "shared" or "per-user"
        One free vector of standard deviations for all users (A.3), or encoded from the same code.
    has_survey : bool
        Whether some ratings were collected at random: their codes are shifted, since they say other things of a user.
    """

    def __init__(
        self,
        n_items: int,
        scale: RatingScale,
        *,
        embedding_size: int,
        code_size: int,
        latent_size: int,
        posterior_scale: Literal["shared", "per-user"],
        has_survey: bool = False,
    ) -> None:
        super().__init__()
        self.scale = scale
        self.latent_size = latent_size
        self.item_embedding = nn.Parameter(torch.randn(n_items, embedding_size) / math.sqrt(embedding_size))
        self.code = nn.Linear(embedding_size + 1, code_size)
        self.survey_shift = nn.Parameter(torch.zeros(code_size)) if has_survey else None
        self.item_effect: ItemEffect | None = None
        self.user_effect: FeatureEffect | None = None
        self.mean = nn.Linear(code_size, latent_size)
        # Codes are summed over up to hundreds of ratings; start with a q(z|x) near the prior all the same.
        with torch.no_grad():
            self.mean.weight.mul_(0.1)
        self.log_sd_bias = nn.Parameter(torch.full((latent_size,), INITIAL_LOG_SD))
        self.log_sd_weight = (
            nn.Parameter(torch.zeros(latent_size, code_size)) if posterior_scale == "per-user" else None
        )

    def know_items(self, table: FeatureTable) -> None:
        """Let features of the items decide where their embeddings are expected."""
        self.item_effect = ItemEffect(table, (self.item_embedding.shape[1],))

    def know_users(self, table: FeatureTable) -> None:
        """Let features of the users shift the mean of q: the prior mean that they give is not the same for all."""
        self.user_effect = FeatureEffect(table, (self.latent_size,))

    def item_axes(self) -> dict[str, int]:
        """Return which tensors have a row for each item; see ``HasItemRows``."""
        return {"item_embedding": 0}

    def forward(self, batch: UserBatch) -> tuple[Tensor, Tensor]:
        """Return ``(mean, log_sd)``, each (B, K)."""
        pairs = nn.functional.embedding(batch.items, self.item_table())  # (n, E)
        codes = self.codes(pairs, batch.ratings, batch.surveyed)
        pooled = codes.new_zeros(batch.n_users, codes.shape[-1]).index_add(0, batch.rows, codes)  # (B, H)
        mean, log_sd = self.head(pooled)
        if self.user_effect is not None and batch.user_features is not None:
            mean = mean + self.user_effect(batch.user_features)
        return mean, log_sd

    def item_table(self) -> Tensor:
        """Return the items' embeddings (P, E), where their features expect them."""
        table: Tensor = self.item_embedding
        return table if self.item_effect is None else table + self.item_effect.of_items()

    def codes(self, embeddings: Tensor, ratings: Tensor, surveyed: Tensor | None = None) -> Tensor:
        """Return the codes of pairs from embeddings (..., E), ratings (...) and what was surveyed (...): (..., H)."""
        rating = (ratings - self.scale.centre) / (self.scale.half_width / 2)
        # Under autocast the layers' outputs are short floats; sums and densities want long ones.
        activation: Tensor = self.code(torch.cat([embeddings, rating[..., None]], dim=-1))
        if self.survey_shift is not None and surveyed is not None:
            activation = activation + surveyed[..., None] * self.survey_shift
        return torch.relu(activation).float()

    def head(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log standard deviation, (B, K) each, from the sums of users' codes (B, H)."""
        log_sd = self.log_sd_bias.expand(len(pooled), -1)
        if self.log_sd_weight is not None:
            # Every rating narrows the posterior, so the log sd falls about as log(1 + evidence) / 2.
            log_sd = log_sd - 0.5 * torch.log1p(nn.functional.softplus(pooled @ self.log_sd_weight.T))
        return self.mean(pooled).float(), log_sd.float()
