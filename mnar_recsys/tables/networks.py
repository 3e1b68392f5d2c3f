"""From z to the natural parameters of every feature: an MLP, a linear map, transposed convolutions."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from mnar_recsys.tables.encoders import mlp


class Network(nn.Module, ABC):
    """Map z (S, B, K) to C natural parameters of each of P features: (S, B, C, P)."""

    @abstractmethod
    def forward(self, z: Tensor) -> Tensor:
        """Return the natural parameters."""


class MlpNetwork(Network):
    """Hidden layers with tanh (A.1), one or more channels out; with no hidden layers, a linear map."""

    def __init__(self, latent_size: int, hidden: Sequence[int], n_channels: int, n_features: int) -> None:
        super().__init__()
        self.network = mlp([latent_size, *hidden, n_channels * n_features])
        self.n_channels = n_channels

    def forward(self, z: Tensor) -> Tensor:
        """Return the natural parameters."""
        flat: Tensor = self.network(z)
        return flat.view(*z.shape[:-1], self.n_channels, -1)


class ConvNetwork(Network):
    """Dense, then transposed convolutions with ReLU, the last ones apart for each channel out (table A3).

    An image whose sides the halving does not divide is cut from a larger one. The first channel is a mean in [0, 1].
    """

    def __init__(self, latent_size: int, shape: tuple[int, int], channels: Sequence[int], n_channels: int) -> None:
        super().__init__()
        self.shape = shape
        halvings = len(channels)
        self.start = tuple(-(-side // 2**halvings) for side in shape)
        widths = [channels[-1], *reversed(channels)]  # 256, 256, 128, 64 for the paper's
        self.dense = nn.Linear(latent_size, widths[0] * self.start[0] * self.start[1])
        layers: list[nn.Module] = [nn.Unflatten(-1, (widths[0], *self.start)), nn.ReLU()]
        for before, after in pairwise(widths[:-1]):
            layers += [_double(before, after), nn.ReLU()]
        self.trunk = nn.Sequential(*layers)
        self.heads = nn.ModuleList(
            nn.Sequential(
                _double(widths[-2], widths[-1]), nn.ReLU(), nn.ConvTranspose2d(widths[-1], 1, 3, stride=1, padding=1)
            )
            for _ in range(n_channels)
        )

    def forward(self, z: Tensor) -> Tensor:
        """Return the natural parameters."""
        images = self.trunk(self.dense(z.flatten(0, -2)))
        height, width = self.shape
        flat = [head(images)[:, 0, :height, :width].flatten(1) for head in self.heads]
        flat[0] = flat[0].sigmoid()
        return torch.stack(flat, 1).view(*z.shape[:-1], len(flat), -1)


def _double(before: int, after: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(before, after, 3, stride=2, padding=1, output_padding=1)
