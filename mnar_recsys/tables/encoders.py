"""q(z | x_obs) of the rows of a table: from what is observed to a mean and a log standard deviation."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from mnar_recsys.data import RatingScale
from mnar_recsys.model.encoder import SetEncoder


def mlp(sizes: Sequence[int]) -> nn.Sequential:
    """Return dense layers of these sizes with tanh between them (A.1).

    They start as in the paper's code, with the variance of a layer's outputs near that of its inputs (Glorot & Bengio
    2010): with torch's own start, deep decoders end at solutions with errors a quarter higher.
    """
    layers: list[nn.Module] = []
    for number, (before, after) in enumerate(pairwise(sizes)):
        if number:
            layers.append(nn.Tanh())
        layer = nn.Linear(before, after)
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
        layers.append(layer)
    return nn.Sequential(*layers)


class TableEncoder(nn.Module, ABC):
    """Map values (B, P), 0 where missing, and the mask (B, P), 1 where observed, to ``(mean, log_sd)``, each (B, K)."""

    @abstractmethod
    def forward(self, values: Tensor, observed: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log standard deviation."""


class MlpEncoder(TableEncoder):
    """Zero-imputed values through an MLP (Mattei & Frellsen 2019), with the mask beside them if ``mask_input``."""

    def __init__(self, n_features: int, hidden: Sequence[int], latent_size: int, *, mask_input: bool) -> None:
        super().__init__()
        self.mask_input = mask_input
        self.network = mlp([n_features * (2 if mask_input else 1), *hidden, 2 * latent_size])

    def forward(self, values: Tensor, observed: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log standard deviation."""
        inputs = torch.cat([values, observed], -1) if self.mask_input else values
        mean, log_sd = self.network(inputs).chunk(2, -1)
        return mean, log_sd


class DenseSetEncoder(TableEncoder):
    """The recommender's set encoder for rows in which most values are there: every cell has a code, the mask picks."""

    def __init__(self, n_features: int, scale: RatingScale, latent_size: int) -> None:
        super().__init__()
        self.encoder = SetEncoder(
            n_features, scale, embedding_size=20, code_size=50, latent_size=latent_size, posterior_scale="per-user"
        )

    def forward(self, values: Tensor, observed: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log standard deviation."""
        table = self.encoder.item_table().expand(*values.shape, -1)
        codes = self.encoder.codes(table, values)  # (B, P, H)
        return self.encoder.head((codes * observed[..., None]).sum(-2))


class ConvEncoder(TableEncoder):
    """Strided convolutions with ReLU, then a dense layer each for mean and log standard deviation (table A2)."""

    def __init__(self, shape: tuple[int, int], channels: Sequence[int], latent_size: int, *, mask_input: bool) -> None:
        super().__init__()
        self.shape = shape
        self.mask_input = mask_input
        layers: list[nn.Module] = []
        height, width = shape
        for before, after in pairwise([2 if mask_input else 1, *channels]):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.ReLU()]
            height, width = (height + 1) // 2, (width + 1) // 2
        self.network = nn.Sequential(*layers, nn.Flatten())
        self.head = nn.Linear(channels[-1] * height * width, 2 * latent_size)

    def forward(self, values: Tensor, observed: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log standard deviation."""
        planes = [values, observed] if self.mask_input else [values]
        images = torch.stack([plane.view(*plane.shape[:-1], *self.shape) for plane in planes], -3)
        mean, log_sd = self.head(self.network(images)).chunk(2, -1)
        return mean, log_sd
