"""What the posterior says of the missing values of rows (appendix B): means, quantiles, multiple imputations."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mnar_recsys.model.bound import importance_bound
from mnar_recsys.prediction.cells import UNRATED, CellPosterior, Estimand, quantiles
from mnar_recsys.prediction.posterior import pick, quasi_normal
from mnar_recsys.rng import numpy_generator, torch_seed
from mnar_recsys.tables.stacked import Rows
from mnar_recsys.tables.table_vae import RowDraws, TableVae

_CELLS_AT_ONCE = 100_000
_BINS_AT_ONCE = 10_000_000


@dataclass(frozen=True)
class Block:
    """B consecutive rows with S weighted draws each."""

    observed: Tensor
    """(B, P)"""
    draws: RowDraws
    share: Tensor
    """(S, B, 1) weights, summing to 1 over S"""
    hidden: Tensor
    """(H,) features of which some value is missing"""
    natural: Tensor
    """(S, B, C, H) natural parameters of these"""

    def at_hidden(self, values: Tensor) -> Tensor:
        """Spread values of the hidden features (..., B, H) over all, with 0 elsewhere: (..., B, P)."""
        return values.new_zeros(*values.shape[:-1], self.observed.shape[1]).index_copy(-1, self.hidden, values)


class RowPosterior:
    """The posterior of rows under one fitted model, in the units of the model.

    What is returned at observed values says nothing: they are known. All rows share the noise of the draws, so that
    what is said of one does not depend on which others are asked of.

    Parameters
    ----------
    draws : int
        Importance samples of each row [K of eqs. 13-20].
    reach : tuple of float
        Least and greatest value observed in training: quantiles and draws lie within three times that range.
    """

    def __init__(self, model: TableVae, rows: Rows, *, draws: int, seed: int, reach: tuple[float, float]) -> None:
        self.model = model.eval()
        self.rows = rows
        self.draws = draws
        self.seed = seed
        self.grid = model.likelihood.grid(*reach)

    def mean(self, estimand: Estimand = Estimand.CONDITIONAL) -> NDArray[np.float32]:
        """Return E[x | x_obs, s] of every missing value, (N, P).

        With a missing model of single values the others are summed out; with one of whole rows all are drawn, eq. 16.
        ``PAPER`` is eq. 18 with the weights of eq. 17, which contain drawn values: E[x|z] mixed, as if a value's own
        being missing said nothing of it once z is known.
        """
        drawn = estimand is Estimand.PAPER
        return np.concatenate([self._mean(block, estimand).numpy() for block in self._blocks(drawn=drawn)])

    def _mean(self, block: Block, estimand: Estimand) -> Tensor:
        if estimand is Estimand.PAPER:
            return (block.share * block.draws.cells.mean).sum(0)
        if block.draws.complete is not None:
            return (block.share * block.draws.complete).sum(0)
        return block.at_hidden(self._cells(block).moments().mean)

    def quantiles(self, probabilities: tuple[float, ...]) -> NDArray[np.float32]:
        """Return quantiles of every missing value: (q, N, P). The median has the least absolute error (eq. 20)."""
        wanted = torch.tensor(probabilities)
        parts = []
        for block in self._blocks():
            if block.draws.complete is None:
                parts.append(block.at_hidden(quantiles(self._cells(block).masses(), self.grid, wanted)))
            else:
                parts.append(_weighted_quantiles(block.draws.complete, block.share, wanted))
        return torch.cat(parts, 1).numpy()

    def impute(self, count: int) -> NDArray[np.float32]:
        """Return joint draws of the rows' missing values, (count, N, P), by sampling importance resampling."""
        rng = numpy_generator(self.seed, "impute rows")
        parts = []
        for block in self._blocks():
            shares = block.share[..., 0].T.numpy()  # (B, S)
            parts.append(self._impute(block, np.stack([pick(shares, rng) for _ in range(count)]), rng))
        return np.concatenate(parts, axis=1)

    def _impute(self, block: Block, picks: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.float32]:
        """Return draws (count, B, P), each at one draw of z for each row: ``picks`` (count, B)."""
        chosen = torch.from_numpy(picks), torch.arange(picks.shape[1])
        if block.draws.complete is not None:
            return block.draws.complete[chosen].numpy()
        at_once = max(1, _BINS_AT_ONCE // (picks.shape[1] * len(block.hidden) * len(self.grid.centre) or 1))
        parts = [self._draw(block, block.natural[part, chosen[1]], rng) for part in torch.split(chosen[0], at_once)]
        return torch.cat(parts).numpy()

    def _draw(self, block: Block, natural: Tensor, rng: np.random.Generator) -> Tensor:
        """Return draws from p(x|z) (1 - pi(x)) at given natural parameters (n, B, C, H): (n, B, P)."""
        n = len(natural)
        copies = replace(
            block,
            observed=block.observed.repeat(n, 1),
            natural=natural.flatten(0, 1)[None],
            share=torch.ones(1, 1, 1),
        )
        masses = self._cells(copies).masses()  # (n * B, G, H)
        place = torch.from_numpy(pick(masses.movedim(-2, -1).numpy(), rng))
        lower, upper = self.grid.lower[place], self.grid.upper[place]
        drawn = lower + torch.from_numpy(rng.random(lower.shape)).float() * (upper - lower)
        return copies.at_hidden(drawn).view(n, *block.observed.shape)

    def bounds(self, *, of_mask: bool = True) -> NDArray[np.float64]:
        """Return the bound on log p(x_obs, s) of each row, or on log p(x_obs), in nats: (N,)."""
        weights = (block.draws.weights for block in self._blocks())
        parts = [importance_bound(w.total if of_mask else w.total - w.log_p_s) for w in weights]
        return torch.cat(parts).double().numpy()

    def _cells(self, block: Block) -> CellPosterior:
        """Return the posterior of the hidden features: (S, B, H)."""
        cells = self.model.likelihood(block.natural)
        status = torch.full_like(block.observed[:, block.hidden], UNRATED)
        missing, share = self.model.missing, block.share
        return CellPosterior(cells, self.grid, missing, block.hidden, offset=None, share=share, status=status)

    def _blocks(self, *, drawn: bool = False) -> Iterator[Block]:
        """Yield the rows in blocks, each with its draws; of the missing values, too, if ``drawn`` or they must be."""
        model, (n_rows, n_features) = self.model, self.rows.values.shape
        size = max(1, _CELLS_AT_ONCE // (self.draws * n_features))
        noise = model.posterior.noise(quasi_normal(self.draws, model.latent_size, torch_seed(self.seed, "latents")))
        cell_noise = None
        if drawn or model.missing.needs_row:
            generator = torch.Generator().manual_seed(torch_seed(self.seed, "missing values"))
            cell_noise = model.likelihood.noise((self.draws, 1, n_features), generator)
        with torch.no_grad():
            for start in range(0, n_rows, size):
                values, observed = (part[start : start + size] for part in (self.rows.values, self.rows.observed))
                draws = model.draw(values, observed, noise, cell_noise)
                share = torch.softmax(draws.weights.total, 0)[..., None]
                hidden = (observed == 0).any(0).nonzero()[:, 0]
                yield Block(observed, draws, share, hidden, draws.natural[..., hidden])


def _weighted_quantiles(draws: Tensor, share: Tensor, probabilities: Tensor) -> Tensor:
    """Quantiles of weighted draws (S, B, P), weights (S, B, 1): (q, B, P)."""
    order = draws.argsort(0)
    below = share.expand_as(draws).gather(0, order).cumsum(0)
    place = torch.stack([(below < p).sum(0).clamp_max(len(draws) - 1) for p in probabilities])
    return draws.gather(0, order).gather(0, place)
