"""Commands on a disk that fails: the k-th operation on files under a folder returns an error.

A server loads failing_disk.c before the C library and imports the program once. Each run is a fork of it,
so that it takes as long as the work itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import importlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

READS, WRITES, NAMES, CREATES = 1, 2, 4, 8
# Error number -> kinds of operations that meet it, and whether all later ones meet it too.
FAULTS = {
    errno.EIO: (READS | WRITES | NAMES | CREATES, False),
    errno.ENOSPC: (WRITES | CREATES, True),
    errno.EACCES: (READS | NAMES | CREATES, False),
}
_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Outcome:
    """How a command ended: exit code, what it printed, operations of each kind, the one that failed."""

    code: int
    out: str
    err: str
    counts: dict[str, int]
    failed: str

    def operations(self, error: int) -> int:
        """Operations that an error number can hit."""
        return sum(count for kind, count in self.counts.items() if int(kind) & FAULTS[error][0])


def compile_disk(folder: Path) -> Path:
    """Compile failing_disk.c in a folder and return the library."""
    library = folder / "failing_disk.so"
    source = Path(__file__).with_suffix(".c")
    subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


class FailingDisk:
    """Runs commands of the program on files under `folder`."""

    def __init__(self, library: Path, folder: Path) -> None:
        self.folder = folder
        # hash seed and one thread: two undisturbed runs must write the same bytes
        settings = {"LD_PRELOAD": str(library), "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}
        self.server = subprocess.Popen(
            [sys.executable, "-m", "tests.support.failing_disk", str(library)],
            env=os.environ | settings,
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, error: int = errno.EIO, at: int = 0) -> Outcome:
        """Run a command; its operation number `at` fails (0: none)."""
        kinds, lasting = FAULTS[error]
        order = [list(arguments), str(self.folder), at, error, kinds, lasting]
        self.server.stdin.write(json.dumps(order) + "\n")
        self.server.stdin.flush()
        return Outcome(**json.loads(self.server.stdout.readline()))

    def close(self) -> None:
        self.server.stdin.close()
        self.server.wait(10)
        self.server.stdout.close()


def _serve(library: ctypes.CDLL) -> None:
    for line in sys.stdin:
        with tempfile.TemporaryDirectory() as folder:
            process = os.fork()
            if not process:
                _run(library, Path(folder), *json.loads(line))
            status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
            report = {"code": status, "counts": {}, "failed": "unknown", "modules": []}
            if status == 0:
                report = json.loads((Path(folder) / "report").read_bytes())
            texts = {name: (Path(folder) / name).read_text() for name in ("out", "err")}
        for name in report.pop("modules"):  # the next fork need not import them
            with contextlib.suppress(Exception):
                importlib.import_module(name)
        sys.stdout.write(json.dumps(report | texts) + "\n")
        sys.stdout.flush()


def _run(library: ctypes.CDLL, folder: Path, arguments: list[str], *fault: Any) -> None:
    """Run a command in this fork and end it."""
    from pipeline.cli import main

    before = set(sys.modules)
    for name, descriptor in (("out", 1), ("err", 2)):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT), descriptor)
    clock = itertools.count(step=0.001)
    time.perf_counter = lambda: next(clock)  # speeds are part of what is written
    code = 1
    under, *rest = fault
    library.disk_arm(f"{under}/".encode(), *rest)
    try:
        main(arguments)
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    except Exception:  # noqa: BLE001 - a bug is reported as any other outcome
        library.disk_disarm()
        traceback.print_exc()
    library.disk_disarm()
    sys.stdout.flush()
    sys.stderr.flush()
    modules = sorted(name for name in set(sys.modules) - before if name.partition(".")[0] != "__main__")
    report = {
        "code": code,
        "counts": {kind: library.disk_count(kind) for kind in (READS, WRITES, NAMES, CREATES)},
        "failed": library.disk_failed().decode(),
        "modules": modules,
    }
    (folder / "report").write_text(json.dumps(report))
    os._exit(0)


def _load(path: str) -> ctypes.CDLL:
    library = ctypes.CDLL(path)
    library.disk_arm.argtypes = [ctypes.c_char_p, ctypes.c_long, ctypes.c_int, ctypes.c_int, ctypes.c_int]
    library.disk_count.restype = ctypes.c_long
    library.disk_failed.restype = ctypes.c_char_p
    return library


if __name__ == "__main__":
    _serve(_load(sys.argv[1]))
