"""SF-XL file names -> positions, a million at a time.

A name is
`@utm_east@utm_north@zone@band@lat@lon@pano@tile@heading@pitch@roll@height@timestamp@note@.jpg`.
Its numbers are zero-padded, so names come in few layouts: the same length and
an "@" at the same places. The rows of one layout form a byte matrix whose
columns are read as digits; names of rare layouts, and all faulty ones, are
read one by one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stages.index.found import Fault, Found

AT, SLASH, ZERO = np.uint8(ord("@")), np.uint8(ord("/")), np.uint8(ord("0"))
SEPARATORS = 15
LAYOUTS = 48  # beyond so many layouts in one batch the names are read one by one
BLOCK_ROWS = 1 << 13  # a block's bytes stay in the processor's cache
_NUMBER = re.compile(r"[+-]?\d{1,15}(\.\d{0,9})?", re.ASCII)
_BANDS = "CDEFGHJKLMNPQRSTUVWX"

Bytes = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Fields:
    """What one name says: UTM position, zone (0 and "" if it does not say), heading, timestamp."""

    east: float
    north: float
    zone_number: int
    band: str
    heading: float
    timestamp: str


def parse_name(name: str) -> Fields | Fault:
    """Return what one name says, or what is wrong with it; the slow and exact reading.

    Parameters
    ----------
    name
        A file name or a path that ends in one.
    """
    fields = name.rpartition("/")[2].split("@")
    if len(fields) < 4 or not (fields[1] or fields[2]):
        return Fault.NO_POSITION
    if not (_NUMBER.fullmatch(fields[1]) and _NUMBER.fullmatch(fields[2])):
        return Fault.NOT_A_NUMBER
    zone, band = (fields[3], fields[4].upper()) if len(fields) > 5 else ("", "")
    if zone or band:
        if not (zone.isascii() and zone.isdigit() and 1 <= int(zone) <= 60):
            return Fault.BAD_ZONE
        if len(band) != 1 or band not in _BANDS:
            return Fault.BAD_ZONE
    whole = len(fields) > SEPARATORS
    heading = float(fields[9]) if whole and _NUMBER.fullmatch(fields[9]) else np.nan
    timestamp = fields[13] if whole else ""
    return Fields(float(fields[1]), float(fields[2]), int(zone or 0), band, heading, timestamp)


def parse_names(keys: pa.StringArray) -> Found:
    """Return the positions, zones, headings and timestamps that the names state.

    Parameters
    ----------
    keys
        Paths that end in SF-XL names. One that does not gets a fault.
    """
    found = Found.blank(keys)
    text, starts, lengths = _bytes_of(keys)
    stamps = _Stamps(len(keys))
    rest: Rows = np.arange(len(keys))
    slow: list[int] = []
    for _ in range(LAYOUTS):
        if not len(rest):
            break
        first = int(rest[0])
        layout = Layout.of(text[starts[first] : starts[first] + lengths[first]].tobytes())
        matched = (
            layout.read(text, starts, lengths, rest, found, stamps)
            if layout
            else np.zeros(len(rest), np.bool_)
        )
        if not matched[0]:
            slow.append(first)
            matched[0] = True
        rest = rest[~matched]
    for row in [*slow, *rest.tolist()]:
        _read_slowly(keys[row].as_py(), row, found, stamps)
    found.timestamp = stamps.array()
    return found


def _read_slowly(name: str, row: int, found: Found, stamps: _Stamps) -> None:
    fields = parse_name(name)
    if isinstance(fields, Fault):
        found.faults[row] = fields
        return
    found.positions[row] = fields.east, fields.north
    found.zone_numbers[row] = fields.zone_number
    found.bands[row] = ord(fields.band) if fields.band else 0
    found.heading[row] = fields.heading
    stamp = np.frombuffer(fields.timestamp.encode(), np.uint8)
    stamps.add(np.array([row]), stamp[None, :])


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
        self, text: Bytes, starts: Rows, lengths: Rows, rows: Rows, found: Found, stamps: _Stamps
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


class _Stamps:
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


def _bytes_of(keys: pa.StringArray) -> tuple[Bytes, Rows, Rows]:
    """Return the text of all keys, and where each begins and how long it is."""
    _, offset_buffer, text_buffer = keys.buffers()
    offsets = np.frombuffer(offset_buffer, np.int32)[keys.offset : keys.offset + len(keys) + 1].astype(
        np.int64
    )
    text = np.frombuffer(text_buffer, np.uint8) if text_buffer is not None else np.zeros(0, np.uint8)
    return text, offsets[:-1], np.diff(offsets)


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
