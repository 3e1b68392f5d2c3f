"""Tiny rating logs, and tiny models whose weights are far from their starting values."""

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from mnar_recsys.config import ModelConfig
from mnar_recsys.data import RatingLog, RatingScale
from mnar_recsys.model.build import build_model
from mnar_recsys.model.decoders import GaussianDecoder, GaussianRatings
from mnar_recsys.model.mnar_vae import MnarVae

THREE_LEVELS = RatingScale(1, 3, 1)


def log_of(matrix: ArrayLike, scale: RatingScale = THREE_LEVELS) -> RatingLog:
    """Return the log of a dense matrix (users, items) where nan is unrated; ids are u0, u1, ... and 0, 1, ..."""
    dense = np.asarray(matrix, dtype=float)
    rows, items = np.nonzero(~np.isnan(dense))
    return RatingLog.from_arrays(
        np.array([f"u{row:04d}" for row in rows], dtype=object),
        items,
        dense[rows, items],
        scale=scale,
        user_ids=np.array([f"u{row:04d}" for row in range(len(dense))], dtype=object),
        catalogue=np.arange(dense.shape[1]),
    )


def random_matrix(
    n_users: int, n_items: int, *, seed: int = 0, density: float = 0.4, levels: int = 3
) -> NDArray[np.float64]:
    """Return a matrix of ratings at random, nan where unrated; the first user has none."""
    rng = np.random.default_rng(seed)
    matrix = rng.integers(1, levels + 1, size=(n_users, n_items)).astype(float)
    matrix[rng.random(matrix.shape) > density] = np.nan
    matrix[0] = np.nan
    return matrix


def tiny_model(log: RatingLog, *, seed: int = 0, **settings: Any) -> MnarVae:
    """Build a model with latent size 1 (unless set) and all its weights drawn anew, of order one.

    Draws of the missing ratings are hard (temperature 1e-3), so that the sampled estimator can be compared with
    sums over levels. q(z|x) is a little wider than the prior, which keeps importance weights tame.
    """
    chosen = {
        "decoder": "categorical",
        "latent_size": 1,
        "user_activity": False,
        "exposure_size": 0,
        "exposure_sees_taste": False,
        "item_weights": "point",
        "embedding_size": 3,
        "code_size": 4,
        "posterior_scale": "shared",
        "gumbel_temperature": 1e-3,
        "quadrature_nodes": 20,
    } | settings
    model = build_model(ModelConfig.model_validate(chosen), log, seed)
    generator = torch.Generator().manual_seed(seed)

    def drawn(parameter: Tensor, spread: float, centre: float = 0.0) -> None:
        with torch.no_grad():
            parameter.copy_(centre + spread * torch.randn(parameter.shape, generator=generator))

    free = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    for name, parameter in free:
        if name == "missing.item_bias":
            drawn(parameter, 0.7)
        elif name.startswith("missing."):
            drawn(parameter, 0.5, 1.0)
        elif name in ("decoder.weight", "decoder.bias", "exposure.weight"):
            drawn(parameter, 0.9)
        elif name.startswith("encoder.mean"):
            drawn(parameter, 0.15)
        elif name == "encoder.log_sd_bias":
            drawn(parameter, 0.0, 0.15)
        elif name == "encoder.log_sd_weight":
            drawn(parameter, 0.3, -1.5)
    return model


class LinearGaussian(GaussianDecoder):
    """x_ij | z ~ N(w_j . z + c_j, sd^2): probabilistic PCA, where everything is known in closed form."""

    def distribution(self, natural: Tensor, items: slice | Tensor) -> GaussianRatings:  # noqa: ARG002
        """Gaussian of each cell around the natural parameters (..., 1, I)."""
        return GaussianRatings(natural.squeeze(-2), torch.exp(self.log_sd), (self.nodes, self.node_weights))
