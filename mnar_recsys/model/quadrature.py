"""Gauss-Hermite quadrature for expectations under a normal."""

import numpy as np
import torch
from torch import Tensor


def gauss_hermite(nodes: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights with sum_q weights_q f(nodes_q) = E[f(t)], t ~ N(0, 1): each (Q,).

    Exact for polynomials of degree 2Q - 1.
    """
    points, weights = np.polynomial.hermite_e.hermegauss(nodes)
    weights = weights / weights.sum()
    return torch.from_numpy(points).float(), torch.from_numpy(weights).float()
