"""Randomly collected ratings beside those given by choice, in one log."""

from dataclasses import replace

import numpy as np

from mnar_recsys.data.log import RatingLog
from mnar_recsys.errors import DataError


def add_survey(log: RatingLog, labels: RatingLog) -> RatingLog:
    """Return the log with randomly collected ratings among its own, marked in ``surveyed``.

    A rating of a cell that was rated by choice anyway is left out: it is known, and that it was rated is said already.

    Parameters
    ----------
    log
        Ratings given by choice.
    labels
        Ratings of cells drawn at random. Users and items that the log lacks are added to it.

    Raises
    ------
    DataError
        If the scales differ, or the log holds a survey already.
    """
    if log.surveyed is not None or labels.surveyed is not None:
        raise DataError("a log can hold one survey; found one in it already. Start from log.chosen")
    if log.scale != labels.scale:
        raise DataError(
            f"randomly collected ratings must have the log's scale, {log.scale.describe()}; found "
            f"{labels.scale.describe()}. Read them with scale=log.scale"
        )
    users, catalogue = log.users.union(labels.users), log.catalogue.union(labels.catalogue)
    log, labels = log.reindex(users, catalogue), labels.reindex(users, catalogue)
    is_new = ~np.isin(labels.cells, log.cells)
    added = labels.select_ratings(is_new)
    cells = np.concatenate([log.cells, added.cells])
    order = np.argsort(cells)
    rows, items = np.divmod(cells[order], log.n_items)
    repeated = added.n_ratings < labels.n_ratings
    note = f"{labels.n_ratings - added.n_ratings} survey ratings left out: rated by choice as well"
    return replace(
        log,
        indptr=np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=log.n_users))]).astype(np.int64),
        items=items.astype(np.int32),
        ratings=np.concatenate([log.ratings, added.ratings])[order],
        surveyed=(np.arange(len(cells)) >= log.n_ratings)[order],
        timestamps=None,
        notes=(*log.notes, note) if repeated else log.notes,
    )


def count_trained_labels(log: RatingLog, labels: RatingLog) -> int:
    """Return how many of some labels are in a training log's survey: a model that has seen them is no judge of them."""
    if log.surveyed is None:
        return 0
    rows, items = (
        log.users.index(labels.users.ids)[labels.rows],
        log.catalogue.index(labels.catalogue.ids)[labels.items],
    )
    cells = np.where((rows < 0) | (items < 0), -1, rows * log.n_items + items)
    return int(np.isin(cells, log.cells[log.surveyed]).sum())
