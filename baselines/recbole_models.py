"""Models of RecBole as methods of the comparison, each trained by RecBole itself in a process of its own."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from baselines import recbole_worker
from baselines.base import Baseline
from mnar_recsys.data import RatingLog, RatingScale, Split, Vocabulary, write_inter_split
from mnar_recsys.errors import ConfigError, DataError, DivergedError
from mnar_recsys.rng import torch_seed

RECBOLE = "1.2.1"
MAX_PAIRS = 50_000_000
"""Users times items beyond which the table of all scores would not be held in memory."""
_BELOW = MappingProxyType({"numpy": 2, "pandas": 3})
_HELD_OUT = 0.1
_CUTOFF = 10

_OF_RATINGS: Mapping[str, Any] = {
    "LABEL_FIELD": "rating",
    "train_neg_sample_args": None,
    "eval_args": {"order": "RO", "group_by": None, "mode": "labeled"},
    "metrics": ["RMSE"],
    "valid_metric": "RMSE",
    "metric_decimal_place": 6,
}
_OF_RANKS: Mapping[str, Any] = {
    "eval_args": {"order": "RO", "group_by": "user", "mode": "full"},
    "metrics": ["NDCG"],
    "topk": [_CUTOFF],
    "valid_metric": f"NDCG@{_CUTOFF}",
    "metric_decimal_place": 6,
}


@dataclass(frozen=True)
class RecBoleModel:
    """What RecBole calls a model, what it predicts, and the settings without which it would not."""

    name: str
    paper: str
    predicts_ratings: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)


MODELS: Mapping[str, RecBoleModel] = MappingProxyType({
    "recbole_neumf": RecBoleModel(
        "NeuMF", "He et al., Neural collaborative filtering, WWW 2017", predicts_ratings=True
    ),
    "recbole_dmf": RecBoleModel(
        "DMF", "Xue et al., Deep matrix factorization models, IJCAI 2017", predicts_ratings=True,
        settings={"inter_matrix_type": "rating"},
    ),
    "recbole_bpr": RecBoleModel("BPR", "Rendle et al., Bayesian personalized ranking, UAI 2009"),
    "recbole_multivae": RecBoleModel("MultiVAE", "Liang et al., Variational autoencoders, WWW 2018"),
    "recbole_simplex": RecBoleModel("SimpleX", "Mao et al., SimpleX, CIKM 2021"),
})  # fmt: skip
"""Name of a row to the model."""


def recbole_fault() -> str | None:
    """Return why RecBole cannot run in this environment, or None if it can: it imports in many where it then fails."""
    try:
        found = {name: version(name) for name in ("recbole", *_BELOW)}
    except PackageNotFoundError as error:
        return f"{error.name} is not installed"
    if found["recbole"] != RECBOLE:
        return f"RecBole must be {RECBOLE}; found {found['recbole']}"
    for name, limit in _BELOW.items():
        if int(found[name].split(".")[0]) >= limit:
            return f"RecBole {RECBOLE} needs {name} below {limit}; found {found[name]}"
    return None


class RecBoleMethod(Baseline):
    r"""A model of RecBole (Zhao et al., RecBole, CIKM 2021), trained and stopped by RecBole's own Trainer.

    Models that predict ratings (NeuMF and DMF) learn the share of the scale, :math:`(x - l) / (h - l)` or for DMF
    :math:`x / h`, by the cross-entropy they always learn by, whose minimum over predictions is the expected share; only
    ratings are trained on, and RMSE stops them. The others rank: trained on the ratings at or above ``threshold``
    against unrated items, stopped by NDCG@10; their predictions are scores, of which only the order means anything.

    RecBole runs in a process and a folder of its own; see ``recbole_worker``. A tenth of the ratings is for stopping,
    unless the split holds some out. A user or item that RecBole has not met scores as the average one.

    Parameters
    ----------
    model
        A name of ``MODELS``.
    threshold
        Lowest rating that is a positive for a model that ranks, in rating points; default the middle of the scale.
    **settings
        Settings of RecBole, as in its configuration files; else its defaults.

    Raises
    ------
    ConfigError
        If the model is unknown, or RecBole cannot run in this environment.
    """

    def __init__(self, model: str, *, threshold: float | None = None, **settings: Any) -> None:
        if model not in MODELS:
            raise ConfigError(f"a RecBole row must be one of {', '.join(MODELS)}; found {model!r}")
        if (fault := recbole_fault()) is not None:
            raise ConfigError(
                f"{model}: {fault}. Install mnar-recsys[recbole] into an environment of its own, with Python 3.11"
            )
        self.model = MODELS[model]
        self.threshold = threshold
        self.settings = settings
        self._scores: NDArray[np.float64] = np.zeros((1, 1))

    @property
    def predicts_ratings(self) -> bool:
        """Whether predictions are ratings; else they are scores."""
        return self.model.predicts_ratings

    def _fit(self, split: Split, seed: int) -> None:
        log = split.mnar_train
        if log.n_users * log.n_items > MAX_PAIRS:
            raise DataError(
                f"the scores of RecBole's models are kept for all pairs, at most {MAX_PAIRS:,}; found "
                f"{log.n_users:,} users x {log.n_items:,} items. Give fewer users or items"
            )
        if split.mnar_valid is None:
            split = split.hold_out(_HELD_OUT, seed=seed)
        low, width = self._unit(log.scale)
        train, valid = (self._part(part, low, width) for part in (split.mnar_train, split.mnar_valid))
        # RecBole wants a test as well; all that it has to do with here is what validates anyway.
        files = Split(mnar_train=train, mnar_valid=valid, mcar_test=valid)
        common = _OF_RATINGS if self.predicts_ratings else _OF_RANKS
        settings = {**common, **self.model.settings, **self.settings, "seed": torch_seed(seed, "recbole") % 2**31}
        scores = run_recbole(self.model.name, files, settings).astype(np.float64)
        self._scores = with_averages(low + width * scores if self.predicts_ratings else scores)

    def _predict(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.asarray(self._scores[rows, columns], dtype=np.float64)

    def _unit(self, scale: RatingScale) -> tuple[float, float]:
        """Return the zero and the unit in which RecBole is given ratings: they fill [0, 1], for DMF without the 0.

        DMF takes a rating of 0 for none. On 1-5 it gets x / 5, as published.
        """
        width = scale.high - scale.low
        below = (scale.step or width / 4) if self.model.name == "DMF" else 0.0
        return scale.low - below, width + below

    def _part(self, log: RatingLog | None, low: float, width: float) -> RatingLog:
        """Return ratings as RecBole is given them, with indices for ids; only positives for a model that ranks."""
        if log is None:
            raise DataError("RecBole's models need held-out ratings; use split.hold_out(...)")
        if not self.predicts_ratings:
            least = log.scale.centre if self.threshold is None else self.threshold
            log = log.select_ratings(log.ratings >= least)
        if not log.n_ratings:
            raise DataError(f"{self.model.name} needs positives to train and to stop by; found none. Set threshold")
        return replace(
            log,
            ratings=((log.values - low) / width).astype(np.float32),
            scale=RatingScale(0.0, 1.0),
            users=Vocabulary(np.arange(log.n_users), "user"),
            catalogue=Vocabulary(np.arange(log.n_items), "item"),
            timestamps=None,
        )


def with_averages(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (N + 1, P + 1) scores: what was NaN, and the last row and column, are those of an average user or item."""
    table = np.pad(scores, (0, 1), constant_values=np.nan)
    users, items = np.flatnonzero(~np.isnan(table).all(1)), np.flatnonzero(~np.isnan(table).all(0))
    known = table[np.ix_(users, items)]
    table[:] = known.mean()
    table[users] = known.mean(1, keepdims=True)
    table[:, items] = known.mean(0)
    table[np.ix_(users, items)] = known
    return table


