"""Several processes that train one model, started by ``torchrun``: each takes a share of every batch.

Every process draws the noise of the whole batch and uses its share, and gradients are averaged, so that the run is the
one that a single process would make with the same batches.
"""

import atexit
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed

# Before a group is there: the defaults of its functions are the group that exists at this import, which would hold that
# group, and so its threads, to the end of the process.
import torch.distributed.nn
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Workers:
    """The processes, and which of them this is."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    def share(self, costs: NDArray[np.integer]) -> slice:
        """Return this process's part of a batch of users that cost ``costs`` (B,), B not below the number of processes.

        Parts are consecutive users, at least one each; cut where the sum of the costs is nearest to even parts, so that
        no process waits long for the one that has the users with most ratings.
        """
        upto = np.append(0, np.cumsum(costs))
        rank = np.arange(1, self.size)
        nearest = np.searchsorted((upto[1:] + upto[:-1]) / 2, upto[-1] * rank / self.size)
        cuts = np.minimum(np.maximum.accumulate(np.maximum(nearest - rank, 0)) + rank, len(costs) - self.size + rank)
        edges = [0, *cuts.tolist(), len(costs)]
        return slice(edges[self.rank], edges[self.rank + 1])

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Average tensors over the processes, in place."""
        if self.size == 1:
            return
        for tensor in tensors:
            torch.distributed.all_reduce(tensor)
            tensor.div_(self.size)

    def total(self, values: Sequence[float] | Tensor) -> Tensor:
        """Return the sum of numbers over the processes."""
        total = torch.as_tensor(values, dtype=torch.float64)
        if self.size > 1:
            torch.distributed.all_reduce(total)
        return total

    def wait(self) -> None:
        """Go on when all processes are here."""
        if self.size > 1:
            torch.distributed.barrier()


def join_workers() -> Workers:
    """Join the processes that ``torchrun`` started, if it did."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return Workers()
    if not torch.distributed.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        # Gloo sums on the processor and in sparse form; with graphics cards NCCL takes the dense tensors.
        torch.distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
        # Its threads must end before the interpreter does, or they abort the process now and then.
        atexit.register(torch.distributed.destroy_process_group)
    return Workers(torch.distributed.get_rank(), size)
