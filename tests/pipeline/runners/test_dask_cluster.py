"""Shards on a Dask cluster: lost workers, wrong addresses, same bytes as a serial run."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import replace

import pytest

from cache.reader import FeatureReader
from cache.store import open_store
from pipeline.runners.dask_cluster import connect, local_workers, map_shards
from pipeline.runners.extract import extract_on_worker
from stages.errors import ConfigError
from tests.support.tiny_photos import CONFIG, content, draw, listed, run

ROWS = 500


def kill_a_worker_after_the_first_chunk(client, store, killed):
    """Kill a worker process as soon as one chunk is finished."""
    workers = list(client.run(os.getpid).values())

    def kill():
        while not list(store.glob("ledger/0*.json")):
            time.sleep(0.01)
        os.kill(workers[0], signal.SIGKILL)
        killed.append(len(open_store(store).ledger.missing()))

    threading.Thread(target=kill).start()


def test_a_lost_worker_changes_no_byte_of_the_store(tmp_path):
    keys = [f"{number:04d}.jpg" for number in range(ROWS)]
    for number, key in enumerate(keys):
        draw(tmp_path / "photos" / key, number)
    (tmp_path / "photos" / "0013.jpg").write_text("a letter")
    manifest = listed(tmp_path / "database.parquet", tmp_path / "photos", keys)
    config = replace(CONFIG, shards=4)
    store, killed = tmp_path / "a" / "database.zarr", []

    def on_cluster(_, orders):
        with connect("local:2") as client:
            kill_a_worker_after_the_first_chunk(client, store, killed)
            yield from (result for _, result in map_shards(extract_on_worker, orders, client))

    result = run(manifest, store, config, mapper=on_cluster)
    assert killed[0] > 1, "the worker was killed too late"
    assert (result.computed, [bad.row for bad in result.bad], result.missing_rows) == (ROWS - 1, [13], 0)
    FeatureReader.open(store).require_complete()
    run(manifest, tmp_path / "b" / "database.zarr", config)
    assert content(store) == content(tmp_path / "b" / "database.zarr")


def test_addresses_are_checked_before_any_work():
    assert local_workers("local:4") == 4
    assert local_workers("tcp://node7:8786") is None
    for wrong in ("local", "local:0", "local:x", "tcp:node", "http://node:1", "tcp://node", "4"):
        with pytest.raises(ConfigError, match="expected local:WORKERS"):
            local_workers(wrong)


def test_a_scheduler_that_does_not_answer_is_named(monkeypatch):
    monkeypatch.setattr("pipeline.runners.dask_cluster._CONNECT", "300ms")
    with (
        pytest.raises(ConfigError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"),
        connect("tcp://127.0.0.1:9"),
    ):
        pass
