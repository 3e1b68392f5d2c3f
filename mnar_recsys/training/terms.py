"""The terms of the bound, as training reports them."""

from dataclasses import asdict, astuple, dataclass
from typing import Self

import numpy as np
import torch

from mnar_recsys.model.bound import LogWeights, effective_sample_size, importance_bound


@dataclass(frozen=True)
class BoundTerms:
    """Means over users, in nats; higher is better for all but the last three."""

    bound: float
    """importance-weighted bound on log p(x_obs, s)"""
    log_p_x: float
    """log p(x_obs|z) under the self-normalised weights"""
    log_p_s: float
    """log p(s|x) under the same weights"""
    kl: float
    """log q(z|x_obs) - log p(z) under the same weights"""
    ess: float
    """effective sample size, between 1 and S"""
    weight_cost: float
    """what weights and slope cost under their priors, shared out over the users; training maximises bound less this"""

    @classmethod
    def of(cls, weights: LogWeights, weight_cost: float) -> Self:
        """Return those of a batch."""
        with torch.no_grad():
            total, share = weights.total, torch.softmax(weights.total, dim=0)
            parts = torch.stack([weights.log_p_x, weights.log_p_s, weights.log_q_z - weights.log_p_z])
            by_user = [importance_bound(total), *(share * parts).sum(1), effective_sample_size(total)]
            bound, log_p_x, log_p_s, kl, ess = torch.stack(by_user).mean(1).tolist()
            return cls(bound, log_p_x, log_p_s, kl, ess, weight_cost)

    def values(self) -> tuple[float, ...]:
        """Return them in order."""
        return astuple(self)


def mean_terms(terms: list[BoundTerms]) -> dict[str, float]:
    """Return the mean of each term, by name."""
    rows = [asdict(term) for term in terms]
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
