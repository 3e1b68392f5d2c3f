"""What an interrupted fit leaves in its folder, and how it is gone on with."""

from pathlib import Path

from mnar_recsys.config import Settings
from mnar_recsys.data import RatingLog
from mnar_recsys.errors import ModelFolderError
from mnar_recsys.model_folder import CHECKPOINT, fingerprint, write_data, write_weights
from mnar_recsys.training import Trainer, load_checkpoint, save_checkpoint


def prepare_folder(path: Path, trainer: Trainer, print_of: str, *, resume: bool) -> None:
    """Refuse a folder in use, or restore the trainer from its checkpoint."""
    if resume:
        trainer.best, trainer.highest, trainer.progress = load_checkpoint(
            path / CHECKPOINT, trainer.model, trainer.average, trainer.stepper.optimizers, print_of
        )
    elif path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ModelFolderError(
            f"{path}: exists and is not empty; choose another folder, or go on with it (--resume, resume=True)"
        )


def write_checkpoint(path: Path, trainer: Trainer, log: RatingLog, settings: Settings, seed: int) -> None:
    """Leave a folder that both loads as a model and resumes."""
    print_of = fingerprint(log, settings, seed)
    if not (path / "config.json").exists():
        write_data(path, log, settings, seed)
    # Where the posterior is to be sampled, the end of the training is not that of the fit.
    finished = trainer.progress.finished and settings.training.inference == "variational"
    write_weights(path, trainer.best, trainer.progress.history, print_of, finished=finished)
    save_checkpoint(
        path / CHECKPOINT,
        model=trainer.model,
        best=trainer.best,
        highest=trainer.highest,
        average=trainer.average,
        optimizers=trainer.stepper.optimizers,
        progress=trainer.progress,
        fingerprint=print_of,
    )
