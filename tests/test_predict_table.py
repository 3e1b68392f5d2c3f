"""Predictions as an Arrow table: the columns of an export, for pairs of any kind of ids."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from factories import log_of, random_matrix

from mnar_recsys import MNARRecommender
from mnar_recsys.errors import ConfigError, DataError
from mnar_recsys.prediction.export import export_predictions
from mnar_recsys.prediction.pair_blocks import given_pairs

QUICK = {"max_steps": 5, "evaluate_every": 5, "samples": 2, "inference": "variational"}


@pytest.fixture(scope="module")
def model():
    return MNARRecommender(**QUICK).fit(log_of(random_matrix(20, 6)), seed=0)


def test_it_is_what_an_export_writes(model, tmp_path):
    users, items = ["u0003", "u0001", "nobody"], [5, 0, 0]
    table = model.predict_table(users, items, levels=True, propensity=True)
    blocks = given_pairs(model.fitted.log, np.array(users, dtype=object), np.array(items), strict=False)
    target = tmp_path / "p.parquet"
    export_predictions(target, model.predictor, blocks, levels=True, propensity=True)
    assert table.equals(pq.read_table(target))
    assert table["cold"].to_pylist()[1:] == [False, True]
    assert table["mean"].to_pylist() == model.predict(users, items).tolist()


def test_polars_takes_it(model):
    polars = pytest.importorskip("polars")
    pairs = polars.DataFrame({"user": ["u0003", "u0001"], "item": [5, 0]})
    frame = polars.from_arrow(model.predict_table(pairs["user"], pairs["item"]))
    assert frame.columns == ["user", "item", "mean", "sd", "mean_se", "q05", "q50", "q95", "cold"]
    assert frame["user"].to_list() == ["u0003", "u0001"]


def test_wrong_pairs(model):
    with pytest.raises(DataError, match="must be equally long"):
        model.predict_table(["u0003"], [1, 2])
    with pytest.raises(DataError, match="user ids must be text"):
        model.predict_table([3], [1])
    real = MNARRecommender(**QUICK).fit(log_of(random_matrix(20, 6) + 0.25, scale="1,4,real"), seed=0)
    with pytest.raises(ConfigError, match="level probabilities need rating levels"):
        real.predict_table(["u0003"], [1], levels=True)
