"""A sampled posterior put back into the model: its moments, and an encoder that proposes latents for its draws."""

import math

import torch
from torch import Tensor

from mnar_recsys.model.batch import make_batch
from mnar_recsys.model.bound import importance_bound
from mnar_recsys.model.mnar_vae import MnarVae
from mnar_recsys.model.posterior_draws import PosteriorDraws
from mnar_recsys.model.weight_posterior import WeightPosterior
from mnar_recsys.rng import numpy_generator, torch_seed
from mnar_recsys.training.trainer import Trainer

# Of the encoder alone, its step size falling to a hundredth on the way.
_STEPS = 300
_LEAST_SD = 1e-3
_RIDGE = 1e-3


def absorb(trainer: Trainer, draws: PosteriorDraws) -> None:
    """Give the trainer's model the means of the draws, its variational posteriors their spread, and fit the encoder.

    What speaks of one model and not of many (the fitted selection, a sensitivity profile, the posterior of a user who
    was not sampled) then speaks of the sampled posterior.
    """
    with torch.no_grad():
        _match_moments(trainer.model, draws)
    fit_encoder(trainer, draws)


def _match_moments(model: MnarVae, draws: PosteriorDraws) -> None:
    named = dict(model.named_parameters())
    for name, values in draws.parameters.items():
        named[name].copy_(values.mean(0))
    governed = {
        "decoder.weight": model.decoder.weight_posterior,
        "decoder.bias": model.decoder.bias_posterior,
        "exposure.weight": model.exposure.posterior,
    }
    sampled = {name: deviations(draws.parameters[name]) for name in governed if name in draws.parameters}
    spread = {name: values.square().mean(0) for name, values in sampled.items()}
    for name, posterior in governed.items():
        if posterior is not None and name in spread:
            _match_prior(posterior, named[name], spread[name])
    if model.coupling is not None and {"decoder.weight", "exposure.weight"} <= sampled.keys():
        shared = model.exposure.shared
        own, decoder = sampled["exposure.weight"][..., :shared], sampled["decoder.weight"]
        coupling = -regression(own, decoder)
        model.coupling.weight.copy_(coupling)
        spread["exposure.weight"][:, :shared] = (own + (coupling * decoder).sum(1)).square().mean(0)
        if "missing.item_bias" in draws.parameters and "decoder.bias" in sampled:
            mask = deviations(draws.parameters["missing.item_bias"])
            model.coupling.bias.copy_(-regression(mask, sampled["decoder.bias"]))
    for name, posterior in governed.items():
        if posterior is not None and name in spread:
            posterior.log_sd.copy_(torch.log(spread[name].sqrt().clamp_min(_LEAST_SD)))


def _match_prior(posterior: WeightPosterior, mean: Tensor, variance: Tensor) -> None:
    """Set the learned prior to what is best for these moments: where the KL divergence is least."""
    if posterior.prior_mean is not None:
        # One a channel and dimension: the mean over the items, the second axis of both weights and biases.
        posterior.prior_mean.copy_(mean.mean(1, keepdim=True))
        second = variance + (mean - posterior.prior_mean).square()
    else:
        second = variance + mean.square()
    size = posterior.log_prior_sd.numel()
    second = second.reshape(-1, size).mean(0) if size > 1 else second.mean().view(1)
    posterior.log_prior_sd.copy_(0.5 * torch.log(second.clamp_min(_LEAST_SD**2)))


def deviations(values: Tensor) -> Tensor:
    """Return draws less their mean: (D, ...) -> (D, ...)."""
    return values - values.mean(0)


def regression(target: Tensor, given: Tensor) -> Tensor:
    """Return the coefficients of centred draws on others, for each place apart: (D, ...), (D, C, ...) -> (C, ...)."""
    x, y = given.flatten(2).permute(2, 0, 1), target.flatten(1).T.unsqueeze(-1)  # (M, D, C), (M, D, 1)
    gram = x.mT @ x
    ridge = _RIDGE * gram.diagonal(dim1=1, dim2=2).mean(-1).clamp_min(_LEAST_SD**2)[:, None, None]
    eye = torch.eye(gram.shape[-1], device=gram.device)
    found: Tensor = torch.linalg.solve(gram + ridge * eye, x.mT @ y)  # (M, C, 1)
    return found.squeeze(-1).T.reshape(given.shape[1:])


def fit_encoder(trainer: Trainer, draws: PosteriorDraws, steps: int = _STEPS) -> None:
    """Maximise the importance-weighted bound over the encoder alone, each step with the parameters of one draw."""
    model, config, log = trainer.model, trainer.config, trainer.log
    learned = [p for p in model.encoder.parameters() if p.requires_grad]
    if not learned:
        return
    optimizer = torch.optim.Adam(learned, lr=config.rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.01 ** (step / steps))
    rng = numpy_generator(trainer.seed, "encoder")
    users, size = trainer.train_users, min(config.batch_size, len(trainer.train_users))
    estimator = model.estimator(marginal=True)
    for step in range(steps):
        batch = make_batch(log, rng.choice(users, size, replace=False), trainer.device)
        generator = torch.Generator(trainer.device).manual_seed(torch_seed(trainer.seed, "encoder", step))
        shape = (config.samples, size, model.latent_size)
        noise = torch.randn(shape, generator=generator, device=trainer.device)
        optimizer.zero_grad(set_to_none=True)
        with draws.at(model, int(rng.integers(len(draws)))):
            weights, _ = model.log_weights(batch, noise, estimator)
            loss = -importance_bound(weights.total).mean()
            loss.backward(inputs=learned)  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(learned, config.gradient_clip)
        if math.isfinite(float(loss.detach())):
            optimizer.step()
        schedule.step()
