"""Work of concurrent requests, done in batches by one thread."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Job = TypeVar("Job")
Outcome = TypeVar("Outcome")


class Batches(Generic[Job, Outcome]):
    """Collects jobs on the event loop and computes them together in a thread of its own.

    A job waits at most `wait_s` while the thread is idle. While it is busy, jobs gather for the next batch,
    so batches grow with the load.
    """

    def __init__(
        self, compute: Callable[[Sequence[Job]], Sequence[Outcome]], *, most: int, wait_s: float
    ) -> None:
        self._compute = compute
        self._most = most
        self._wait_s = wait_s
        self._waiting: deque[tuple[Job, asyncio.Future[Outcome]]] = deque()
        self._thread = ThreadPoolExecutor(1, "batches")
        self._busy = False

    async def outcome(self, job: Job) -> Outcome:
        """Return the outcome of a job, or raise the error of its batch."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Outcome] = loop.create_future()
        self._waiting.append((job, future))
        if not self._busy:
            self._busy = True
            loop.call_later(self._wait_s, self._start)
        return await future

    def close(self) -> None:
        """End the thread after its batch."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _start(self) -> None:
        batch: list[tuple[Job, asyncio.Future[Outcome]]] = []
        while self._waiting and len(batch) < self._most:
            job, future = self._waiting.popleft()
            if not future.done():  # its request may have run out of time
                batch.append((job, future))
        self._busy = bool(batch)
        if batch:
            jobs = [job for job, _ in batch]
            running = asyncio.get_running_loop().run_in_executor(self._thread, self._compute, jobs)
            running.add_done_callback(lambda done: self._finish(batch, done))

    def _finish(
        self,
        batch: list[tuple[Job, asyncio.Future[Outcome]]],
        done: asyncio.Future[Sequence[Outcome]],
    ) -> None:
        error = asyncio.CancelledError() if done.cancelled() else done.exception()
        for number, (_, future) in enumerate(batch):
            if future.done():
                continue
            if error is None:
                future.set_result(done.result()[number])
            else:
                future.set_exception(error)
        self._start()
