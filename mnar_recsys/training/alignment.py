"""Draws turned into one basis.

The density is the same in every basis of the taste, and of the exposure's own block: a chain wanders over all of them.
Nothing that is predicted depends on it, but a mean over draws does, and the encoder, which proposes latents for new
users, knows one basis only.
"""

import torch
from torch import Tensor

from mnar_recsys.model.mnar_vae import MnarVae

_ROUNDS = 3

Draw = tuple[dict[str, Tensor], Tensor]
"""Parameters by name in the model, and the latents (N, K')."""


def align(model: MnarVae, draws: list[Draw], target: Tensor) -> list[Draw]:
    """Return draws in the basis in which their latents come nearest to ``target`` (N, K'), and then to their own mean.

    Generalised Procrustes analysis (Gower 1975), started at the target.
    """
    for _ in range(_ROUNDS):
        draws = [to_basis(model, *draw, target) for draw in draws]
        target = torch.stack([z for _, z in draws]).mean(0)
    return draws


def to_basis(model: MnarVae, parameters: dict[str, Tensor], z: Tensor, target: Tensor) -> Draw:
    """Return one draw's parameters and latents in the basis in which the latents come nearest to ``target``.

    Parameters
    ----------
    model : MnarVae
        Says which parts of the latent see what.
    parameters : dict
        By name in the model; scales and means of priors, which belong to a basis, are left out of the result.
    z, target : Tensor
        (N, K') latents of the draw, and those of the same users to come near to.
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
