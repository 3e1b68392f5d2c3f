"""The importance-weighted bound on the joint likelihood (eqs. 8 and 9). Higher is better."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LogWeights:
    """The four terms of log w, and a part of one of them, each (S, B), in nats a user."""

    log_p_x: Tensor
    """log p(x_obs | z)"""
    log_p_s: Tensor
    """log p(s | x_obs, x_mis), missing ratings drawn or summed out: of the cells rated, and of those that are not"""
    log_p_z: Tensor
    """log p(z)"""
    log_q_z: Tensor
    """log q(z | x_obs)"""
    log_p_unrated: Tensor
    """what ``MissingTerm`` gave: the part of log_p_s that a sample of items estimates"""

    @property
    def total(self) -> Tensor:
        """Log w (S, B), eq. 9."""
        return self.log_p_x + self.log_p_s + self.log_p_z - self.log_q_z


def importance_bound(log_w: Tensor) -> Tensor:
    """Log (1/S) sum_k w_k for each user: (S, B) -> (B,), eq. 8. Rises with S in expectation (eq. 10)."""
    return torch.logsumexp(log_w, dim=0) - math.log(log_w.shape[0])


def effective_sample_size(log_w: Tensor) -> Tensor:
    """Kish's effective sample size of the self-normalised weights: (S, B) -> (B,), between 1 and S."""
    return 1 / torch.softmax(log_w, dim=0).square().sum(0)
