"""Training as TensorBoard shows it: the terms of the bound, and what a look at held-out users found."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mnar_recsys.extras import check_extra
from mnar_recsys.training.terms import BoundTerms
from mnar_recsys.training.trainer import Trainer

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_EVERY = 10
_RUNS = ("", "without_selection")


@contextmanager
def tensorboard_writer(folder: str | Path | None) -> Iterator[Callable[[Trainer, BoundTerms], None] | None]:
    """Give an ``on_step`` for ``MNARRecommender.fit`` that writes event files to a folder; None where there is none.

    Scalars: ``step/`` and each term of the bound (nats a user), every tenth step; ``look/held_out`` (where users are
    held out), ``look/selection`` (nats between the ends of the scale) and ``look/learning_rate``, at each look. The
    second fit, without selection, goes to ``without_selection``. A run that resumes takes the place of what was written
    after the checkpoint.

    Raises
    ------
    ConfigError
        If TensorBoard is not installed.
    """
    if folder is None:
        yield None
        return
    check_extra("tensorboard", "tensorboard", "writing for TensorBoard")
    with ExitStack() as stack:
        yield _Scalars(Path(folder), stack)


class _Scalars:
    """One writer for each fit that it sees."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self._trainers: list[Trainer] = []
        self._writer: SummaryWriter
        self._looks = 0

    def __call__(self, trainer: Trainer, terms: BoundTerms) -> None:
        from torch.utils.tensorboard import SummaryWriter

        step = trainer.progress.step
        if not self._trainers or trainer is not self._trainers[-1]:
            self._trainers.append(trainer)
            self._looks = len(trainer.progress.history)
            run = self._folder / _RUNS[len(self._trainers) - 1]
            self._writer = self._stack.enter_context(SummaryWriter(str(run), purge_step=step))
        if step % _EVERY == 0 or step == 1:
            for name, value in asdict(terms).items():
                self._writer.add_scalar(f"step/{name}", value, step)
        for row in trainer.progress.history[self._looks :]:
            self._look(row)
        self._looks = len(trainer.progress.history)

    def _look(self, row: dict[str, float]) -> None:
        for name in ("held_out", "selection", "learning_rate"):
            if np.isfinite(row[name]):
                self._writer.add_scalar(f"look/{name}", row[name], int(row["step"]))
