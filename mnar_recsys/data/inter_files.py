"""RecBole's ``.inter`` files: tab-separated text whose header gives each column's type.

A split is written as RecBole's ``benchmark_filename: [train, valid, test]`` expects it, so that both sides train and
score on the same ratings: ``FOLDER/NAME/NAME.train.inter``, ``.valid.inter`` and ``.test.inter``.
"""

import csv
import io
from pathlib import Path

import numpy as np
import pandas as pd

from mnar_recsys.data.log import RatingLog
from mnar_recsys.data.scale import RatingScale
from mnar_recsys.data.split import Split
from mnar_recsys.data.vocab import Vocabulary
from mnar_recsys.errors import DataError
from mnar_recsys.files import atomic_path

_HEADER = {
    "user": "user_id:token",
    "item": "item_id:token",
    "rating": "rating:float",
    "timestamp": "timestamp:float",
}
ROLES = {"train": "mnar_train", "valid": "mnar_valid", "test": "mcar_test"}
"""RecBole's name of a part to its role in a ``Split``."""


def write_inter(log: RatingLog, path: str | Path) -> None:
    """Write the ratings of a log, and its timestamps if it has any; the file is written whole or not at all.

    Ids, ratings and timestamps come back from ``RatingLog.read_inter`` as they were. Features, cells on offer and users
    or items without ratings have no place in such a file.

    Raises
    ------
    DataError
        If an id would not come back from RecBole's reader as it was, if some of the ratings are of a survey, which the
        file cannot say, or if it cannot be written.
    """
    if log.surveyed is not None:
        raise DataError(
            f"{path}: an .inter file cannot say which ratings were collected at random; found "
            f"{int(log.surveyed.sum())} such ratings. Write log.chosen"
        )
    for ids in (log.users, log.catalogue):
        _check_ids(ids)
    frame = log.to_pandas()
    header = [_HEADER[name] for name in frame.columns]
    with atomic_path(path) as temporary:
        frame.to_csv(temporary, sep="\t", index=False, header=header, quoting=csv.QUOTE_NONE)


def write_inter_split(split: Split, folder: str | Path, name: str) -> dict[str, Path]:
    """Write each role of a split that RecBole has a part for; return the files by RecBole's name of the part.

    Parameters
    ----------
    split : Split
        ``mnar_train`` becomes ``train``, ``mnar_valid`` ``valid`` and ``mcar_test`` ``test``.
    folder : path
        RecBole's ``data_path``.
    name : str
        RecBole's name of the data set.

    Raises
    ------
    DataError
        If the split has labels to train on, for which RecBole has no part, or as ``write_inter``.
    """
    if split.mcar_labels is not None:
        raise DataError(
            f"RecBole has no part for mcar_labels; found {split.n_labels} labels. Leave them out: "
            "dataclasses.replace(split, mcar_labels=None)"
        )
    logs = {part: getattr(split, role) for part, role in ROLES.items()}
    paths = {part: _path(folder, name, part) for part, log in logs.items() if log is not None}
    for part, path in paths.items():
        write_inter(logs[part], path)
    return paths


def read_inter_split(folder: str | Path, name: str, *, scale: RatingScale | str | None = None) -> Split:
    """Return the split whose parts are the files that ``write_inter_split`` or RecBole's users wrote.

    The test becomes ``mcar_test``, which is to say: randomly collected. If RecBole's split was of self-selected
    ratings, as it mostly is, errors on it are those on self-selected ratings. ``scale`` as of ``RatingLog.read``.

    Raises
    ------
    DataError
        If there is no training part, a file cannot be read, or parts overlap that must not.
    """
    paths = {part: _path(folder, name, part) for part in ROLES}
    train = RatingLog.read_inter(paths["train"], scale=scale)
    others = {
        ROLES[part]: RatingLog.read_inter(path, like=train)
        for part, path in paths.items()
        if part != "train" and path.exists()
    }
    return Split(mnar_train=train, **others)


def _path(folder: str | Path, name: str, part: str) -> Path:
    return Path(folder) / name / f"{name}.{part}.inter"


def _check_ids(ids: Vocabulary) -> None:
    """Refuse ids that RecBole's reader would change: tabs, quotes, words that pandas takes for a missing value."""
    if not ids.is_text or _survive(ids):
        return
    lost = next(one for one in ids.ids if not _survive(Vocabulary.from_ids([one])))
    raise DataError(
        f"{ids.label} id {lost!r} does not come back from an .inter file as it was. Rename it: no tabs, quotes or "
        "spaces at its ends, and none of the words that stand for a missing value (NA, nan, null, None, ...)"
    )


def _survive(ids: Vocabulary) -> bool:
    text = "\n".join(("id:token\tother:token", *(f"{one}\t0" for one in ids.ids), ""))
    try:
        # RecBole's own call, dataset.py of 1.2.1.
        read = pd.read_csv(io.StringIO(text), delimiter="\t", usecols=["id:token"], dtype=str, engine="python")
    except (pd.errors.ParserError, csv.Error, ValueError):
        return False
    found = read["id:token"].to_numpy(dtype=object)
    return np.array_equal(found, ids.ids) and all(one == one.strip() for one in ids.ids)
