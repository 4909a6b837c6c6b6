"""Names of one layout -> positions, thousands at a time.

SF-XL's numbers are zero-padded, so its names come in few layouts: the same
length, and an "@" at the same places. The names of one layout make a matrix
of bytes whose columns are read as digits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stages.index.fields import SEPARATORS, Fields, parse_name
from stages.index.found import Fault, Found

AT, SLASH, ZERO = np.uint8(ord("@")), np.uint8(ord("/")), np.uint8(ord("0"))
BLOCK_ROWS = 1 << 13  # a block's bytes stay in the processor's cache

Bytes = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Layout:
    """Where the fields of a name lie, for all names of this length and these separators.

    Attributes
    ----------
    length
        Bytes of the whole key.
    at
        Offsets of the separators.
    fields
        What the sample name says.
    wanted
        Offsets of the bytes that are looked at: first the digits of east,
        north and heading, then the separators, decimal points, zone and band,
        which are the same in all names of this layout.
    lowest, span
        (wanted, 1) the least byte allowed there, and how many more may follow it.
    slashes
        How many "/" the key holds, all of them before the name.
    digits
        How many digits each of the three numbers has.
    scales
        (3, 1) powers of ten that put the decimal points where they belong.
    """

    length: int
    at: tuple[int, ...]
    fields: Fields
    wanted: npt.NDArray[np.int64]
    lowest: Bytes
    span: Bytes
    slashes: int
    digits: tuple[int, ...]
    scales: npt.NDArray[np.float64]

    @classmethod
    def of(cls, name: bytes) -> Layout | None:
        """Return the layout of a sample name, or None if it is not a regular one."""
        at = tuple(i for i, byte in enumerate(name) if byte == AT)
        fields = parse_name(name.decode())
        if len(at) != SEPARATORS or b"/" in name[at[0] :] or isinstance(fields, Fault):
            return None
        fixed = [*at, *range(at[2] + 1, at[3]), *range(at[3] + 1, at[4])]
        places: list[list[int]] = []
        scales = np.ones((3, 1))
        for number, field in enumerate((0, 1, 8)):
            columns = list(range(at[field] + 1, at[field + 1]))
            for point in [i for i in columns if name[i] == ord(".")]:
                scales[number] = 10.0 ** (columns[-1] - point)
                columns.remove(point)
                fixed.append(point)
            places.append(columns)
        digits = tuple(len(columns) for columns in places)
        wanted = np.array([*places[0], *places[1], *places[2], *fixed])
        is_digit = np.arange(len(wanted)) < sum(digits)
        lowest = np.where(is_digit, ZERO, np.frombuffer(name, np.uint8)[wanted])[:, None]
        span = np.where(is_digit, np.uint8(9), np.uint8(0))[:, None]
        return cls(len(name), at, fields, wanted, lowest, span, name.count(b"/"), digits, scales)

    def read(
        self, text: Bytes, starts: Rows, lengths: Rows, rows: Rows, found: Found, stamps: Stamps
    ) -> npt.NDArray[np.bool_]:
        """Read those rows that have this layout into `found` and `stamps`, and return which they are."""
        matched: npt.NDArray[np.bool_] = lengths[rows] == self.length
        candidates = rows[matched]
        fits = np.zeros(len(candidates), np.bool_)
        for first in range(0, len(candidates), BLOCK_ROWS):
            block_rows = candidates[first : first + BLOCK_ROWS]
            block = _matrix(text, starts[block_rows], self.length)
            above = block[:, self.wanted].T - self.lowest
            good = (above <= self.span).all(axis=0) & self._count_separators(block)
            values = self._numbers(above)
            stamp = block[:, self.at[12] + 1 : self.at[13]]
            if not good.all():
                block_rows, values, stamp = block_rows[good], values[:, good], stamp[good]
            fits[first : first + BLOCK_ROWS] = good
            place = _compact(block_rows)
            found.positions[place] = values[:2].T
            if self.at[9] - self.at[8] > 1:
                found.heading[place] = values[2]
            stamps.add(block_rows, stamp)
        read = _compact(candidates[fits])
        found.zone_numbers[read] = self.fields.zone_number
        found.bands[read] = ord(self.fields.band) if self.fields.band else 0
        matched[matched] = fits
        return matched

    def _numbers(self, digits: Bytes) -> npt.NDArray[np.float64]:
        """Return (3, n) east, north and heading, to the bit what float() makes of their text.

        The digits make whole numbers that a float holds exactly; the division rounds once.
        """
        values = np.zeros((3, digits.shape[1]))
        row = 0
        for value, count in zip(values, self.digits, strict=True):
            for digit in digits[row : row + count]:
                value *= 10
                value += digit
            row += count
        return np.asarray(values / self.scales)

    def _count_separators(self, block: Bytes) -> npt.NDArray[np.bool_] | np.bool_:
        """Return which names hold no further "@" or "/", which would shift the fields."""
        counts = ((AT, SEPARATORS), (SLASH, self.slashes))
        if all(np.count_nonzero(block == byte) == count * len(block) for byte, count in counts):
            return np.True_
        good = np.ones(len(block), np.bool_)
        for byte, count in counts:
            good &= (block == byte).sum(axis=1) == count
        return good


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
