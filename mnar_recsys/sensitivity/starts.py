"""Where a fit with the selection held can start: at the fitted weights, at the nearest law, at new weights."""

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch.optim import LBFGS, Adam
from torch.optim.lr_scheduler import CosineAnnealingLR

from mnar_recsys.model.batch import UserBatch, iterate_batches, make_batch
from mnar_recsys.model.build import build_model
from mnar_recsys.model.decoders import GaussianDecoder
from mnar_recsys.model.mnar_vae import MnarVae
from mnar_recsys.model.quadrature import gauss_hermite
from mnar_recsys.model_folder import FittedModel
from mnar_recsys.rng import numpy_generator, torch_seed
from mnar_recsys.sensitivity.law import law_divergence

NEAREST_STEPS = 150
# Nothing here is noisy where the laws can be made equal, so the steps may be large; they end small.
_RATE = 0.05
# The first gradients are large, and must be forgotten within tens of steps.
_BETAS = (0.9, 0.95)
# Given the rest, the divergence is convex in these, so they move first. If the others moved too before these are about
# right, a Gaussian would grow wide to reach ratings that only a shift explains, and stay so.
_LOCATIONS = ("decoder.weight", "decoder.bias", "missing.item_bias", "exposure.weight")
# Of an integrand, at a time: users x items x levels or nodes.
_EVALUATIONS = 500_000
_PASSES = 2
_NODES = 24


def device_of(model: MnarVae) -> torch.device:
    """Return where a model's weights are."""
    return next(model.parameters()).device


def held(model: MnarVae, value: float) -> MnarVae:
    """Return a copy with the selection held at so many nats between the ends of the scale."""
    copied = copy.deepcopy(model)
    slopes = copied.missing.slopes()
    assert slopes is not None  # noqa: S101
    slopes.hold(value)
    return copied


def fresh(fitted: FittedModel, value: float, seed: int) -> MnarVae:
    """Return a model with new starting weights, the selection held as in ``held``."""
    model = build_model(fitted.settings.model, fitted.log, torch_seed(seed, "sensitivity weights"))
    model.to(device_of(fitted.model))
    slopes, proportions = model.missing.slopes(), fitted.model.missing.slopes()
    assert slopes is not None  # noqa: S101
    assert proportions is not None  # noqa: S101
    with torch.no_grad():
        slopes.raw.copy_(proportions.raw)
    slopes.hold(value)
    if model.coupling is not None:
        model.be_variational()  # again: where the coupling starts follows from the slope
    return model


def nearest_law(
    fitted: FittedModel, value: float, users: NDArray[np.int64], *, seed: int, steps: int = NEAREST_STEPS
) -> tuple[MnarVae, float]:
    """Return the model with the selection held whose law of what a log shows is nearest to the fitted one's.

    Encoder and latent stay; everything about the items moves, by gradient, to the least ``law_divergence``. With a
    Gaussian rating and log-odds w (x - c) this finds the mirror image -w (x - c): with means w sd^2 higher, which is
    exact where c is half-way between the two means, and with means 2 w sd^2 higher where few cells are rated; the
    mask's biases to match. Given slope and sd the divergence is convex in a cell's mean and log-odds, so that there
    is one nearest law, however far it is.

    Parameters
    ----------
    users : ndarray
        Those whose z are drawn.
    steps : int
        In each of two stages. With fewer the gap is a bound still, but a looser one.

    Returns
    -------
    model, gap
        The gap is the divergence over all cells of the log, in nats: an upper bound of the log-likelihood that the
        model is expected to lose on a log of this size. Priors do not enter.
    """
    log, device = fitted.log, device_of(fitted.model)
    model = _integrating_finely(fitted.model)
    near = held(model, value)
    with torch.no_grad():
        support = model.decoder.cells(torch.zeros(1, 1, model.decoder.weight.shape[-1], device=device)).support
    size = int(np.clip(_EVALUATIONS // (log.n_items * support.shape[-2]), 4, 100))
    free = {name: p for name, p in near.named_parameters() if p.requires_grad and not name.startswith("encoder.")}
    rng = numpy_generator(seed, "nearest law")
    for stage, names in enumerate((_LOCATIONS, tuple(free))):
        optimizer = Adam([free[name] for name in names if name in free], lr=_RATE, betas=_BETAS)
        schedule = CosineAnnealingLR(optimizer, steps, eta_min=_RATE / 50)
        for step in range(steps):
            batch = make_batch(log, rng.choice(users, min(size, len(users)), replace=False), device)
            loss = _divergence(model, near, batch, torch_seed(seed, "nearest law", stage, step)).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            near.clear_weights()
    _fit_priors(near)
    found = []
    with torch.no_grad():
        for number in range(_PASSES):
            for first, (_, batch) in enumerate(iterate_batches(log, users, size, device)):
                found.append(_divergence(model, near, batch, torch_seed(seed, "law gap", number, first)))
    near.clear_weights()
    if isinstance(near.decoder, GaussianDecoder) and isinstance(fitted.model.decoder, GaussianDecoder):
        near.decoder.nodes, near.decoder.node_weights = fitted.model.decoder.nodes, fitted.model.decoder.node_weights
    return near, log.n_users * max(float(torch.cat(found).mean()), 0.0)


def _integrating_finely(model: MnarVae) -> MnarVae:
    """Return a copy whose integrals over a Gaussian rating may be summed over a whole log: errors of .0004 may not."""
    copied = copy.deepcopy(model)
    if isinstance(copied.decoder, GaussianDecoder):
        nodes, weights = gauss_hermite(_NODES)
        copied.decoder.nodes, copied.decoder.node_weights = nodes.to(device_of(model)), weights.to(device_of(model))
    return copied


def _divergence(model: MnarVae, near: MnarVae, batch: UserBatch, seed: int) -> torch.Tensor:
    """Return ``law_divergence`` at one draw of z and, where the items' weights are drawn, the same draw for both."""
    device = device_of(model)
    with torch.no_grad():
        model.resample_weights(torch.Generator(device).manual_seed(seed))
    near.resample_weights(torch.Generator(device).manual_seed(seed))
    noise = torch.randn(
        1, batch.n_users, model.latent_size, generator=torch.Generator(device).manual_seed(seed + 1), device=device
    )
    divergence = law_divergence(model, near, batch, noise)
    model.clear_weights()
    return divergence


def _fit_priors(model: MnarVae) -> None:
    """Let the learned priors of the items' weights, where there are any, follow the weights."""
    priors = [p for name, p in model.named_parameters() if name.endswith((".log_prior_sd", ".prior_mean"))]
    if not priors:
        return
    optimizer = LBFGS(priors, max_iter=100, line_search_fn="strong_wolfe")

    def cost() -> torch.Tensor:
        optimizer.zero_grad()
        kl = model.weight_kl()
        kl.backward()  # type: ignore[no-untyped-call]
        return kl

    optimizer.step(cost)  # type: ignore[no-untyped-call]
