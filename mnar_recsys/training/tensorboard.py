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


@contextmanager
def tensorboard_writer(folder: str | Path | None) -> Iterator[Callable[[Trainer, BoundTerms], None] | None]:
    """Give an ``on_step`` for ``MNARRecommender.fit`` that writes event files to a folder; None where there is none.

    Scalars: ``step/`` and each term of the bound (nats a user), every tenth step; ``look/held_out`` (where users are
    held out), ``look/selection`` (nats between the ends of the scale) and ``look/learning_rate``, at each look. The
    second fit, without selection, goes to a run of its own, ``fit_2``. A run that resumes takes the place of what was
    written after the checkpoint.

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
        scalars = _Scalars(Path(folder), stack)
        yield scalars
        scalars.write_looks()


class _Scalars:
    """One writer for each fit that it sees."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self._writer: SummaryWriter
        self._trainer: Trainer | None = None
        self._fits = 0
        self._looks = 0

    def __call__(self, trainer: Trainer, terms: BoundTerms) -> None:
        """See ``OnStep``."""
        step = trainer.progress.step
        self.write_looks()
        if trainer is not self._trainer:
            self._begin(trainer, step)
        if step % _EVERY == 0 or step == 1:
            for name, value in asdict(terms).items():
                self._writer.add_scalar(f"step/{name}", value, step)

    def write_looks(self) -> None:
        """Write the looks that were made since the last call."""
        if self._trainer is None:
            return
        history = self._trainer.progress.history
        for row in history[self._looks :]:
            self._look(row)
        self._looks = len(history)

    def _begin(self, trainer: Trainer, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._trainer, self._looks = trainer, len(trainer.progress.history)
        self._fits += 1
        run = self._folder if self._fits == 1 else self._folder / f"fit_{self._fits}"
        self._writer = self._stack.enter_context(SummaryWriter(str(run), purge_step=step))

    def _look(self, row: dict[str, float]) -> None:
        for name in ("held_out", "selection", "learning_rate"):
            if np.isfinite(row[name]):
                self._writer.add_scalar(f"look/{name}", row[name], int(row["step"]))
