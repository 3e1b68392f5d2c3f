"""Reading what the user names, and noting on stderr what was found."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from mnar_recsys.cli.options import split_names
from mnar_recsys.cli.terminal import note, warn
from mnar_recsys.data import RatingLog, read_features
from mnar_recsys.data.id_files import IdColumn, read_ids
from mnar_recsys.errors import ConfigError, DataError, ModelFolderError

if TYPE_CHECKING:
    from mnar_recsys.recommender import MNARRecommender


def read_log(path: Path, *, columns: str | None, like: RatingLog | None = None, **options: str | None) -> RatingLog:
    """Read ratings and print the reader's notes; ``options`` as of ``RatingLog.read``, checked there."""
    names = split_names(columns, "--columns", (3, 4))
    log = RatingLog.read(path, columns=names, like=like, **cast("dict[str, Any]", options))
    for text in log.notes:
        if like is None or not text.startswith("scale:"):
            note(f"{path}: {text}")
    return log


def read_training_logs(
    ratings: Path,
    mcar_labels: Path | None,
    *,
    user_features: Path | None,
    item_features: Path | None,
    items: Path | None,
    eligible: Path | None,
    scale: str | None,
    duplicates: str,
    columns: str | None,
    ids: str,
    layout: str,
) -> tuple[RatingLog, RatingLog | None]:
    """Read the log that a fit is made to, with all that is known beside it, and the MCAR labels if there are any."""
    log = read_log(ratings, columns=columns, scale=scale, duplicates=duplicates, ids=ids, layout=layout)
    if items is not None:
        log = read_catalogue(items, log)
    log = with_features(with_eligible(log, eligible), user_features, item_features)
    if mcar_labels is None:
        return log, None
    return log, read_log(mcar_labels, columns=columns, like=log, duplicates=duplicates, layout=layout)


def load_model(folder: Path) -> "MNARRecommender":
    """Load a model folder, and say so where its training had not ended."""
    from mnar_recsys.recommender import MNARRecommender  # torch: only once it is needed

    recommender = MNARRecommender.load(folder)
    if not recommender.fitted.finished:
        warn(f"{folder}: training had not finished; these are its last checkpoint's weights. `train --resume` goes on")
    return recommender


def read_pairs(path: Path, log: RatingLog, columns: str | None) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
    """Read the user and item ids of pairs to predict, of the kinds that the log has: (n,), (n,)."""
    user, item = split_names(columns, "--columns", (2,)) or ("user", "item")
    users, items = read_ids(path, [IdColumn(user, "user", log.users.kind), IdColumn(item, "item", log.catalogue.kind)])
    return users, items


def with_features(log: RatingLog, users: Path | None, items: Path | None) -> RatingLog:
    """Return the log with the features of files, where any are given, in place of those it has."""
    if users is not None:
        log = log.with_features(user_features=read_features(users, log.users, "user"))
    if items is not None:
        log = log.with_features(item_features=read_features(items, log.catalogue, "item"))
    return log


def read_catalogue(path: Path, log: RatingLog) -> RatingLog:
    """Return the log with the items of a file (column ``item``) in its catalogue."""
    (items,) = read_ids(path, [IdColumn("item", "item", log.catalogue.kind)])
    wider = log.with_catalogue(items)
    note(f"{path}: {wider.n_items - log.n_items:,} items without ratings added to the catalogue")
    return wider


def with_eligible(log: RatingLog, path: Path | None) -> RatingLog:
    """Return the log in which only the pairs of a file (columns ``user,item``) were on offer, if one is given."""
    if path is None:
        return log
    users, items = read_pairs(path, log, None)
    try:
        wider = log.with_eligible(users, items)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    added = f"{wider.n_users - log.n_users:,} users and {wider.n_items - log.n_items:,} items without ratings added"
    n_eligible = 0 if wider.eligible is None else len(wider.eligible)
    note(f"{path}: {n_eligible:,} of {wider.n_users * wider.n_items:,} cells were on offer; {added}")
    return wider


def condition_on(recommender: "MNARRecommender", path: Path) -> "MNARRecommender":
    """Return the model conditioned on the ratings in a file; those of items it does not know are left out, and said."""
    fitted = recommender.fitted.log
    log = read_log(path, columns=None, like=fitted)
    is_known = fitted.catalogue.index(log.catalogue.ids)[log.items] >= 0
    if not is_known.all():
        warn(f"{path}: {int((~is_known).sum()):,} ratings of items that the model does not know are ignored")
        if not is_known.any():
            raise DataError(f"{path}: none of the items is known to the model; check the item ids")
        log = log.select_ratings(is_known)
    return recommender.condition_on(log)


def check_model_folder(folder: Path, *, resume: bool) -> None:
    """Refuse, before any work, a folder that is in use, has nothing to resume, or cannot be written to."""
    if resume:
        if not any((folder / name).is_file() for name in ("checkpoint.safetensors", "weights.safetensors")):
            raise ModelFolderError(f"{folder}: there is no checkpoint to resume from; train without --resume")
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ModelFolderError(f"{folder}: exists and is not empty; choose another folder, or go on with --resume")
    check_writable(folder)


def check_writable(folder: Path) -> None:
    """Raise DataError if no file can be written to the folder, or to the one in which it will be created."""
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise DataError(f"{folder}: cannot be written to ({error.strerror}); choose another folder") from error


def only_one(options: dict[str, bool]) -> str:
    """Return the one option that was given; raise ConfigError if it is none or several."""
    given = [name for name, is_given in options.items() if is_given]
    if len(given) != 1:
        raise ConfigError(f"give exactly one of {', '.join(options)}; found {' and '.join(given) or 'none'}")
    return given[0]
