"""Processes for fits, one each, that an interrupt ends at once."""

import multiprocessing
import os
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

from mnar_recsys.ray_tasks import RayCalls, ray_cluster

_SECONDS_TO_STOP = 10.0
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@contextmanager
def worker_pool(jobs: int | str, modules: Iterable[str] = ()) -> Iterator[ProcessPoolExecutor | RayCalls]:
    """Give a pool of processes, a fresh one for each task: peak memory is the most a process ever held.

    ``jobs`` processes of this machine, or those of the Ray cluster at that address.

    With several at a time each uses one thread; libraries read that from the environment when they are imported. Where
    the system can fork, processes are forked from one that has imported ``modules`` and done nothing else.
    """
    if isinstance(jobs, str):
        with ray_cluster(jobs):
            yield RayCalls()
        return
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    if jobs > 1:
        os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
    context: Any = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
    if sys.platform == "linux":
        context.set_forkserver_preload(list(modules))
    try:
        with ProcessPoolExecutor(max_workers=jobs, mp_context=context, max_tasks_per_child=1) as pool:
            try:
                yield pool
            except BaseException:
                _stop_now(pool)
                raise
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _stop_now(pool: ProcessPoolExecutor) -> None:
    """End a pool without waiting for what was handed to it: an interrupt ends the run now.

    The pool's own thread may start a worker for what is already in its queue, so they are ended until it is through.
    """
    inside: Any = pool
    workers, thread, queue = inside._processes or {}, inside._executor_manager_thread, inside._call_queue
    start = time.monotonic()
    while thread is not None and thread.is_alive() and time.monotonic() < start + _SECONDS_TO_STOP:
        for worker in list(workers.values()):
            worker.kill()
        thread.join(0.05)
        if time.monotonic() > start + 1.0:
            # What was being handed over is read by nobody; before Python 3.12 the pool would wait for it.
            with suppress(OSError):
                queue._reader.close()
    pool.shutdown(wait=False, cancel_futures=True)
