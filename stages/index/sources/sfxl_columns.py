"""Names of one layout -> positions, thousands at a time.

SF-XL's numbers are zero-padded, so its names come in few layouts: the same
length, and an "@" at the same places. The names of one layout make a matrix
of bytes whose columns are read as digits.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stages.index.batch import EntryBatch, SkipReason
from stages.index.sources.sfxl_name import SEPARATORS, Fields, parse_name

AT, SLASH = ord("@"), ord("/")
BLOCK_BYTES = 1 << 20  # a block's bytes stay in the processor's cache
MOST_DIGITS = 15  # so many digits a float holds exactly

Bytes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Layout:
    """Where the fields of a name lie, for all names of this length and these separators.

    A byte b of a name is as it must be if ``(b - lowest) mod 256 <= span`` at its place.

    Attributes
    ----------
    at
        Offsets of the separators.
    fields
        What the sample name says.
    lowest, span
        (bytes,) of the whole key: "0" and 9 where a digit stands; the byte itself and 0 at the
        separators, slashes, decimal points, zone and band, which are the same in all names of this
        layout; "A" and 254 elsewhere, which forbids only the byte before "A", which is "@".
    slashes
        How many "/" the key holds, all of them before the name.
    metres, degrees
        The worth of the digits from the first to the third separator for east and north, (bytes, 2),
        and between those of the heading, (bytes, 1). Whole numbers, so that sums are exact.
    scales
        (3,) powers of ten that put the decimal points of east, north and heading where they belong.
    """

    at: tuple[int, ...]
    fields: Fields
    lowest: Bytes
    span: Bytes
    slashes: int
    metres: npt.NDArray[np.float64]
    degrees: npt.NDArray[np.float64]
    scales: npt.NDArray[np.float64]

    @classmethod
    def of(cls, name: bytes, end: bytes = b"") -> Layout | None:
        """Return the layout of a sample name and what ends it, or None if it is not a regular one."""
        at = tuple(i for i, byte in enumerate(name) if byte == AT)
        fields = parse_name(name.decode())
        if len(at) != SEPARATORS or b"/" in name[at[0] :] or isinstance(fields, SkipReason):
            return None
        lowest = np.full(len(name + end), AT + 1, np.uint8)
        span = np.full(len(name + end), 254, np.uint8)
        fixed = [i for i, byte in enumerate(name) if byte in (AT, SLASH)]
        fixed += [*range(at[2] + 1, at[4]), *range(len(name), len(name + end))]
        worth, scales = np.zeros((len(name), 3)), np.ones(3)
        for number, field in enumerate((0, 1, 8)):
            digits = list(range(at[field] + 1, at[field + 1]))
            for point in [i for i in digits if name[i] == ord(".")]:
                scales[number] = 10.0 ** (digits[-1] - point)
                digits.remove(point)
                fixed.append(point)
            if len(digits) > MOST_DIGITS:
                return None
            lowest[digits], span[digits] = ord("0"), 9
            worth[digits, number] = 10.0 ** np.arange(len(digits))[::-1]
        lowest[fixed], span[fixed] = np.frombuffer(name + end, np.uint8)[fixed], 0
        metres, degrees = worth[at[0] + 1 : at[2], :2], worth[at[8] + 1 : at[9], 2:]
        return cls(at, fields, lowest, span, name.count(b"/"), metres, degrees, scales)

    @property
    def block_rows(self) -> int:
        """How many names make a block: `check` takes no more at a time."""
        return max(1, BLOCK_BYTES // len(self.lowest))

    def check(self, block: Bytes) -> tuple[Bytes, Mask | None]:
        """Return how far the bytes of names, (n, bytes), lie above the lowest, and which names fit.

        None stands for all of them, but for "/" that nobody looked for yet.
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
        """The lowest bytes and spans of a whole block: a long row is quicker than many short ones."""
        return np.tile(self.lowest, self.block_rows), np.tile(self.span, self.block_rows)

    def put(self, above: Bytes, rows: slice | Rows, found: EntryBatch) -> None:
        """Put what names that fit say, but for the timestamp, into those rows of `found`.

        The numbers are to the bit what float() makes of their text: the digits make whole numbers
        that a float holds exactly, and the division rounds once.
        """
        metres = above[:, self.at[0] + 1 : self.at[2]].astype(np.float64) @ self.metres
        for axis in (0, 1):
            found.positions[rows, axis] = metres[:, axis] / self.scales[axis]
        if len(self.degrees):
            degrees = above[:, self.at[8] + 1 : self.at[9]].astype(np.float64)
            found.heading[rows] = (degrees @ self.degrees)[:, 0] / self.scales[2]
        found.zone_numbers[rows] = self.fields.zone_number
        found.bands[rows] = ord(self.fields.band) if self.fields.band else 0

    def stamp(self, block: Bytes) -> Bytes:
        """Return the (n, bytes) timestamps of (n, bytes) names."""
        return block[:, self.at[12] + 1 : self.at[13]]

    def read(
        self, text: Bytes, starts: Rows, lengths: Rows, rows: Rows, found: EntryBatch, stamps: Stamps
    ) -> Mask:
        """Read those rows that have this layout into `found` and `stamps`, and return which they are."""
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
            self.put(above, _compact(block_rows), found)
            stamps.add(block_rows, self.stamp(block))
        matched[matched] = fits
        return matched


class Stamps:
    """The timestamps of a batch, gathered in any order."""

    def __init__(self, rows: int) -> None:
        self._lengths = np.zeros(rows, np.int32)
        self._parts: list[tuple[Rows, Bytes]] = []

    def add(self, rows: Rows, text: Bytes) -> None:
        """Take the (n, bytes) timestamps of n rows."""
        if text.shape[1]:
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
    """Return rising rows as a slice if none is left out between them: numpy copies those faster."""
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1:
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return rows


def _windows(text: Bytes, width: int) -> npt.NDArray[np.void]:
    """Return a view whose item i is the `width` bytes from byte i on."""
    return np.ndarray((len(text) - width + 1,), f"V{width}", buffer=text, strides=(1,))


def _matrix(text: Bytes, starts: Rows, width: int) -> Bytes:
    """Return (n, width) bytes from each start on."""
    return _windows(text, width)[starts].view(np.uint8).reshape(-1, width)
