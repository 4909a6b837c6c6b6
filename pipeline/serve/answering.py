"""From uploads to answers: photos are decoded in several threads and located in batches in one."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pipeline.locate.answer import Answer
from pipeline.locate.features import PhotoCrops
from pipeline.locate.localiser import PhotoLocaliser
from pipeline.locate.near import Near
from pipeline.serve.batches import Batches
from pipeline.serve.limits import Limits, require_decodable
from pipeline.serve.metrics import Metrics
from pipeline.serve.uploads import Upload
from stages.images.read import UnreadableImage

MOST_IN_BATCH = 32
_WAIT_S = 0.002
_DECODERS = 4
"""Most photos that are decoded at a time, each of which may take a few bytes per pixel."""


@dataclass(frozen=True)
class _Job:
    photo: PhotoCrops
    top: int
    near: Near | None


class Answering:
    """Locates the photos of requests."""

    def __init__(self, localiser: PhotoLocaliser, limits: Limits, metrics: Metrics) -> None:
        self.localiser = localiser
        self._limits = limits
        self._metrics = metrics
        self._batches = Batches(self._answers, most=MOST_IN_BATCH, wait_s=_WAIT_S)
        self.threads = ThreadPoolExecutor(min(_DECODERS, os.cpu_count() or 1), "decode")

    async def outcomes(
        self, uploads: Sequence[Upload], *, top: int, near: Near | None
    ) -> list[Answer | UnreadableImage]:
        """Return the answer to each photo, or the error of an unreadable one."""
        outcomes = await asyncio.gather(*(self._outcome(upload, top, near) for upload in uploads))
        for outcome in outcomes:
            self._metrics.photos.labels(_kind(outcome)).inc()
        return list(outcomes)

    def close(self) -> None:
        """End the threads after the photos that they have begun."""
        self.threads.shutdown(wait=True, cancel_futures=True)
        self._batches.close()

    async def _outcome(self, upload: Upload, top: int, near: Near | None) -> Answer | UnreadableImage:
        loop = asyncio.get_running_loop()
        photo = await loop.run_in_executor(self.threads, self._read, upload)
        if isinstance(photo, UnreadableImage):
            return photo
        return await self._batches.outcome(_Job(photo, top, near))

    def _read(self, upload: Upload) -> PhotoCrops | UnreadableImage:
        if upload.too_large:
            return UnreadableImage(upload.path, f"larger than {self._limits.photo_bytes / 1e6:g} MB")
        content = upload.content
        try:
            require_decodable(content, upload.path, self._limits.pixels)
            return self.localiser.features.read(content, name=upload.name)
        except UnreadableImage as error:
            return error

    def _answers(self, jobs: Sequence[_Job]) -> list[Answer]:
        self._metrics.batches.observe(len(jobs))
        features = self.localiser.features.of([job.photo for job in jobs])
        return [
            self.localiser.answer(job.photo.capture, own, top=job.top, near=job.near)
            for job, own in zip(jobs, features, strict=True)
        ]


def _kind(outcome: Answer | UnreadableImage) -> str:
    if isinstance(outcome, UnreadableImage):
        return "unreadable"
    return "withheld" if outcome.abstained else "located"
