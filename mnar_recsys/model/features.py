"""Side information: what features of users and items say of them before any rating is seen."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from mnar_recsys.data import FeatureTable


class FeatureEffect(nn.Module):
    """A linear map from features to the prior mean of something that is learned for each user or item.

    What is learned for a user or item is then its distance from that mean. The map starts at 0. Features are put on
    mean 0, and on a length that does not depend on their number, by the table fitted to.

    Parameters
    ----------
    table : FeatureTable
        (V, F), of the users or items fitted to.
    shape : tuple of int
        Of what is shifted, for one user or item.
    """

    def __init__(self, table: FeatureTable, shape: tuple[int, ...]) -> None:
        super().__init__()
        values = torch.from_numpy(table.values.copy())
        spread = values.std(0, correction=0)
        # Kept with the weights: features of people who come later are put on the same scale.
        self.centre: Tensor
        self.scale: Tensor
        self.register_buffer("centre", values.mean(0))
        self.register_buffer("scale", torch.where(spread > 0, spread, 1.0) * math.sqrt(values.shape[1]))
        self.weight = nn.Parameter(torch.zeros(values.shape[1], *shape))

    def forward(self, features: Tensor) -> Tensor:
        """Return the shift of each row of features, ``(n, F) -> (n, *shape)``; a row of nan is an average one."""
        standard = torch.nan_to_num((features - self.centre) / self.scale)
        shift: Tensor = torch.tensordot(standard, self.weight, dims=1)
        return shift


class ItemEffect(FeatureEffect):
    """``FeatureEffect`` for the items of a catalogue, whose features it holds."""

    def __init__(self, table: FeatureTable, shape: tuple[int, ...]) -> None:
        super().__init__(table, shape)
        self.features: Tensor
        self.register_buffer("features", torch.from_numpy(table.values.copy()), persistent=False)

    def item_axes(self) -> dict[str, int]:
        """Return which tensors have a row for each item; see ``HasItemRows``."""
        return {"features": 0}

    def of_items(self) -> Tensor:
        """Return the shift of every item: ``(P, *shape)``."""
        shift: Tensor = self(self.features)
        return shift


def feature_weights(model: nn.Module) -> Iterator[nn.Parameter]:
    """Yield the maps of all the effects in a model."""
    for module in model.modules():
        if isinstance(module, FeatureEffect):
            yield module.weight
