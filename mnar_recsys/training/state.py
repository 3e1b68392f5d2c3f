"""Everything a run needs to go on where it stopped, as one safetensors file: nothing is unpickled."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.optim import Optimizer

from mnar_recsys.errors import ModelFolderError
from mnar_recsys.model.tensor_file import read_facts, read_tensors, write_tensors


@dataclass
class Progress:
    """Where a run stands; plain numbers only."""

    step: int = 0
    """updates made"""
    best_step: int = 0
    """of the weights to keep"""
    best_bound: float = -float("inf")
    """highest bound at a look, nats a user: of the held-out users, or without any the training objective"""
    looks_without_gain: int = 0
    rate_cuts: int = 0
    finished: bool = False
    history: list[dict[str, float]] = field(default_factory=list)
    """a row for each look at the held-out users"""


def copy_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return a detached copy of the model's weights."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def save_checkpoint(
    path: Path,
    *,
    model: nn.Module,
    best: dict[str, Tensor],
    highest: Tensor,
    average: nn.Module | None,
    optimizers: Sequence[Optimizer],
    progress: Progress,
    fingerprint: str,
) -> None:
    """Write weights, best and averaged weights, bounds, optimiser state and progress, whole or not at all."""
    tensors = {f"model.{name}": tensor for name, tensor in copy_weights(model).items()} | {"highest": highest}
    tensors |= {f"best.{name}": tensor.clone() for name, tensor in best.items()}
    if average is not None:
        tensors |= {f"average.{name}": tensor for name, tensor in copy_weights(average).items()}
    for number, optimizer in enumerate(optimizers):
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"adam{number}.{index}.{key}": torch.as_tensor(value).clone() for key, value in state.items()}
    rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    write_tensors(path, tensors, {"progress": asdict(progress), "rates": rates, "fingerprint": fingerprint})


def load_checkpoint(
    path: Path, model: nn.Module, average: nn.Module | None, optimizers: Sequence[Optimizer], fingerprint: str
) -> tuple[dict[str, Tensor], Tensor, Progress]:
    """Restore model, average and optimisers in place; return best weights, highest bounds and progress.

    Raises
    ------
    ModelFolderError
        If the file is absent, damaged, or was written with other data, settings or seed.
    """
    try:
        described, tensors = read_facts(path), read_tensors(path)
    except FileNotFoundError as error:
        raise ModelFolderError(f"{path}: no checkpoint to resume from; train without --resume") from error
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise ModelFolderError(f"{path}: not a readable checkpoint ({error}); train again without --resume") from error
    if described["fingerprint"] != fingerprint:
        raise ModelFolderError(
            f"{path}: the checkpoint was written with other ratings, settings or seed; "
            "resume with the same ones, or train again without --resume"
        )
    model.load_state_dict(_under("model.", tensors))
    if average is not None:
        average.load_state_dict(_under("average.", tensors))
    for number, optimizer in enumerate(optimizers):
        state: dict[int, dict[str, Any]] = {}
        for name, tensor in _under(f"adam{number}.", tensors).items():
            index, key = name.split(".", 1)
            # SparseAdam counts its steps with a plain number.
            state.setdefault(int(index), {})[key] = tensor if tensor.is_floating_point() else tensor.item()
        groups = optimizer.state_dict()["param_groups"]
        for group, rate in zip(groups, described["rates"][number], strict=True):
            group["lr"] = rate
        optimizer.load_state_dict({"state": state, "param_groups": groups})
    return _under("best.", tensors), tensors["highest"], Progress(**described["progress"])


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
