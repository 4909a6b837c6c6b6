"""Batches of jobs: how they form, and what a failing or abandoned job changes."""

from __future__ import annotations

import asyncio
import threading

import pytest

from pipeline.serve.batches import Batches


def run(work, compute, most=4):
    async def main():
        batches = Batches(compute, most=most, wait_s=0.001)
        try:
            return await work(batches)
        finally:
            batches.close()

    return asyncio.run(main())


def test_jobs_that_wait_are_computed_together():
    sizes = []

    def compute(jobs):
        sizes.append(len(jobs))
        return [job * 2 for job in jobs]

    async def work(batches):
        return await asyncio.gather(*(batches.outcome(number) for number in range(10)))

    assert run(work, compute) == [2 * number for number in range(10)]
    assert sizes == [4, 4, 2]


def test_jobs_gather_while_the_thread_is_busy():
    sizes, release = [], threading.Event()

    def compute(jobs):
        sizes.append(len(jobs))
        release.wait(10)
        return jobs

    async def work(batches):
        first = asyncio.create_task(batches.outcome(0))
        await asyncio.sleep(0.05)
        others = [asyncio.create_task(batches.outcome(number)) for number in (1, 2, 3)]
        await asyncio.sleep(0)
        release.set()
        return await asyncio.gather(first, *others)

    assert run(work, compute) == [0, 1, 2, 3]
    assert sizes == [1, 3]


def test_an_error_reaches_the_jobs_of_its_batch_only():
    def compute(jobs):
        if 1 in jobs:
            raise ValueError("one is bad")
        return jobs

    async def work(batches):
        return await asyncio.gather(*(batches.outcome(number) for number in range(4)), return_exceptions=True)

    outcomes = run(work, compute, most=2)
    assert [type(outcome) for outcome in outcomes] == [ValueError, ValueError, int, int]


def test_an_abandoned_job_is_not_computed():
    computed = []

    def compute(jobs):
        computed.extend(jobs)
        return jobs

    async def work(batches):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await batches.outcome("abandoned")
        return await batches.outcome("next")

    assert run(work, compute) == "next"
    assert computed == ["next"]
