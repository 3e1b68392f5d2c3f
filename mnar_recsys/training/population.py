"""Known shares of the ratings in the population, where nobody's own answers are known."""

import torch
from torch import Tensor

from mnar_recsys.data import RatingScale
from mnar_recsys.errors import ConfigError
from mnar_recsys.model.decoders import Grid
from mnar_recsys.model.mnar_vae import MnarVae

_MAX_ITEMS = 100


class PopulationMarginal:
    """Log-likelihood of a survey of which only the shares of the levels are known.

    n people asked about one item each, drawn at random, of whom a share s_r gave level r, have the log-likelihood
    n sum_r s_r log p_r with p_r the mean of p(x_ij = r | z_i) over all users and items.

    Parameters
    ----------
    shares : tuple of float
        Of the levels, rising, (R,); they sum to 1.
    size : int
        Answers behind the shares: how sure they are.
    scale : RatingScale
        Of the log.

    Raises
    ------
    ConfigError
        If the scale has no levels, or not as many as there are shares.
    """

    def __init__(self, shares: tuple[float, ...], size: int, scale: RatingScale) -> None:
        if scale.levels is None or len(scale.levels) != len(shares):
            raise ConfigError(
                f"population_marginal must have a share for each level of {scale.describe()}; found {len(shares)}"
            )
        levels = torch.tensor(scale.levels, dtype=torch.float32)
        middle = (levels[1:] + levels[:-1]) / 2
        ends = torch.full((1,), torch.inf)
        self._grid = Grid(torch.cat([-ends, middle]), levels, torch.cat([middle, ends]))
        self._shares = torch.tensor(shares)
        self._size = size

    def log_likelihood(self, model: MnarVae, z: Tensor, log_w: Tensor, generator: torch.Generator) -> Tensor:
        """Return it, in nats, from the users of a batch and some items: draws z (S, B, K') of weight log_w (S, B)."""
        device, n_items = z.device, model.decoder.n_items
        items = torch.randperm(n_items, generator=generator, device=generator.device)[:_MAX_ITEMS].to(device)
        grid = Grid(*(part.to(device) for part in (self._grid.lower, self._grid.centre, self._grid.upper)))
        taste, _ = model.split_latent(z)
        by_level = model.decoder.cells(taste, items).mass(grid).mean(-1)  # (S, B, R)
        share = torch.softmax(log_w.detach(), dim=0)
        predicted = torch.einsum("sb,sbr->r", share, by_level) / z.shape[1]
        return self._size * (self._shares.to(device) * torch.log(predicted.clamp_min(1e-8))).sum()
