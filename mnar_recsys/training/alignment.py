"""Draws turned into the basis of the encoder.

The density is the same in every basis of the taste, and of the exposure's own block: a chain wanders over all of them.
Nothing that is predicted depends on it, but the encoder, which proposes latents for new users, knows one basis only.
"""

import torch
from torch import Tensor

from mnar_recsys.model.mnar_vae import MnarVae


def to_encoder_basis(
    model: MnarVae, parameters: dict[str, Tensor], z: Tensor, target: Tensor
) -> tuple[dict[str, Tensor], Tensor]:
    """Return one draw's parameters and latents in the basis in which the latents come nearest to the encoder's.

    Parameters
    ----------
    model : MnarVae
        Says which parts of the latent see what.
    parameters : dict
        By name in the model; scales and means of priors, which belong to a basis, are left out of the result.
    z, target : Tensor
        (N, K') latents of the draw, and the encoder's means for the same users.
    """
    K = model.decoder.weight.shape[-1]
    E = model.exposure.own_size
    taste, block = _rotation(z[:, :K], target[:, :K]), _rotation(z[:, K : K + E], target[:, K : K + E])
    activity = z.new_ones(z.shape[1] - K - E).diag()
    whole = _block_diagonal(taste, block, activity)
    exposure = _block_diagonal(taste, block) if model.exposure.shared else block
    rotations = {
        "decoder.weight": taste,
        "decoder.weight_effect.weight": taste,
        "exposure.weight": exposure,
        "exposure.effect.weight": exposure,
        "user_effect.weight": whole,
    }
    held = {name: value.detach() for name, value in model.named_parameters() if name in rotations}
    # What belongs to a basis turns with the latents also where it was held fixed.
    turned = {
        name: value @ rotations[name] if name in rotations else value
        for name, value in (held | parameters).items()
        if not name.endswith((".log_prior_sd", ".prior_mean"))
    }
    return turned, z @ whole


def _rotation(z: Tensor, target: Tensor) -> Tensor:
    """Return the orthogonal matrix R that minimises ||z R - target|| (orthogonal Procrustes; Schoenemann 1966)."""
    left, _, right = torch.linalg.svd(z.T @ target)
    rotation: Tensor = left @ right
    return rotation


def _block_diagonal(*blocks: Tensor) -> Tensor:
    whole: Tensor = torch.block_diag(*blocks)  # type: ignore[no-untyped-call]
    return whole
