"""A sampled posterior: draws of a model's parameters and its users' latents, and how far they can be trusted."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from torch import Tensor, nn

R_HAT_LIMIT = 1.05
"""Split R-hat above which chains have not come to agree (Vehtari et al. 2021 ask for 1.01 with four chains)."""
LEAST_ESS = 100.0
"""Effective draws below which a mean or an interval is noisy (Vehtari et al. 2021: 100 a chain, so this is lenient)."""

_Z = "z"


@dataclass(frozen=True)
class Monitored:
    """A quantity that no change of the latent's basis alters, over the draws of all chains."""

    name: str
    mean: float
    sd: float
    lower: float
    """5 % quantile"""
    upper: float
    """95 % quantile"""
    r_hat: float
    """rank-normalised split R-hat: 1 where chains, and halves of chains, agree"""
    ess: float
    """bulk effective sample size"""

    @property
    def is_doubtful(self) -> bool:
        """Whether R-hat or effective sample size is beyond its limit, or not a number (a chain that never moved)."""
        return not (self.r_hat <= R_HAT_LIMIT and self.ess >= LEAST_ESS)


@dataclass(frozen=True)
class SamplingReport:
    """How the sampling went."""

    chains: int
    warmup: int
    """draws of each chain that were thrown away"""
    draws: int
    """draws of each chain after that"""
    seconds: float
    gradients: float
    """evaluations of the posterior's gradient a draw, warm-up included"""
    divergences: int
    """draws after the warm-up whose trajectory left the posterior numerically"""
    monitored: tuple[Monitored, ...]

    @property
    def doubtful(self) -> tuple[Monitored, ...]:
        """Quantities whose chains have not mixed."""
        return tuple(quantity for quantity in self.monitored if quantity.is_doubtful)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what ``dataclasses.asdict`` gave; raises KeyError or TypeError for anything else."""
        return cls(**{**values, "monitored": tuple(Monitored(**part) for part in values["monitored"])})


@dataclass(frozen=True)
class PosteriorDraws:
    """D equally likely draws of what generates the ratings, in an order that means nothing.

    The encoder is no part of it: it stays as it was fitted.
    """

    parameters: Mapping[str, Tensor]
    """name in the model to ``(D, *shape)``"""
    z: Tensor | None
    """(D, N, K') latents of the users of the log sampled from, 0 for users without ratings; None for other users"""
    report: SamplingReport

    def __len__(self) -> int:
        return len(next(iter(self.parameters.values())))

    def of_parameters(self) -> "PosteriorDraws":
        """Return the same draws without the users' latents, for a log of other users."""
        return replace(self, z=None)

    @contextmanager
    def at(self, model: nn.Module, number: int) -> Iterator[None]:
        """Let the model have the parameters of draw ``number``, from 0, while the block runs."""
        with holding(model, {name: values[number] for name, values in self.parameters.items()}):
            yield

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors by name, to be written."""
        return dict(self.parameters) if self.z is None else {_Z: self.z, **self.parameters}

    def facts(self) -> dict[str, Any]:
        """Return the rest, as JSON values."""
        return asdict(self.report)

    @classmethod
    def from_parts(
        cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], model: nn.Module, users: tuple[int, int]
    ) -> Self:
        """Put together what ``tensors`` and ``facts`` gave, for a model and ``users`` (N, K').

        Raises
        ------
        KeyError, TypeError, ValueError
            If something is missing, or does not fit the model.
        """
        shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()} | {_Z: users}
        count = len(next(iter(tensors.values()), ()))
        for name, values in tensors.items():
            if tuple(values.shape) != (count, *shapes[name]) or not count:
                raise ValueError(f"{name} has shape {tuple(values.shape)}, expected {(count, *shapes[name])}")
        parameters = {name: values for name, values in tensors.items() if name != _Z}
        if not parameters:
            raise ValueError("no parameters")
        return cls(parameters, tensors.get(_Z), SamplingReport.from_dict(facts))


@contextmanager
def holding(model: nn.Module, values: Mapping[str, Tensor]) -> Iterator[None]:
    """Let parameters of a model have other values while the block runs."""
    own = dict(model.named_parameters())
    kept = {name: own[name].data for name in values}
    try:
        for name, value in values.items():
            own[name].data = value.to(kept[name].device)
        yield
    finally:
        for name, value in kept.items():
            own[name].data = value
