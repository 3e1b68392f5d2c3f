"""Settings of the training: steps, stopping, device, sampling."""

from typing import Annotated, Literal

from pydantic import Field

from mnar_recsys.config.base import FrozenSettings

Stop = Literal["auto", "held-out", "converged", "never"]
Inference = Literal["auto", "variational", "mcmc"]
Proposal = Literal["auto", "encoder", "newton"]
CompileMode = Literal["auto", "on", "off"]

LEAST_STEPS_BETWEEN_LOOKS = 50
SAMPLED_CELLS = 200_000
"""Cells (users times items) up to which the posterior of a small log is sampled by default: some minutes."""


class TrainingConfig(FrozenSettings):
    """How the bound is maximised. A step is one update on one batch of users."""

    samples: int = Field(default=10, ge=1)
    """Importance samples a user in training [S; the paper's K]."""
    proposal: Proposal = "auto"
    """Where these come from: `encoder`, its q(z|x), as in the paper; `newton`, one Newton step from its mean towards
    the mode of the posterior, with the curvature there: far more of the samples count. `auto`: newton where the
    missing ratings of all items are summed out."""
    batch_size: int = Field(default=100, ge=1)
    """Users in a batch [B]."""
    learning_rate: Literal["auto"] | Annotated[float, Field(gt=0)] = "auto"
    """Adam's step size. `auto`: 0.03 where the items' weights are variational, whose prior scales have a long way to
    go, else 0.01."""
    average_decay: float = Field(default=0.99, ge=0, lt=1)
    """Weights are judged and kept as their exponential moving average over the steps, with this decay a step (0: as
    they are, the paper's): the noise of the last steps averages out. Not with drawn items: a step moves few of them."""
    slope_rate: float = Field(default=10.0, gt=0)
    """How many times this the step size of the slopes of the missing model is: one number that moves all others, it is
    the slowest to converge, and with weights that are points these overfit before it has. 1 in the paper."""
    max_steps: int = Field(default=20_000, ge=1)
    """Stop after this many steps at the latest."""
    stop: Stop = "auto"
    """When to stop before `max_steps`: when the joint bound of `held-out` users no longer rises, keeping the last
    weights that these users cannot tell from the best; when the bound has `converged` on the users trained on, which
    are then all users; or `never`. `auto`: converged where the items' weights are variational, since these do not
    overfit, else held-out."""
    check_selection: bool = True
    """Where `missing` is left to the log, and training stops on held-out users, or has converged on 10,000 ratings or
    more: fit once more without selection, and keep that if what training stops by is no lower. Where the rating
    decides nothing, a slope overfits."""
    holdout_share: float = Field(default=0.1, gt=0, lt=0.5)
    """Share of the users held out for stopping."""
    holdout_max: int = Field(default=1000, ge=1)
    """At most this many users are held out."""
    validation_samples: int = Field(default=30, ge=1)
    """Importance samples a held-out user."""
    sampled_items: Literal["auto", "all"] | Annotated[int, Field(ge=1)] = "auto"
    """Items of the missing-entry term in a training step: `all`, or so many, in two samples drawn anew for each step.
    `auto`: all up to 3,000 items and where the items' weights are variational, else 600."""
    evaluate_every: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    """Steps between two looks at the bound; a checkpoint is written at each. `auto`: 50, and at least a quarter of a
    pass over the users."""
    patience: int = Field(default=4, ge=1)
    """Looks without a better bound before the learning rate is cut, or training stops."""
    rate_cuts: Literal["auto"] | Annotated[int, Field(ge=0)] = "auto"
    """How often the learning rate is divided by 4 before training stops. `auto`: once, but never where held-out users
    judge averaged weights: these are as quiet as a smaller rate would have them."""
    gradient_clip: float = Field(default=10.0, gt=0)
    """Largest norm of the gradient of the bound of a user."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """`bfloat16` runs the matrix products in mixed precision."""
    compile: CompileMode = "auto"
    """Make one compiled loop of each sum over cells (TorchInductor): `on`, `off`, or `auto`: on the CPU, where there is
    a C++ compiler and the fit is long enough to make up for the ten seconds that compiling takes."""
    device: str = "auto"
    """`auto` (CUDA if there is one), `cpu`, `cuda`, `cuda:1`, ..."""
    inference: Inference = "auto"
    """`variational`: the bound is maximised, no more. `mcmc`: after a few steps of that, the posterior of all weights
    and users is sampled by the No-U-Turn sampler. `auto`: `mcmc` for small logs of up to 200,000 cells (users times
    items) where other settings allow it: there it is the more accurate of the two."""
    mcmc_start: int = Field(default=200, ge=1)
    """Steps of the variational fit that the chains of `mcmc` start from. A short one: once converged it has switched
    off what a chain then takes long to find again."""
    mcmc_start_rate: float = Field(default=1e-2, gt=0)
    """Adam's step size in these steps."""
    mcmc_chains: int = Field(default=2, ge=1)
    """Chains of `mcmc`, one after another, each from a start of its own; one alone cannot show that it is stuck."""
    mcmc_warmup: int = Field(default=80, ge=20)
    """Draws of a chain that find its step size and scales, and are thrown away."""
    mcmc_draws: int = Field(default=120, ge=20)
    """Draws of a chain after that."""
    mcmc_kept: int = Field(default=200, ge=1)
    """Draws kept for predictions, evenly spaced over all chains."""

    @property
    def rate(self) -> float:
        """Adam's step size at the start, where settings are resolved."""
        if self.inference == "mcmc":
            return self.mcmc_start_rate
        assert self.learning_rate != "auto"  # noqa: S101
        return self.learning_rate

    @property
    def most_steps(self) -> int:
        """Steps of the variational fit at most: of one that chains start from, few."""
        return min(self.max_steps, self.mcmc_start) if self.inference == "mcmc" else self.max_steps