def run_recbole(model: str, split: Split, settings: Mapping[str, Any]) -> NDArray[np.float32]:
    """Train a model of RecBole on a split whose ids are indices; return the score of each pair, (N, P).

    Raises
    ------
    DivergedError
        If its loss is not a number.
    ConfigError
        If it fails in any other way, which wrong settings are the usual reason for, with the last line it wrote.
    """
    with tempfile.TemporaryDirectory(prefix="recbole-") as name:
        folder = Path(name)
        write_inter_split(split, folder, "log")
        own = {
            "data_path": name,
            "benchmark_filename": ["train", "valid", "test"],
            "load_col": {"inter": ["user_id", "item_id", "rating"]},
            "gpu_id": "",
            "show_progress": False,
        }
        shape = split.mnar_train.n_users, split.mnar_train.n_items
        request = {"model": model, "settings": {**settings, **own}, "shape": shape}
        (folder / recbole_worker.REQUEST).write_text(json.dumps(request), encoding="utf-8")
        with (folder / "log.txt").open("w+", encoding="utf-8") as log:
            # -P: the folder of the script is no place to import from. Its input stays open while this process lives.
            command = [sys.executable, "-P", str(Path(recbole_worker.__file__))]
            with subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=log, stderr=log) as process:  # noqa: S603
                try:
                    code = process.wait()
                except BaseException:
                    process.kill()
                    raise
            log.seek(0)
            said = log.read()
        if code:
            if "loss is nan" in said:
                raise DivergedError(f"{model}: RecBole's training loss is not a number; set a smaller learning_rate")
            last = (said.strip().splitlines() or ["it said nothing"])[-1]
            raise ConfigError(f"RecBole's {model} ended with exit code {code}: {last}. Check its settings")
        return np.asarray(np.load(folder / recbole_worker.SCORES, allow_pickle=False), dtype=np.float32)
