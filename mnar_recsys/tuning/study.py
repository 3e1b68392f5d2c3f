"""The file in which Optuna keeps a search."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mnar_recsys.errors import ModelFolderError

if TYPE_CHECKING:
    import optuna

STUDY = "study.db"
_NAME = "settings"
# Of the others, and of the trial itself, before it may be pruned.
_LEAST_TRIALS = 4
_LEAST_LOOKS = 3


@contextmanager
def open_study(folder: Path, described: Mapping[str, str], *, resume: bool) -> Iterator["optuna.Study"]:
    """Give the study in a folder, new or with ``resume`` as it was left; a trial that was cut off then has failed.

    Parameters
    ----------
    folder : path
        Made where it is not there.
    described : mapping of str to str
        What decides the search; kept with it.
    resume : bool
        Whether there must be one, of the same description.

    Raises
    ------
    ModelFolderError
        If the folder is in use, holds no search or another one, or its file cannot be read or written.
    """
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    path = folder / STUDY
    if resume and not path.is_file():
        raise ModelFolderError(f"{folder}: there is no search to go on with; tune without --resume")
    if not resume and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ModelFolderError(f"{folder}: exists and is not empty; choose another folder, or go on with --resume")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        storage = optuna.storages.RDBStorage(f"sqlite:///{path.absolute()}")
        try:
            study = optuna.create_study(
                storage=storage,
                study_name=_NAME,
                direction="maximize",
                load_if_exists=resume,
                pruner=optuna.pruners.MedianPruner(n_startup_trials=_LEAST_TRIALS, n_warmup_steps=_LEAST_LOOKS),
            )
            _check(study, described, path, resume=resume)
            yield study
        finally:
            storage.remove_session()
            storage.engine.dispose()
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError, OSError) as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise ModelFolderError(f"{path}: no readable search ({reason}); tune into another folder") from error


def _check(study: "optuna.Study", described: Mapping[str, str], path: Path, *, resume: bool) -> None:
    """Describe a new study; refuse one of another description; let trials fail that were cut off."""
    import optuna

    found = study.user_attrs
    if not resume or not found:
        for name, text in described.items():
            study.set_user_attr(name, text)
    elif found != dict(described):
        raise ModelFolderError(
            f"{path}: is of a search with other ratings, settings, ranges or seed; resume with the first run's options"
        )
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
