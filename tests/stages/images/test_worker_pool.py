"""Worker processes: they end when their parent is killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pipeline.project.init import set_params, template
from tests.support.tiny_photos import draw

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


def ends_with_its_children(command: psutil.Popen) -> bool:
    """Kill a command once it has two workers that compute; return whether all of its processes end."""
    deadline = time.monotonic() + 60
    busy = 0
    while busy < 2 and command.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
        family = command.children(recursive=True)
        busy = sum("spawn_main" in " ".join(child.cmdline()) for child in family)
    assert busy >= 2, command.stderr.read()
    command.kill()
    command.wait()
    return not psutil.wait_procs(family, timeout=30)[1]


@pytest.fixture
def project(tmp_path):
    shutil.copyfile(template("params.yaml"), tmp_path / "params.yaml")
    set_params(tmp_path / "params.yaml", {"toycity.images": 5000, "pack.images_per_shard": 100})
    return tmp_path


def start(project: Path, *arguments: str) -> psutil.Popen:
    script = "from pipeline.cli import main; main()"
    command = [sys.executable, "-c", script, "--project", str(project), *arguments]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    return psutil.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def test_a_killed_pack_leaves_no_process_behind(project):
    photos = project / "photos"
    name = "@{:.2f}@4180000.00@10@S@037.76540@-122.41870@p@@0@@@@201806@@.jpg"
    draw(photos / name.format(550000), 0)
    for number in range(1, 3000):
        os.link(photos / name.format(550000), photos / name.format(550000 + number))
    with start(project, "pack", str(photos), str(project / "pack"), "--workers", "2") as command:
        assert ends_with_its_children(command)


def test_a_killed_toy_city_leaves_no_process_behind(project):
    with start(project, "index") as command:
        assert ends_with_its_children(command)


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
