"""64-bit hashes of keys, and the digest of a manifest."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import pyarrow as pa

WORD_BYTES = 8
FILE_BYTES = "file_bytes"  # the manifest's column of file lengths, where files are local
BLOCK_ROWS = 1 << 13  # small enough for the processor's cache
_FACTOR = np.uint64(0xFF51AFD7ED558CCD)
_HALF = np.uint64(32)
_PART_BITS = 2  # hashes are searched for repeated ones in 2**_PART_BITS parts

Hashes = npt.NDArray[np.uint64]


def mix(values: Hashes) -> Hashes:
    """Return values mixed by splitmix64: every input bit affects every output bit."""
    mixed = values + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(mixed ^ (mixed >> np.uint64(31)), np.uint64)


def uniforms(hashes: Hashes, seed: int) -> npt.NDArray[np.float64]:
    """Return a number in [0, 1) per hash, a pure function of hash and seed."""
    seeded = hashes ^ mix(np.array([seed % 2**64], np.uint64))
    return np.asarray((mix(seeded) >> np.uint64(11)) * 2.0**-53, np.float64)


def key_hashes(keys: pa.StringArray) -> Hashes:
    """Return a 64-bit hash of each key, the same on every machine and in every batch.

    The probability that any two of 41 million keys collide is 5e-5.

    Parameters
    ----------
    keys
        n strings, none of them null.

    Returns
    -------
    ndarray
        (n,) uint64.
    """
    _, offset_buffer, text_buffer = keys.buffers()
    offsets = np.frombuffer(offset_buffer, np.int32)[keys.offset : keys.offset + len(keys) + 1].astype(
        np.int64
    )
    lengths = np.diff(offsets)
    text = np.frombuffer(text_buffer or b"", np.uint8)
    hashes = np.empty(len(keys), np.uint64)
    words_of = -(-lengths // WORD_BYTES)
    for words in np.unique(words_of):
        rows = np.flatnonzero(words_of == words)
        for first in range(0, len(rows), BLOCK_ROWS):
            block = rows[first : first + BLOCK_ROWS]
            hashes[block] = _hash(text, offsets[block], lengths[block], int(words))
    return hashes


def _hash(
    text: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64], words: int
) -> Hashes:
    """Return the hashes of keys that fill the same number of 8-byte words."""
    state = lengths.astype(np.uint64) * _FACTOR
    if words == 1:
        # Such keys may be shorter than a word, so copy their bytes one by one and pad them.
        padded = np.zeros((len(starts), WORD_BYTES), np.uint8)
        for byte in range(WORD_BYTES):
            has = lengths > byte
            padded[has, byte] = text[starts[has] + byte]
        return mix(state ^ padded.view("<u8")[:, 0])
    if words > 1:
        view = np.ndarray((len(text) - WORD_BYTES + 1,), f"V{WORD_BYTES}", buffer=text, strides=(1,))
    for word in range(words):
        # The last word ends where the key ends, so it overlaps the one before.
        places = np.minimum(starts + word * WORD_BYTES, starts + lengths - WORD_BYTES)
        state ^= view[places].view("<u8")
        state *= _FACTOR
        state ^= state >> _HALF
    return mix(state)


class RowDigest:
    """Digest of which images some rows are: their keys and, where known, the lengths of their files."""

    def __init__(self) -> None:
        self._keys, self._file_bytes, self._known = hashlib.sha256(), hashlib.sha256(), False

    def add(self, hashes: Hashes, file_bytes: npt.NDArray[np.int64] | None) -> None:
        """Add the next rows."""
        self._keys.update(hashes.data)
        if file_bytes is not None:
            self._known = True
            self._file_bytes.update(file_bytes.data)

    def hexdigest(self) -> str:
        """Return the digest, independent of how rows were batched."""
        file_bytes = self._file_bytes.digest() if self._known else b""
        return hashlib.sha256(self._keys.digest() + file_bytes).hexdigest()


class ManifestDigest:
    """Digest and duplicate keys of a manifest, computed while it is written; keeps 8 bytes a row."""

    def __init__(self) -> None:
        self._sums = [hashlib.sha256() for _ in range(3)]
        self._hashes: list[Hashes] = []
        self._rows = RowDigest()

    def add(self, batches: list[pa.RecordBatch]) -> None:
        """Add the next rows."""
        for batch in batches:
            hashes = key_hashes(batch["key"])
            self._hashes.append(hashes)
            known = FILE_BYTES in batch.schema.names
            self._rows.add(hashes, batch[FILE_BYTES].to_numpy() if known else None)
            columns = (hashes, batch["utm_east"].to_numpy(), batch["utm_north"].to_numpy())
            for total, column in zip(self._sums, columns, strict=True):
                total.update(column.data)

    def digest(self) -> str:
        """Return a sha256 of all keys and positions, independent of how rows were batched."""
        return hashlib.sha256(b"".join(total.digest() for total in self._sums)).hexdigest()

    def row_digest(self) -> str:
        """Return the digest of which images the rows are."""
        return self._rows.hexdigest()

    def duplicates(self) -> npt.NDArray[np.int64]:
        """Return the rows that repeat the key of an earlier row."""
        repeated = np.concatenate([self._repeated(part) for part in range(1 << _PART_BITS)])
        if not len(repeated):
            self._hashes.clear()
            return np.zeros(0, np.int64)
        hashes = np.concatenate(self._hashes)
        self._hashes.clear()
        rows = np.flatnonzero(np.isin(hashes, repeated))
        _, first = np.unique(hashes[rows], return_index=True)
        return np.delete(rows, first)

    def _repeated(self, part: int) -> Hashes:
        """Return the repeated hashes that start with the bits of `part`: sorting all needs more memory."""
        shift = np.uint64(64 - _PART_BITS)
        ordered = np.concatenate([hashes[hashes >> shift == part] for hashes in self._hashes])
        ordered.sort()
        return np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
