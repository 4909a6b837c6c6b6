"""Map a function over shards on a Dask cluster: local worker processes, or a running scheduler."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

from cache.errors import PlacecacheError
from stages.errors import ConfigError

if TYPE_CHECKING:
    from distributed import Client, Future

Work = TypeVar("Work")
Result = TypeVar("Result")
LOST_WORKERS = 10  # after so many lost workers, the shard is the cause, not the machines
_CONNECT = "10s"
_WAIT_FOR_WORKERS_S = 60


class ClusterError(PlacecacheError):
    """The cluster is lost, or a shard kills its workers."""


def local_workers(scheduler: str) -> int | None:
    """Return W of `local:W`, None for the address of a running scheduler.

    Raises
    ------
    ConfigError
        If `scheduler` is neither.
    """
    kind, _, rest = scheduler.partition(":")
    if kind in ("tcp", "tls") and rest.startswith("//") and rest.rpartition(":")[2].isdigit():
        return None
    if kind != "local" or not rest.isdigit() or int(rest) < 1:
        raise ConfigError(
            f"--scheduler is {scheduler!r}: expected local:WORKERS (local:4) or tcp://host:port"
        )
    return int(rest)


def cores() -> int:
    """Return how many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def connect(scheduler: str) -> Iterator[Client]:
    """Yield a Dask client for `local:WORKERS` or for a running scheduler's `tcp://host:port`.

    Local workers run one task at a time. They are spawned, because forked processes would inherit threads
    of zarr and torch. They have no memory limit, because Dask would restart workers that decode large
    photos.

    Raises
    ------
    ConfigError
        If `scheduler` is neither, or no scheduler answers.
    """
    import dask
    from distributed import Client, LocalCluster

    workers = local_workers(scheduler)
    if workers is None:
        try:
            client = Client(scheduler, timeout=_CONNECT)
        except OSError as fault:
            raise ConfigError(
                f"no Dask scheduler answers at {scheduler}: start one with `dask scheduler`"
            ) from fault
        with client:
            yield client
        return
    settings = {
        "distributed.worker.multiprocessing-method": "spawn",
        "distributed.worker.daemon": False,  # workers with a GPU start processes that read images
        "distributed.scheduler.allowed-failures": LOST_WORKERS,
    }
    with (
        dask.config.set(settings),
        LocalCluster(
            n_workers=workers, threads_per_worker=1, memory_limit=0, dashboard_address=None
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def map_shards(
    function: Callable[[Work], Result], shards: Sequence[Work], client: Client
) -> Iterator[tuple[Work, Result]]:
    """Yield each shard with the function's result, in the order the workers finish.

    The shard of a lost worker goes to another one; an error in the function ends the map. Shards are
    submitted when workers become free, so that the scheduler never holds millions of rows.

    Raises
    ------
    ClusterError
        If there are no workers, the scheduler is lost, or a shard kills its workers.
    """
    from distributed import as_completed

    _require_workers(client)
    waiting = iter(shards)
    running: dict[Future[Result], Work] = {}

    def submit() -> list[Future[Result]]:
        for shard in waiting:
            future = client.submit(function, shard, pure=False)
            running[future] = shard
            return [future]
        return []

    ahead = 2 * sum(client.nthreads().values())
    completed = as_completed([future for _ in range(ahead) for future in submit()])
    try:
        for future in completed:
            with _explained(client):
                result: Result = future.result()
            yield running.pop(future), result
            for next_future in submit():
                completed.add(next_future)
    finally:
        with suppress(OSError, RuntimeError):  # a client whose scheduler is gone cannot cancel
            client.cancel(list(running))


def _require_workers(client: Client) -> None:
    try:
        client.wait_for_workers(1, timeout=_WAIT_FOR_WORKERS_S)
    except TimeoutError as fault:
        address = client.scheduler_info()["address"]
        raise ClusterError(
            f"no worker has joined {address} for {_WAIT_FOR_WORKERS_S} s: start some with "
            f"`dask worker {address} --nthreads 1`"
        ) from fault


@contextmanager
def _explained(client: Client) -> Iterator[None]:
    """Turn Dask's errors into errors that say what to do."""
    from distributed import KilledWorker

    try:
        yield
    except CancelledError as fault:
        raise ClusterError(
            f"the Dask scheduler is lost ({client.status}): start it again and run the same command to "
            "continue; finished chunks are kept"
        ) from fault
    except KilledWorker as fault:
        raise ClusterError(
            f"a shard lost all its workers (out of memory?): {str(fault).split('.')[0]}; lower "
            "extract.batch_size or the number of workers, and run the same command to continue"
        ) from fault
