"""Work on a Ray cluster is the work of one process: the same files, the same cells, in the same order."""

import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from factories import log_of, random_matrix, tiny_model

from baselines.bias import BiasBaseline
from evaluation.benchmark import Entry, run_benchmark
from mnar_recsys.data import Split
from mnar_recsys.errors import ConfigError, DataError
from mnar_recsys.prediction import Predictor, pair_blocks
from mnar_recsys.prediction.export import export_predictions, on_ray
from mnar_recsys.prediction.pair_blocks import all_pairs, top_pairs
from mnar_recsys.ray_tasks import LOCAL, RayCalls, ray_cluster, stream

pytestmark = pytest.mark.slow
pytest.importorskip("ray")


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with ray_cluster(LOCAL):
        yield


def test_a_stream_keeps_its_order_and_its_workers_their_state() -> None:
    read: list[int] = []

    def inputs() -> Iterator[int]:
        for value in range(12):
            read.append(value)
            yield value

    def counting(start: int):
        calls = iter(range(start, start + 1000))
        return lambda value: (value, next(calls), os.getpid())

    answers = stream(counting, (100,), inputs())
    first = next(answers)
    n_workers = os.cpu_count() or 1
    assert len(read) <= 2 * n_workers  # no further ahead than there are workers for
    found = [first, *answers]
    assert [value for value, _, _ in found] == list(range(12))
    for process in {process for _, _, process in found}:
        assert process != os.getpid()
        numbers = [number for _, number, where in found if where == process]
        assert numbers == list(range(100, 100 + len(numbers)))


def test_an_error_comes_as_it_was_raised() -> None:
    def refusing() -> Callable[[int], int]:
        def refuse(value: int) -> int:
            raise DataError(f"found {value}")

        return refuse

    with pytest.raises(DataError) as caught:
        list(stream(refusing, (), [7]))
    assert str(caught.value) == "found 7"


def test_calls_have_a_process_each_and_errors_come_back() -> None:
    calls = RayCalls()
    shared = np.arange(5)
    processes = [calls.submit(lambda values: (os.getpid(), values.sum()), shared) for _ in range(3)]
    found = [future.result() for future in processes]
    assert len({process for process, _ in found}) == 3
    assert {total for _, total in found} == {10}
    with pytest.raises(ZeroDivisionError):
        calls.submit(lambda: 1 / 0).result()


@pytest.mark.parametrize("which", ["all", "top"])
def test_an_export_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: str) -> None:
    matrix = random_matrix(25, 7, seed=9)
    matrix[2] = 2.0  # nothing left to recommend
    log = log_of(matrix)
    predictor = Predictor(tiny_model(log, missing="shared", user_activity=True), log, draws=64)
    monkeypatch.setattr(pair_blocks, "_PAIRS_AT_ONCE", 35)
    requests = {"all": lambda: all_pairs(log), "top": lambda: top_pairs(log, 3)}[which]
    written: list[int] = []
    one = export_predictions(tmp_path / "one.parquet", predictor, requests(), levels=True)
    two = export_predictions(
        tmp_path / "two.parquet", predictor, requests(), levels=True, run=on_ray(25 * 7), on_pairs=written.append
    )
    assert one == two
    assert len(written) > 1
    pd.testing.assert_frame_equal(
        *(pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("one", "two")), rtol=1e-4, atol=1e-5
    )


def test_cells_of_a_benchmark_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = log_of(random_matrix(25, 7, seed=9))
    pairs = np.array(log.users.ids[:4]), np.array(log.catalogue.ids[:4])
    # The fixture's cluster stands in for one that is joined.
    monkeypatch.setattr("evaluation.worker_pool.ray_cluster", nullcontext)
    entries = [Entry("bias", BiasBaseline), Entry("bad", BiasBaseline, {"user_shrinkage": -1.0})]
    for jobs, name in ((1, "one"), ("auto", "two")):
        fits, failures = run_benchmark(entries, Split(log), [0, 1], tmp_path / name, jobs=jobs, pairs=pairs)
        assert [fit.seed for fit in fits] == [0, 1]
        assert [failure.model for failure in failures] == ["bad", "bad"]
    means = [[pd.read_parquet(path)["mean"] for path in sorted((tmp_path / name).iterdir())] for name in ("one", "two")]
    np.testing.assert_array_equal(*means)


def test_no_cluster_at_the_address() -> None:
    with pytest.raises(ConfigError, match="no cluster could be joined"), ray_cluster("127.0.0.1:1"):
        pass
