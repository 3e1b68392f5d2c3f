"""Work on a Ray cluster: calls in processes of their own, and a stream through workers that keep their state."""

import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar

from mnar_recsys.errors import ConfigError
from mnar_recsys.extras import check_extra

LOCAL = "local"
"""In place of an address: a cluster of this machine's cores, which ends with the work."""

_IN_FLIGHT = 2  # inputs handed to a worker at a time: one to work on, one to wait

T = TypeVar("T")
R = TypeVar("R")


@contextmanager
def ray_cluster(address: str) -> Iterator[None]:
    """Be joined to a cluster while the block runs.

    Parameters
    ----------
    address : str
        As ``ray.init`` takes it, such as ``auto`` on a machine of the cluster, or ``local``.

    Raises
    ------
    ConfigError
        If Ray is not installed, or there is no cluster at the address.
    """
    check_extra("ray", "ray", "--ray")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "error")
    import ray

    quiet: dict[str, Any] = {"include_dashboard": False} if address == LOCAL else {}
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(
            f"--ray {address}: no cluster could be joined ({reason}); start one with 'ray start --head' and give its "
            f"address, or give {LOCAL}"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


class RayCalls:
    """Runs each call in a fresh process of the cluster, one core each: ``submit`` as executors have it."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[object, Any]] = {}

    def submit(self, function: Callable[..., R], /, *args: Any, **options: Any) -> "Future[R]":
        """Return the future result of ``function(*args, **options)``; what several calls are given travels once."""
        import ray

        remote = ray.remote(num_cpus=1, max_calls=1, max_retries=0)(function)
        future: Future[R] = remote.remote(*map(self._shared, args), **options).future()
        return future

    def _shared(self, value: object) -> Any:
        import ray

        if id(value) not in self._kept:
            self._kept[id(value)] = value, ray.put(value)  # kept alive, so that no other thing gets its id
        return self._kept[id(value)][1]


def stream(make: Callable[..., Callable[[T], R]], arguments: tuple[Any, ...], inputs: Iterable[T]) -> Iterator[R]:
    """Yield ``make(*arguments)(value)`` for each input, in order, from a worker for each core of the cluster.

    A worker calls ``make`` once. Inputs are read, and results held, only as far ahead as there are workers for. An
    error comes as the worker raised it, without the cluster's account of where.
    """
    import ray
    from ray.exceptions import RayTaskError

    def result(reference: Any) -> R:
        try:
            found: R = ray.get(reference)
        except RayTaskError as error:
            raise error.cause from None
        return found

    class Worker:
        def __init__(self, *arguments: Any) -> None:
            self._call = make(*arguments)

        def answer(self, value: Any) -> Any:
            return self._call(value)

    given = [ray.put(argument) for argument in arguments]
    place: Any = ray.remote(num_cpus=1)(Worker)
    n_cores = int(ray.cluster_resources()["CPU"])  # type: ignore[no-untyped-call]
    workers = [place.remote(*given) for _ in range(n_cores)]
    waiting: deque[Any] = deque()
    for number, value in enumerate(inputs):
        waiting.append(workers[number % len(workers)].answer.remote(value))
        if len(waiting) == _IN_FLIGHT * len(workers):
            yield result(waiting.popleft())
    while waiting:
        yield result(waiting.popleft())
