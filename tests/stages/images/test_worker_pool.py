"""Worker processes: they end when their parent is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

PARENT = """
import os, sys, time
from stages.images.worker_pool import worker_pool

if __name__ == "__main__":
    with worker_pool(2) as pool:
        workers = {pool.submit(os.getpid).result() for _ in range(8)}
        print(*workers, flush=True)
        time.sleep(60)
"""


def alive(process: int) -> bool:
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_workers_end_with_a_killed_parent(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    root = Path(__file__).parents[3]
    with subprocess.Popen(
        [sys.executable, str(script)], env={"PYTHONPATH": str(root)}, stdout=subprocess.PIPE
    ) as parent:
        workers = [int(word) for word in parent.stdout.readline().split()]
        assert workers
        assert all(map(alive, workers))
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, workers))
