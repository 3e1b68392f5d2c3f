"""A mixture over draws of z of the binned conditional distributions of cells, in one pass over draws and cells.

``predict`` spends its time here: so many draws of each of so many cells. Bin by bin, nothing of the size of draws x
bins x cells need be read again; compiled (``model/compiled.py``), hardly anything of the size of draws x cells is.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from mnar_recsys.model.compiled import fused
from mnar_recsys.model.decoders import Grid, RatingDistribution
from mnar_recsys.model.decoders.level_math import LARGEST_LOG_ODDS

# Keeps a cell whose every rating is certain to be given, or withheld, from 0 / 0.
LEAST_TILT = 1e-12


class Mixture(NamedTuple):
    """Of each cell (..., I), over the draws by their shares; a rating is the centre of its bin."""

    masses: Tensor
    """(..., G, I) probability of each bin"""
    mean_se: Tensor
    """standard deviation of E[x|z] over the draws, in rating points"""
    propensity: Tensor
    """probability that the person rates the item by choice"""


@fused
def mix(  # noqa: PLR0917
    cells: RatingDistribution, grid: Grid, logit: Tensor, offset: Tensor | None, share: Tensor, keeps: Tensor
) -> Mixture:
    """Mix sum_k alpha_k p(bin|z_k) f(bin) / sum_bins p f, f being the factor of p(s|x) at the bin's centre.

    Parameters
    ----------
    cells : RatingDistribution
        p(x|z), (S, ..., I).
    grid : Grid
        Its G bins.
    logit : Tensor
        Log-odds of rating a cell at each bin's centre, broadcastable to (G, I).
    offset : Tensor or None
        Shift of them in each draw, (S, ..., I).
    share : Tensor
        (S, ..., I) weights alpha, summing to 1 over S.
    keeps : Tensor
        (3, ..., I), f = keeps[0] + keeps[1] (1 - pi) + keeps[2] pi.
    """
    always, unrated, rated = keeps.unbind()
    odds = None if offset is None else torch.exp(offset.clamp(max=LARGEST_LOG_ODDS))
    middle = grid.centre.mean()
    factors = torch.exp(logit.clamp(max=LARGEST_LOG_ODDS)).expand(len(grid.centre), -1).unbind()
    tilted: list[Tensor] = []
    total = moment = propensity = torch.zeros_like(share)
    for mass, centre, factor in zip(cells.masses(grid), grid.centre.unbind(), factors, strict=True):
        ratio = factor if odds is None else odds * factor
        stays = 1 / (1 + ratio)
        pi = ratio * stays
        part = mass * (always + unrated * stays + rated * pi).clamp_min(LEAST_TILT)
        propensity = propensity + mass * pi
        total = total + part
        moment = moment + part * (centre - middle)
        tilted.append(part)
    scale = share / total
    masses = torch.stack([(part * scale).sum(0) for part in tilted], -2)
    # About the middle of the scale, so that little cancels.
    mean_given_z = moment / total
    mean = (mean_given_z * share).sum(0)
    variance = (mean_given_z.square() * share).sum(0) - mean.square()
    return Mixture(masses, variance.clamp_min(0).sqrt(), (propensity * share).sum(0))
