"""A fitted model on disk: ``config.json weights.safetensors vocab.parquet ratings.parquet history.csv card.md``.

Where there are features, ``user_features.parquet item_features.parquet`` as well, ``eligible.parquet`` where not every
cell was on offer, and ``draws.safetensors`` where the posterior was sampled. Everything but the weights is checked
before they load, and nothing is unpickled. The training ratings are part of the folder because predictions are
conditional on them.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError
from torch import Tensor

from mnar_recsys.config import Settings
from mnar_recsys.data import FeatureTable, RatingLog, RatingScale, Vocabulary
from mnar_recsys.data.eligible import EligibleCells
from mnar_recsys.errors import MnarError, ModelFolderError
from mnar_recsys.files import atomic_path, write_text
from mnar_recsys.model.build import build_model
from mnar_recsys.model.mnar_vae import MnarVae
from mnar_recsys.model.posterior_draws import PosteriorDraws
from mnar_recsys.model.tensor_file import read_facts, read_tensors, write_tensors

FORMAT = 2
CHECKPOINT = "checkpoint.safetensors"
DRAWS = "draws.safetensors"
ELIGIBLE = "eligible.parquet"
DATA_FILES = (
    "vocab.parquet", "ratings.parquet", "user_features.parquet", "item_features.parquet", ELIGIBLE, "config.json"
)  # fmt: skip
"""What ``write_data`` writes."""
_REQUIRED = ("config.json", "vocab.parquet", "ratings.parquet", "weights.safetensors")


@dataclass(frozen=True)
class FittedModel:
    """What a fit gives, and what a folder holds."""

    settings: Settings
    seed: int
    log: RatingLog
    model: MnarVae
    history: tuple[dict[str, float], ...]
    finished: bool
    draws: PosteriorDraws | None = None
    """the sampled posterior, where inference is mcmc and was not interrupted"""

    @property
    def kept_step(self) -> float | None:
        """Step of the training whose weights these are, as its history has it."""
        kept = [row["step"] for row in self.history if row.get("kept")]
        return kept[-1] if kept else None


def fingerprint(log: RatingLog, settings: Settings, seed: int) -> str:
    """Return a digest of everything that decides a fit."""
    return _digest(log, settings.model_dump(mode="json"), seed)


def _digest(log: RatingLog, settings: dict[str, Any], seed: int) -> str:
    """Digest the settings as they stand on disk: a field that a later version adds must not disown the folder."""
    digest = hashlib.sha256(json.dumps(settings).encode())
    digest.update(json.dumps([seed, log.scale.to_dict()]).encode())
    for vocabulary in (log.users, log.catalogue):
        digest.update("\n".join(map(str, vocabulary.ids.tolist())).encode())
    features = (None if table is None else table.values for table in _features(log).values())
    eligible = (None, None) if log.eligible is None else (log.eligible.indptr, log.eligible.items)
    optional = (log.surveyed, *features, *eligible)
    for array in (log.indptr, log.items, log.ratings, *optional):
        if array is not None:
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def write_data(folder: Path, log: RatingLog, settings: Settings, seed: int) -> None:
    """Write what does not change during training: settings, ids, ratings."""
    config = {
        "format": FORMAT,
        "fingerprint": fingerprint(log, settings, seed),
        "seed": seed,
        "scale": log.scale.to_dict(),
        "settings": settings.model_dump(mode="json"),
    }
    with atomic_path(folder / "vocab.parquet") as path:
        pq.write_table(_vocab_table(log), path)
    for name, features in _features(log).items():
        if features is not None:
            with atomic_path(folder / name) as path:
                pq.write_table(pa.table(dict(zip(features.names, features.values.T, strict=True))), path)
    if log.eligible is not None:
        rows, items = np.divmod(log.eligible.cells, log.n_items)
        with atomic_path(folder / ELIGIBLE) as path:
            pq.write_table(pa.table({"user": rows.astype(np.int32), "item": items.astype(np.int32)}), path)
    with atomic_path(folder / "ratings.parquet") as path:
        columns = {"user": log.rows, "item": log.items, "rating": log.ratings}
        pq.write_table(pa.table(columns if log.surveyed is None else {**columns, "surveyed": log.surveyed}), path)
    write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")


def write_weights(
    folder: Path,
    weights: dict[str, Tensor],
    history: Sequence[dict[str, float]],
    print_of: str,
    *,
    finished: bool,
) -> None:
    """Write weights and history as training goes on; each file whole or not at all."""
    with atomic_path(folder / "history.csv") as path:
        pd.DataFrame(list(history)).to_csv(path, index=False)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    write_tensors(folder / "weights.safetensors", tensors, {"fingerprint": print_of, "finished": finished})


def write_draws(folder: Path, draws: PosteriorDraws | None, print_of: str) -> None:
    """Write the sampled posterior, whole or not at all; without one, remove what is there of another model."""
    if draws is None:
        (folder / DRAWS).unlink(missing_ok=True)
        return
    tensors = {name: tensor.contiguous() for name, tensor in draws.tensors().items()}
    write_tensors(folder / DRAWS, tensors, {"fingerprint": print_of, "report": draws.facts()})


def read_model(folder: str | Path) -> FittedModel:
    """Load a model folder.

    Raises
    ------
    ModelFolderError
        If a file is absent, damaged, of another format, or does not belong to the others.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ModelFolderError(f"{folder}: no such model folder; train one with `mnar-recsys train`")
    absent = [name for name in _REQUIRED if not (folder / name).is_file()]
    if absent:
        raise ModelFolderError(
            f"{folder}: not a complete model folder, {', '.join(absent)} missing; train the model again"
        )
    config = _read_config(folder / "config.json")
    try:
        settings, seed = Settings.from_dict(config["settings"]), int(config["seed"])
        scale = RatingScale.from_dict(config["scale"])
    except (MnarError, ValueError, TypeError, AttributeError) as error:
        raise ModelFolderError(
            f"{folder / 'config.json'}: not the settings of a model of this package ({error}); train the model again"
        ) from error
    log = _read_log(folder, scale)
    if _digest(log, config["settings"], seed) != config["fingerprint"]:
        raise ModelFolderError(
            f"{folder}: ratings.parquet, vocab.parquet and config.json do not belong together; train the model again"
        )
    weights, finished = _read_weights(folder / "weights.safetensors", config["fingerprint"])
    model = build_model(settings.model, log, seed)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise ModelFolderError(
            f"{folder / 'weights.safetensors'}: the weights do not fit config.json ({reason}); train the model again"
        ) from error
    draws = None
    if finished and settings.training.inference == "mcmc":
        draws = _read_draws(folder / DRAWS, config["fingerprint"], model, log.n_users)
    return FittedModel(settings, seed, log, model, _read_history(folder / "history.csv"), finished, draws)


