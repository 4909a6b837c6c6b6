"""What all benchmarks share: work timed in turns, one line per measurement, and the machine in words."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


@dataclass
class Times:
    """Seconds of repeated work: elapsed, and processor time of all threads of this process."""

    elapsed: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def add(self, work: Callable[[], object], wait: Callable[[], object]) -> None:
        elapsed, cpu = time.perf_counter(), time.process_time()
        work()
        wait()
        self.cpu.append(time.process_time() - cpu)
        self.elapsed.append(time.perf_counter() - elapsed)


def nothing() -> None:
    """Neither prepare for the work nor wait for its end."""


def take_turns(works, repeat, *, warm_up=1, prepare=nothing, wait=nothing):
    """Return the Times of each piece of work, by name.

    The works alternate, so that a busy moment slows all of them. `prepare` runs before each, unmeasured;
    `wait` after each, measured, such as torch.cuda.synchronize.
    """
    times = {name: Times() for name in works}
    for turn in range(repeat + warm_up):
        for name, work in works.items():
            prepare()
            (times[name] if turn >= warm_up else Times()).add(work, wait)
    return times


def each(items, work):
    """Return a function without arguments that does the work for every item."""

    def loop():
        for item in items:
            work(item)

    return loop


def show(title, times, *, items=1, rate="", goals=None):
    """Print one line per work; ratios are medians of each turn's ratio to the first work.

    A call handles `items` items: times are per item. With `rate`, such as "rows/s", speeds are printed
    instead, and the CPU time of a call.
    """
    print(f"\n{title}")
    floor = next(iter(times.values()))
    for name, found in times.items():
        elapsed, cpu = np.array(found.elapsed) / (1 if rate else items), np.median(found.cpu)
        figures = [
            f"{value:,.0f}" if rate else seconds(value)
            for value in quantiles(items / elapsed if rate else elapsed)
        ]
        figures[0] += f" {rate}" if rate else ""
        line = f"  {name:<48} {figures[0]} ({figures[1]} - {figures[2]}, n {len(elapsed)}), "
        line += f"CPU {seconds(cpu / (1 if rate else items))}"
        if found is not floor:
            ratios = ratio(found.elapsed, floor.elapsed), ratio(found.cpu, floor.cpu)
            line += f"; ratio {ratios[0]:.2f}, CPU {ratios[1]:.2f}"
            line += f" (goal {goals[name]})" if goals and name in goals else ""
        print(line, flush=True)


def quantiles(values):
    """Return the median, the least and the most."""
    return float(np.median(values)), float(np.min(values)), float(np.max(values))


def ratio(values, floor):
    """Return the median of the ratios of measurements taken one after the other."""
    return float(np.median(np.array(values) / np.array(floor)))


def seconds(value):
    """Return seconds in the unit that suits them."""
    scale, unit = next(
        (pair for pair in ((1, "s"), (1e3, "ms"), (1e6, "us")) if value * pair[0] >= 1), (1e9, "ns")
    )
    return f"{value * scale:.3g} {unit}"


def require_answer(right: bool, wrong: str) -> None:
    """Stop the benchmark if an answer is wrong; slow answers are only printed."""
    if not right:
        sys.exit(f"WRONG ANSWER: {wrong}")


@dataclass(frozen=True)
class Ran:
    """What a command took, child processes that it waited for included in `cpu_s`."""

    elapsed_s: float
    cpu_s: float
    peak_gb: float
    output: str
    code: int

    def __str__(self) -> str:
        return f"{self.elapsed_s:7.1f} s, CPU {self.cpu_s:6.1f} s, peak {self.peak_gb:5.2f} GB"


def run_command(words: Sequence[object], *, cores=None, codes=(0,)) -> Ran:
    """Run a command, on some cores alone if they are given; stop the benchmark at another exit code."""
    # Programs choose themselves how their threads wait.
    inherited = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    pin = (lambda: os.sched_setaffinity(0, cores)) if cores else None
    with tempfile.TemporaryFile("w+") as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            [str(word) for word in words],
            cwd=ROOT,
            env=inherited | {"PYTHONPATH": str(ROOT)},
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=pin,
        )
        # The peak in getrusage would include that of this process, from which the child was forked.
        peak_gb, status = 0.0, Path(f"/proc/{process.pid}/status")
        while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
            peak_gb = peak_memory_gb(status) or peak_gb
            time.sleep(0.01)
        elapsed_s = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(ended[1])
        output.seek(0)
        text = output.read()
    if process.returncode not in codes:
        sys.exit(f"{' '.join(map(str, words))} ended with {process.returncode}:\n{text}")
    return Ran(elapsed_s, ended[2].ru_utime + ended[2].ru_stime, peak_gb, text, process.returncode)


def pipeline(folder: Path, *words: str, **options) -> Ran:
    """Run one command of the program in a project."""
    program = "from pipeline.cli import main; main()"
    return run_command([sys.executable, "-c", program, "--project", folder, *words], **options)


def peak_memory_gb(status: Path = Path("/proc/self/status")) -> float:
    """Return the most memory that a process has held; 0 for one that has ended."""
    line = status.read_text().partition("VmHWM:")[2]
    return int(line.split()[0]) / 1e6 if line else 0.0


def machine(*packages: str) -> str:
    """Return processor, cores, load, and the versions of Python and some packages."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if "model name" in line), platform.processor())
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    versions = ", ".join(f"{name} {version(name)}" for name in ("numpy", *packages))
    return f"{cpu}, {cores} cores, load {load:.1f}; Python {platform.python_version()}, {versions}"
