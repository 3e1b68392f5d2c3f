"""The rating log, and the ways to build one."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pandas as pd

from mnar_recsys.data import arrow, frames
from mnar_recsys.data.delimited import IdKinds
from mnar_recsys.data.duplicates import Duplicates, sort_cells
from mnar_recsys.data.layouts import Layout, read_layout
from mnar_recsys.data.matrix import RatingMatrix
from mnar_recsys.data.scale import RatingScale
from mnar_recsys.data.table import RatingTable
from mnar_recsys.errors import ConfigError


@dataclass(frozen=True, eq=False, repr=False)
class RatingLog(RatingMatrix):
    """A log of ratings: who rated what, and how. See `RatingMatrix` for its arrays.

    Build one with `read` (any known file), `read_csv`, `from_pandas`, `from_arrow`, `from_arrays` or `from_scipy`.
    These refuse fewer than one rating, two users or two items.
    """

    @classmethod
    def from_table(
        cls, table: RatingTable, *, scale: RatingScale | str | None = None, duplicates: Duplicates = "error"
    ) -> Self:
        """Return the log of a table that a reader made; see `from_arrays`."""
        chosen, scale_note = table.resolve_scale(scale)
        cells, merge_notes = sort_cells(table, chosen, duplicates)
        indptr = np.zeros(len(table.users) + 1, dtype=np.int64)
        np.cumsum(np.bincount(cells.user_codes, minlength=len(table.users)), out=indptr[1:])
        return cls(
            indptr=indptr,
            items=cells.item_codes.astype(np.int32),
            ratings=cells.ratings.astype(np.float32),
            users=table.users,
            catalogue=table.items,
            scale=chosen,
            timestamps=cells.timestamps,
            user_features=table.user_features,
            item_features=table.item_features,
            notes=(*table.notes, scale_note, *merge_notes),
        )

    @classmethod
    def from_arrays(
        cls,
        users: Any,
        items: Any,
        ratings: Any,
        *,
        scale: RatingScale | str | None = None,
        duplicates: Duplicates = "error",
        timestamps: Any = None,
        user_ids: Any = None,
        catalogue: Any = None,
    ) -> Self:
        """Return the log of parallel arrays of ids and ratings.

        Parameters
        ----------
        users, items : arrays of whole numbers or of text, (n,)
            Original ids, not indices.
        ratings : array, (n,)
            In rating points.
        scale : RatingScale or str, optional
            What a rating can be, for example ``"1,5"``; inferred, and noted, when not given.
        duplicates : {"error", "last", "mean"}
            What to do where a (user, item) pair occurs twice; ``last`` goes by timestamp if there is one.
        timestamps : array, (n,), optional
        user_ids, catalogue : ids or Vocabulary, optional
            All users and all items, where some may have no rating. Giving one also allows it to have a single
            entry, as for one new user.

        Raises
        ------
        DataError
            If an id or rating is not what it should be, with its position, or there are too few.
        """
        table = RatingTable.from_arrays(users, items, ratings, timestamps, user_ids=user_ids, catalogue=catalogue)
        table.check_size(users_given=user_ids is not None, items_given=catalogue is not None)
        return cls.from_table(table, scale=scale, duplicates=duplicates)

    @classmethod
    def from_pandas(
        cls,
        frame: pd.DataFrame,
        user: str = "user",
        item: str = "item",
        rating: str = "rating",
        timestamp: str | None = None,
        *,
        scale: RatingScale | str | None = None,
        duplicates: Duplicates = "error",
        user_ids: Any = None,
        catalogue: Any = None,
    ) -> Self:
        """Return the log of a frame with the named columns; see `from_arrays`.

        ``timestamp`` defaults to the column ``timestamp`` where there is one; dates become seconds since
        1970.
        """
        columns = frames.columns_of(frame, user, item, rating, timestamp)
        log = cls.from_arrays(
            columns.users,
            columns.items,
            columns.ratings,
            timestamps=columns.timestamps,
            scale=scale,
            duplicates=duplicates,
            user_ids=user_ids,
            catalogue=catalogue,
        )
        return replace(log, notes=(*columns.notes, *log.notes))

    @classmethod
    def from_arrow(
        cls,
        frame: Any,
        user: str = "user",
        item: str = "item",
        rating: str = "rating",
        timestamp: str | None = None,
        *,
        scale: RatingScale | str | None = None,
        duplicates: Duplicates = "error",
    ) -> Self:
        """Return the log of the named columns of any frame that speaks Arrow: polars, pyarrow, DuckDB, pandas.

        That is, of any object with the method ``__arrow_c_stream__``. Columns are read where they lie; what is copied
        is the log. ``timestamp`` as of `from_pandas`. In messages rows are counted from 1.

        Raises
        ------
        DataError
            If it is no such frame, lacks a column, or an id or rating is not what it should be.
        """
        content = arrow.read_stream(frame)
        found = content.column_names
        if timestamp is None and "timestamp" in found:
            timestamp = "timestamp"
        names = [user, item, rating, *([] if timestamp is None else [timestamp])]
        remedy = "Name the columns: from_arrow(frame, user=..., item=..., rating=...)"
        arrow.check_names(found, names, "the frame", remedy)
        table = arrow.rating_table(arrow.ArrowColumns("the frame", content.select(names)), names, IdKinds(), found)
        table.check_size()
        return cls.from_table(table, scale=scale, duplicates=duplicates)

    @classmethod
    def from_scipy(
        cls,
        matrix: Any,
        *,
        scale: RatingScale | str | None = None,
        duplicates: Duplicates = "error",
        user_ids: Any = None,
        catalogue: Any = None,
    ) -> Self:
        """Return the log of a scipy sparse matrix, users by items.

        Ids are row and column numbers, or ``user_ids`` and ``catalogue``, which must be in the order of the
        rows and columns. A stored zero is a rating of 0, so it is refused unless the scale has a 0.
        """
        table = frames.table_of_matrix(matrix, user_ids, catalogue, scale)
        table.check_size(users_given=True, items_given=True)
        return cls.from_table(table, scale=scale, duplicates=duplicates)

    @classmethod
    def read(
        cls,
        path: str | Path,
        *,
        layout: Layout = "auto",
        scale: RatingScale | str | None = None,
        duplicates: Duplicates = "error",
        columns: tuple[str, ...] | None = None,
        ids: Literal["auto", "text"] = "auto",
        like: RatingMatrix | None = None,
    ) -> Self:
        """Return the log in a file of any known layout.

        Parameters
        ----------
        path : str or Path
            CSV or TSV (also with ``;`` or ``|``, also ``.gz``), Parquet, RecBole ``.inter``, or a file of
            Yahoo! R3, Coat, KuaiRec or MovieLens as published.
        layout : str
            ``auto`` goes by the file's name, then by its header; `notes` says which it was.
        scale : RatingScale or str, optional
            What a rating can be, for example ``"1,5"``; else the layout's own, else inferred.
        duplicates : {"error", "last", "mean"}
            What to do where a (user, item) pair occurs twice; ``last`` goes by timestamp if there is one.
        columns : three or four names, optional
            The user, item and rating columns, and perhaps the timestamp's.
        ids : {"auto", "text"}
            In text files ids are whole numbers where all are written as such; ``text`` reads all ids as text.
        like : RatingLog, optional
            Another log, such as the training log of a test file: ids are read as its are, and its scale is
            used. A single user or item is then allowed.

        Raises
        ------
        DataError
            With the file, the line, the column, what was found, what was expected, and the remedy.
        """
        if ids not in ("auto", "text"):
            raise ConfigError(f"ids must be auto or text; found {ids!r}")
        if ids == "text" and like is not None:
            raise ConfigError("ids and like both say how ids are read; give one of them")
        kinds = IdKinds("text", "text") if ids == "text" else IdKinds()
        if like is not None:
            kinds = IdKinds(like.users.kind, like.catalogue.kind)
        table = read_layout(path, layout, columns, kinds)
        table.check_size(users_given=like is not None, items_given=like is not None)
        if like is not None and scale is None:
            remedy = "Correct it, or convert the ratings to the scale of the log that they are read for"
            like.scale.check(table.ratings, place=table.place, remedy=remedy)
            scale = like.scale
        return cls.from_table(table, scale=scale, duplicates=duplicates)

    @classmethod
    def read_csv(cls, path: str | Path, columns: tuple[str, ...] | None = None, **options: Any) -> Self:
        """Return the log in delimited text with the columns user, item, rating or those named; see `read`."""
        return cls.read(path, layout="csv", columns=columns, **options)

    @classmethod
    def read_parquet(cls, path: str | Path, columns: tuple[str, ...] | None = None, **options: Any) -> Self:
        """Return the log in a Parquet file with the columns user, item, rating or those named; see `read`."""
        return cls.read(path, layout="parquet", columns=columns, **options)

    @classmethod
    def read_inter(cls, path: str | Path, columns: tuple[str, ...] | None = None, **options: Any) -> Self:
        """Return the log in a RecBole ``.inter`` file with user_id, item_id and rating; see `read`."""
        return cls.read(path, layout="recbole", columns=columns, **options)
