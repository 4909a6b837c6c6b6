"""Map one function over shards: in this process, or on a Dask cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from stages.errors import ConfigError

if TYPE_CHECKING:
    from distributed import Client

Work = TypeVar("Work")
Result = TypeVar("Result")
RETRIES = 3


@contextmanager
def connect(scheduler: str) -> Iterator[Client]:
    """Yield a Dask client for `local:WORKERS` or for a running scheduler's `tcp://host:port`.

    Local workers are spawned processes with one task each at a time: forked
    ones would inherit threads that zarr and torch have already started.

    Raises
    ------
    ConfigError
        When `scheduler` is neither, or nobody answers there.
    """
    import dask
    from distributed import Client, LocalCluster

    if scheduler.startswith("tcp://"):
        try:
            client = Client(scheduler, timeout="10s")
        except OSError as fault:
            raise ConfigError(
                f"no Dask scheduler answers at {scheduler}: start one with `dask scheduler`"
            ) from fault
        with client:
            yield client
        return
    kind, _, workers = scheduler.partition(":")
    if kind != "local" or not workers.isdigit() or int(workers) < 1:
        raise ConfigError(f"--scheduler {scheduler!r}: expected local:WORKERS (local:4) or tcp://host:port")
    with (
        dask.config.set({"distributed.worker.multiprocessing-method": "spawn"}),
        LocalCluster(n_workers=int(workers), threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        yield client


def map_shards(
    function: Callable[[Work], Result],
    shards: Sequence[Work],
    client: Client,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> list[Result]:
    """Return the function's results, in the order the workers finish; a lost worker's shard is retried."""
    from distributed import as_completed

    futures = client.map(function, shards, pure=False, retries=RETRIES)
    results: list[Result] = []
    for done, future in enumerate(as_completed(futures), start=1):
        results.append(future.result())
        if progress is not None:
            progress(done, len(shards))
    return results