def _features(log: RatingLog) -> dict[str, FeatureTable | None]:
    """Return the file that holds features of users, and that of items, with what is in it."""
    return {"user_features.parquet": log.user_features, "item_features.parquet": log.item_features}


def _read_features(path: Path) -> FeatureTable | None:
    if not path.exists():
        return None
    table = pq.read_table(path)
    return FeatureTable(tuple(table.column_names), np.stack([column.to_numpy() for column in table.columns], axis=1))


def _read_eligible(path: Path, log: RatingLog) -> EligibleCells | None:
    if not path.exists():
        return None
    table = pq.read_table(path)
    rows, items = (table.column(name).to_numpy().astype(np.int64) for name in ("user", "item"))
    return EligibleCells.from_cells(rows * log.n_items + items, log.n_users, log.n_items)


def _vocab_table(log: RatingLog) -> pa.Table:
    kinds, ids, is_text = [], [], {}
    for kind, vocabulary in (("user", log.users), ("item", log.catalogue)):
        kinds += [kind] * len(vocabulary)
        ids += [str(value) for value in vocabulary.ids.tolist()]
        is_text[kind] = vocabulary.is_text
    table = pa.table({"kind": pa.array(kinds), "id": pa.array(ids)})
    return table.replace_schema_metadata({"is_text": json.dumps(is_text)})


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        found = config["format"]
        config["settings"], config["seed"], config["scale"], config["fingerprint"]
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise ModelFolderError(f"{path}: not the settings of a model of this package ({error})") from error
    if found != FORMAT:
        raise ModelFolderError(f"{path}: model format {found} found, {FORMAT} expected; train the model again")
    return dict(config)


def _read_log(folder: Path, scale: RatingScale) -> RatingLog:
    try:
        vocab = pq.read_table(folder / "vocab.parquet")
        is_text = json.loads(vocab.schema.metadata[b"is_text"])
        frame = vocab.to_pandas()
        ids = {
            kind: Vocabulary.from_ids(np.asarray(values if is_text[kind] else values.astype(np.int64)), kind)
            for kind, values in ((kind, frame.loc[frame["kind"] == kind, "id"]) for kind in ("user", "item"))
        }
        ratings = pq.read_table(folder / "ratings.parquet")
        users, items, values = (ratings.column(name).to_numpy() for name in ("user", "item", "rating"))
        log = RatingLog.from_arrays(
            ids["user"].take(users),
            ids["item"].take(items),
            values,
            scale=scale,
            user_ids=ids["user"],
            catalogue=ids["item"],
        )
        # The rows stand in the order of the log.
        has_survey = "surveyed" in ratings.column_names
        return replace(
            log,
            surveyed=ratings.column("surveyed").to_numpy() if has_survey else None,
            eligible=_read_eligible(folder / ELIGIBLE, log),
            user_features=_read_features(folder / "user_features.parquet"),
            item_features=_read_features(folder / "item_features.parquet"),
        )
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError, IndexError, MnarError) as error:
        raise ModelFolderError(
            f"{folder}: the ids or ratings in it are damaged ({error}); train the model again"
        ) from error


def _read_weights(path: Path, expected: str) -> tuple[dict[str, Tensor], bool]:
    try:
        facts = read_facts(path)
        if facts["fingerprint"] != expected:
            raise ModelFolderError(f"{path}: the weights belong to another model; train the model again")
        return read_tensors(path), bool(facts["finished"])
    except KeyError as error:
        raise ModelFolderError(f"{path}: not this package's, {error} missing; train the model again") from error
    except (SafetensorError, OSError, TypeError, ValueError) as error:
        raise ModelFolderError(f"{path}: damaged weights ({error}); train the model again") from error


def _read_draws(path: Path, expected: str, model: MnarVae, n_users: int) -> PosteriorDraws:
    try:
        facts = read_facts(path)
        if facts["fingerprint"] != expected:
            raise ModelFolderError(f"{path}: the draws belong to another model; train the model again")
        return PosteriorDraws.from_parts(read_tensors(path), facts["report"], model, (n_users, model.latent_size))
    except FileNotFoundError as error:
        raise ModelFolderError(f"{path}: the draws of the posterior are missing; train the model again") from error
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise ModelFolderError(f"{path}: damaged draws ({error}); train the model again") from error


def _read_history(path: Path) -> tuple[dict[str, float], ...]:
    try:
        rows = pd.read_csv(path).to_dict("records")
    except (OSError, ValueError):
        return ()  # the history is for people; a model predicts without it
    return tuple({str(key): float(value) for key, value in row.items()} for row in rows)
