"""Photos of a walk in Python and on the command line: their times, and the track they make."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.locate.photos import Capture
from stages.files import printable
from stages.index.clock import clock_seconds

if TYPE_CHECKING:
    from pipeline.locate.answer import Answer

UNTIMED_STEP_S = 5.0
"""Time from photo to photo where no photo of a walk tells its time."""
_GPX = "http://www.topografix.com/GPX/1/1"


@dataclass(frozen=True)
class Moment:
    """When a photo was taken: seconds on its camera's clock (NaN if unknown), session, and ISO 8601 text."""

    seconds: float
    session: str
    timestamp: str


@dataclass(frozen=True)
class WalkSpan:
    """The photos that an answer is based on: how many, and how long before and after the photo."""

    session: str
    timestamp: str
    photos: int
    before_s: float
    after_s: float


def moments_of(photos: Sequence[Capture], *, fps: float | None = None) -> list[Moment]:
    """Return when each photo was taken.

    A session is a folder and a camera. Times come from EXIF; where no photo of a session has one, the order
    of the photos counts, `UNTIMED_STEP_S` apart. With `fps` they are frames of a video, in their order.
    """
    if fps:
        photos = [Capture(photo.path) for photo in photos]
    texts = [photo.timestamp for photo in photos]
    sessions = [f"{photo.path.parent} {photo.camera}".strip() for photo in photos]
    seconds = clock_seconds(pa.array(texts, pa.string())).tolist()
    step_s = 1 / fps if fps else UNTIMED_STEP_S
    for session in dict.fromkeys(sessions):
        rows = [row for row, name in enumerate(sessions) if name == session]
        if not any(math.isfinite(seconds[row]) for row in rows):
            for number, row in enumerate(rows):
                seconds[row] = number * step_s
    return [
        Moment(second, session, text) for second, session, text in zip(seconds, sessions, texts, strict=True)
    ]


def spans_of(
    moments: Sequence[Moment], walks: Iterable[npt.NDArray[np.int64]], look_at: str
) -> list[WalkSpan]:
    """Return the photos that each answer is based on."""
    spans: dict[int, WalkSpan] = {}
    for walk in walks:
        times = [moments[row].seconds for row in walk]
        for number, row in enumerate(walk):
            last = len(walk) - 1 if look_at == "whole" else number
            before_s, after_s = (
                (times[number] - times[0], times[last] - times[number]) if len(walk) > 1 else (0.0, 0.0)
            )
            spans[int(row)] = WalkSpan(
                moments[row].session, moments[row].timestamp, last + 1, before_s, after_s
            )
    return [spans[row] for row in range(len(moments))]


def gpx_text(answers: Iterable[Answer]) -> str:
    """Return the first places as GPX 1.1: a track for each walk, its photos in order of time."""
    ElementTree.register_namespace("", _GPX)
    root = ElementTree.Element(f"{{{_GPX}}}gpx", {"version": "1.1", "creator": "placecache"})
    for session, group in by_walk(answer for answer in answers if answer.latitude is not None):
        track = ElementTree.SubElement(root, f"{{{_GPX}}}trk")
        ElementTree.SubElement(track, f"{{{_GPX}}}name").text = printable(session)
        segment = ElementTree.SubElement(track, f"{{{_GPX}}}trkseg")
        for answer in group:
            place = {"lat": f"{answer.latitude:.7f}", "lon": f"{answer.longitude:.7f}"}
            point = ElementTree.SubElement(segment, f"{{{_GPX}}}trkpt", place)
            if answer.walk is not None and answer.walk.timestamp:
                ElementTree.SubElement(point, f"{{{_GPX}}}time").text = answer.walk.timestamp
            ElementTree.SubElement(point, f"{{{_GPX}}}name").text = printable(answer.photo.name)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def by_walk(answers: Iterable[Answer]) -> Iterator[tuple[str, list[Answer]]]:
    """Yield the session and the answers of each walk, in order of time; "" for photos located alone."""
    for session, group in itertools.groupby(
        sorted(answers, key=_order), key=lambda answer: _order(answer)[0]
    ):
        yield session, list(group)


def _order(answer: Answer) -> tuple[str, float]:
    span = answer.walk
    return ("", 0.0) if span is None else (span.session, span.before_s)
