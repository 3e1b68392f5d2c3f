"""A simulation as files: three CSV logs and the truth."""

from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv

from mnar_recsys.data.log import RatingLog
from mnar_recsys.data.simulate import Simulation, Truth
from mnar_recsys.files import atomic_path

_MAX_STORED_CELLS = 20_000_000
_HEADER = b"user,item,rating\n"


def write_simulation(simulation: Simulation, out_dir: str | Path) -> tuple[Path, ...]:
    """Write ``train.csv``, ``test.csv``, ``mcar_labels.csv`` and ``truth.npz``, each whole or not at all.

    The CSV files hold ``user,item,rating``. ``truth.npz`` holds what ``truth_arrays`` returns; read it with
    ``numpy.load``, nothing in it is pickled.

    Returns
    -------
    tuple of Path
        The four files.

    Raises
    ------
    DataError
        If a file cannot be written.
    """
    folder = Path(out_dir)
    paths = tuple(folder / name for name in ("train.csv", "test.csv", "mcar_labels.csv", "truth.npz"))
    for path, log in zip(paths, (simulation.train, simulation.test, simulation.labels), strict=False):
        _write_log(path, log)
    with atomic_path(paths[-1]) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **truth_arrays(simulation.truth))
    return paths


def truth_arrays(truth: Truth) -> dict[str, NDArray[np.generic]]:
    """Return the truth as named arrays.

    Always: ``preset seed levels selection intercept rating_marginal observed_marginal thresholds noise_sd
    item_offset item_factors item_popularity user_offset user_factors user_activity``, users and items in the
    order of their ids. Up to 20 million cells also ``ratings`` (N, P) int8 and ``propensity`` (N, P) float32.
    """
    design = truth.design
    arrays: dict[str, NDArray[np.generic]] = {
        "preset": np.array(design.preset.name),
        "seed": np.array(design.seed),
        "levels": design.preset.levels,
        "selection": truth.selection,
        "intercept": np.array(design.intercept),
        "rating_marginal": truth.rating_marginal,
        "observed_marginal": design.observed_marginal(),
        "thresholds": design.thresholds,
        "noise_sd": np.array(np.sqrt(design.preset.noise_share)),
        "item_offset": design.item_offset,
        "item_factors": design.item_factors,
        "item_popularity": design.item_popularity,
        "user_offset": truth.user_offset,
        "user_factors": truth.user_factors,
        "user_activity": truth.user_activity,
    }
    if design.n_users * design.n_items <= _MAX_STORED_CELLS:
        arrays["ratings"], arrays["propensity"] = truth.block(0, design.n_users)
    return arrays


def _write_log(path: Path, log: RatingLog) -> None:
    # pyarrow quotes a header it writes itself; readers that split at commas should not have to care.
    columns = {
        "user": log.users.take(log.rows),
        "item": log.catalogue.take(log.items),
        "rating": log.ratings.astype(np.int8),
    }
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(_HEADER)
        csv.write_csv(pa.table(columns), file, csv.WriteOptions(include_header=False))
