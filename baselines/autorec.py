"""AutoRec: an autoencoder with one hidden layer, over the rows of items or of users."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor

from baselines.autoencoders import Autoencoder, AutoencoderBaseline, RowBatch, SparseRows
from baselines.fitting import check_positive


class AutoRecItem(AutoencoderBaseline):
    r"""I-AutoRec: each item's ratings are reconstructed from the ratings that item got.

    Minimises :math:`\sum_i \|r_i - h(r_i)\|^2_{\text{rated}} + \frac{\lambda}{2} (\|W\|^2 + \|V\|^2)` with :math:`h(r)=
    W \sigma(V r + \mu) + b` and :math:`\sigma` the logistic function, unrated entries of the input being 0 (Sedhain,
    Menon, Sanner and Xie, AutoRec: autoencoders meet collaborative filtering, WWW 2015, eqs. 1-4), by minibatch Adam;
    the number of passes is chosen on held-out ratings. A user who is unknown or has no ratings gets the mean rating
    from the output bias; an item without ratings gets what the network makes of an empty row.

    Parameters
    ----------
    hidden
        Number of hidden units.
    reg
        lambda, in squared rating points.
    learning_rate, batch_size, patience
        See ``AutoencoderBaseline``.

    Raises
    ------
    ConfigError
        If a setting is not above 0.
    """

    search_space: ClassVar[Mapping[str, tuple[Any, ...]]] = MappingProxyType(
        {"hidden": (50, 200), "reg": (5.0, 20.0, 50.0)}
    )
    by_item = True

    def __init__(
        self,
        *,
        hidden: int = 50,
        reg: float = 20.0,
        learning_rate: float = 0.003,
        batch_size: int = 64,
        patience: int = 10,
    ) -> None:
        check_positive(reg=reg)
        super().__init__(hidden=hidden, learning_rate=learning_rate, batch_size=batch_size, patience=patience)
        self.reg = reg

    def make_module(self, rows: SparseRows) -> "AutoRecNet":
        """Return an untrained network."""
        return AutoRecNet(rows, self.hidden, self.reg)


class AutoRecUser(AutoRecItem):
    """U-AutoRec: each user's ratings are reconstructed from that user's ratings. Else as ``AutoRecItem``.

    Users and items change places, also where there are no ratings: an item then gets the mean rating, and a user what
    the network makes of an empty row. Settings and errors are those of ``AutoRecItem``.
    """

    by_item = False


class AutoRecNet(Autoencoder):
    """W sigmoid(V r + mu) + b with its penalised squared error."""

    def __init__(self, rows: SparseRows, hidden: int, reg: float) -> None:
        super().__init__(rows.n_columns, hidden, float(rows.values.mean(dtype="float64")))
        self.penalty_share = reg / 2.0 / len(rows.values)

    def encode(self, batch: RowBatch) -> Tensor:
        """Return sigmoid(V r + mu), (B, H)."""
        total = self.first(batch.columns, batch.starts, per_sample_weights=batch.values)
        return torch.sigmoid(total + self.first_bias)

    def loss(self, batch: RowBatch, epoch: int, noise: torch.Generator) -> Tensor:  # noqa: ARG002 - always the same
        """Return the objective over the number of ratings: the batch's mean squared error plus the penalty."""
        found = self.decode(self.encode(batch), batch.owners, batch.columns)
        norms: Tensor = self.first.weight.square().sum() + self.last.weight.square().sum()
        return (found - batch.values).square().mean() + self.penalty_share * norms
