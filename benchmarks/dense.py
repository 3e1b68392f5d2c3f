"""The same model written the plain way: dense arrays of users x items, masks, autograd. What the others are held to."""

import math

import torch
from torch import Tensor, nn


class DenseNotMiwae(nn.Module):
    """not-MIWAE with a Gaussian decoder and a shared logistic missing model, sampled estimator (appendix A.3).

    Every array is (S, B, P) or (B, P), as in implementations for tables.
    """

    def __init__(self, n_items: int, latent_size: int, samples: int) -> None:
        super().__init__()
        self.samples = samples
        self.embedding = nn.Parameter(torch.randn(n_items, 20) / math.sqrt(20))
        self.code = nn.Linear(21, 50)
        self.mean = nn.Linear(50, latent_size)
        self.log_sd = nn.Parameter(torch.zeros(latent_size))
        self.decoder = nn.Linear(latent_size, n_items)
        self.noise = nn.Parameter(torch.zeros(()))
        self.slope = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.full((n_items,), -4.0))

    def forward(self, x: Tensor, s: Tensor) -> dict[str, Tensor]:
        """Return minus the bound of a batch as ``loss``: ratings x and mask s, both (B, P)."""
        pairs = torch.cat([self.embedding.expand(len(x), -1, -1), x[..., None]], dim=-1)  # (B, P, 21)
        pooled = (torch.relu(self.code(pairs)) * s[..., None]).sum(1)
        mean = self.mean(pooled)
        noise = torch.randn(self.samples, *mean.shape)
        z = mean + torch.exp(self.log_sd) * noise
        centre = 1 + 4 * torch.sigmoid(self.decoder(z))  # (S, B, P)
        density = torch.distributions.Normal(centre, torch.exp(self.noise))
        log_p_x = (density.log_prob(x) * s).sum(-1)  # type: ignore[no-untyped-call]
        completed = x * s + density.rsample() * (1 - s)
        mask = torch.distributions.Bernoulli(logits=self.slope * completed + self.bias)
        log_p_s = mask.log_prob(s.expand_as(completed)).sum(-1)  # type: ignore[no-untyped-call]
        log_p_z = (-0.5 * z.square()).sum(-1)
        log_q_z = (-0.5 * noise.square() - self.log_sd).sum(-1)
        log_w = log_p_x + log_p_s + log_p_z - log_q_z
        return {"loss": -(torch.logsumexp(log_w, 0) - math.log(self.samples)).mean()}
