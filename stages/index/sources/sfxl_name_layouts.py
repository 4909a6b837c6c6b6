"""Parsing of all names of one layout at once.

SF-XL pads its numbers with zeros, so its names have few layouts: the same
length, and each "@" at the same offset. The names of one layout form a matrix
of bytes whose columns are digits. Measured on a million names, splitting them
with pyarrow made the index stage 1.6 to 1.8 times slower.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stages.index.batch import EntryBatch
from stages.index.skipped import SkipReason
from stages.index.sources.sfxl_name_reference import SEPARATORS, Fields, read_fields
from stages.index.utm_zone import southern_bands

AT, SLASH = ord("@"), ord("/")
BLOCK_BYTES = 1 << 20  # a block's bytes stay in the processor's cache
MAX_DIGITS = 15  # a float64 holds these exactly

Bytes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Layout:
    """Offsets of the fields in all names with this length and these separators.

    A byte b fits its place if ``(b - lowest) mod 256 <= span``.

    Attributes
    ----------
    at
        Offsets of the separators.
    fields
        What the sample name states.
    letter
        The code of the zone's letter as it is written, in upper case; 0 without one.
    lowest, span
        (bytes,) of the whole key: "0" and 9 for a digit; the byte itself and 0 for separators,
        slashes, decimal points, zone and band, which all names of a layout share; "A" and 254
        elsewhere, which excludes only the byte before "A": "@".
    slashes
        Number of "/" in the key, all of them before the name.
    metres, degrees
        Powers of ten of the digits: (bytes, 2) for east and north, from the first to the third
        separator, and (bytes, 1) for the heading. They are whole, so that sums are exact.
    scales
        (3,) divisors of east, north and heading that restore their decimal points.
    """

    at: tuple[int, ...]
    fields: Fields
    letter: int
    lowest: Bytes
    span: Bytes
    slashes: int
    metres: npt.NDArray[np.float64]
    degrees: npt.NDArray[np.float64]
    scales: npt.NDArray[np.float64]

    @classmethod
    def of(cls, name: bytes, end: bytes = b"") -> Layout | None:
        """Return the layout of a sample name and its line end, or None if the name is not complete."""
        at = tuple(i for i, byte in enumerate(name) if byte == AT)
        fields = read_fields(name.decode())
        if len(at) != SEPARATORS or b"/" in name[at[0] :] or isinstance(fields, SkipReason):
            return None
        lowest = np.full(len(name + end), AT + 1, np.uint8)
        span = np.full(len(name + end), 254, np.uint8)
        fixed = [i for i, byte in enumerate(name) if byte in (AT, SLASH)]
        fixed += [*range(at[2] + 1, at[4]), *range(len(name), len(name + end))]
        powers, scales = np.zeros((len(name), 3)), np.ones(3)
        for number, field in enumerate((0, 1, 8)):
            digits = list(range(at[field] + 1, at[field + 1]))
            for point in [i for i in digits if name[i] == ord(".")]:
                scales[number] = 10.0 ** (digits[-1] - point)
                digits.remove(point)
                fixed.append(point)
            if len(digits) > MAX_DIGITS:
                return None
            lowest[digits], span[digits] = ord("0"), 9
            powers[digits, number] = 10.0 ** np.arange(len(digits))[::-1]
        lowest[fixed], span[fixed] = np.frombuffer(name + end, np.uint8)[fixed], 0
        metres, degrees = powers[at[0] + 1 : at[2], :2], powers[at[8] + 1 : at[9], 2:]
        letter = ord(name[at[3] + 1 : at[4]].upper() or b"\0")
        return cls(at, fields, letter, lowest, span, name.count(b"/"), metres, degrees, scales)

    @property
    def block_rows(self) -> int:
        """Largest number of names that `check` takes."""
        return max(1, BLOCK_BYTES // len(self.lowest))

    def check(self, block: Bytes) -> tuple[Bytes, Mask | None]:
        """Return the (n, bytes) differences of names to the lowest bytes, and which names fit (None: all).

        Extra slashes are not checked here.
        """
        lowest, span = self._tiles
        above: Bytes = np.subtract(block.reshape(-1), lowest[: block.size])
        wrong: Mask = np.greater(above, span[: block.size])
        above = above.reshape(block.shape)
        if not wrong.any():
            return above, None
        fits: Mask = np.logical_not(wrong.reshape(block.shape).any(axis=1))
        return above, fits

    @cached_property
    def _tiles(self) -> tuple[Bytes, Bytes]:
        """The lowest bytes and spans repeated for a block: numpy is faster on one long row than on many."""
        return np.tile(self.lowest, self.block_rows), np.tile(self.span, self.block_rows)

    def store(self, above: Bytes, rows: slice | Rows, batch: EntryBatch) -> None:
        """Store what fitting names state, except timestamps, in rows of a batch.

        The numbers equal float() of their text bit by bit: the digits form whole numbers that a
        float holds exactly, and the division rounds once.
        """
        metres = above[:, self.at[0] + 1 : self.at[2]].astype(np.float64) @ self.metres
        for axis in (0, 1):
            batch.positions[rows, axis] = metres[:, axis] / self.scales[axis]
        if len(self.degrees):
            degrees = above[:, self.at[8] + 1 : self.at[9]].astype(np.float64)
            batch.heading[rows] = (degrees @ self.degrees)[:, 0] / self.scales[2]
        batch.zone_numbers[rows] = self.fields.zone_number
        batch.bands[rows] = self.letter
        if self.letter == ord("S") and self.at[5] - self.at[4] > 1:
            south = above[:, self.at[4] + 1] == np.uint8((ord("-") - int(self.lowest[self.at[4] + 1])) % 256)
            if south.any():
                bands = np.full(len(above), self.letter)
                bands[south] = southern_bands(metres[south, 1] / self.scales[1])
                batch.bands[rows] = bands

    def timestamps(self, block: Bytes) -> Bytes:
        """Return the (n, bytes) timestamps of (n, bytes) names."""
        return block[:, self.at[12] + 1 : self.at[13]]

    def read(
        self,
        text: Bytes,
        starts: Rows,
        lengths: Rows,
        rows: Rows,
        batch: EntryBatch,
        times: TimestampColumn,
    ) -> Mask:
        """Store those of the rows that have this layout, and return which they are."""
        matched: Mask = lengths[rows] == len(self.lowest)
        candidates = rows[matched]
        fits = np.ones(len(candidates), np.bool_)
        for first in range(0, len(candidates), self.block_rows):
            block_rows = candidates[first : first + self.block_rows]
            block = _matrix(text, starts[block_rows], len(self.lowest))
            above, good = self.check(block)
            if np.count_nonzero(block == SLASH) != self.slashes * len(block) or good is not None:
                few = (block == SLASH).sum(axis=1) == self.slashes
                good = few if good is None else good & few
                block_rows, above, block = block_rows[good], above[good], block[good]
                fits[first : first + self.block_rows] = good
            self.store(above, _compact(block_rows), batch)
            times.add(block_rows, self.timestamps(block))
        matched[matched] = fits
        return matched


class TimestampColumn:
    """The timestamps of a batch, added in any order."""

    def __init__(self, rows: int) -> None:
        self._lengths = np.zeros(rows, np.int32)
        self._parts: list[tuple[Rows, Bytes]] = []

    def add(self, rows: Rows, text: Bytes) -> None:
        """Add the (n, bytes) timestamps of n rows."""
        if text.size:
            self._lengths[rows] = text.shape[1]
            self._parts.append((rows, np.ascontiguousarray(text)))

    def array(self) -> pa.StringArray:
        """Return all timestamps in the order of the rows."""
        offsets = np.zeros(len(self._lengths) + 1, np.int32)
        np.cumsum(self._lengths, out=offsets[1:])
        text = np.zeros(offsets[-1], np.uint8)
        for rows, part in self._parts:
            width = part.shape[1]
            _windows(text, width)[offsets[rows]] = part.view(f"V{width}")[:, 0]
        return pa.StringArray.from_buffers(len(self._lengths), pa.py_buffer(offsets), pa.py_buffer(text))


def _compact(rows: Rows) -> Rows | slice:
    """Return ascending rows as a slice if they are contiguous: numpy copies a slice faster."""
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1:
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return rows


def _windows(text: Bytes, width: int) -> npt.NDArray[np.void]:
    """Return a view whose item i is the `width` bytes that start at byte i."""
    return np.ndarray((len(text) - width + 1,), f"V{width}", buffer=text, strides=(1,))


def _matrix(text: Bytes, starts: Rows, width: int) -> Bytes:
    """Return the `width` bytes after each start, (n, width)."""
    return _windows(text, width)[starts].view(np.uint8).reshape(-1, width)
