"""Shape of a store: arrays, chunks and work shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cache.errors import StoreError

MIN_CHUNK_ROWS = 64
MAX_CHUNK_ROWS = 8192
MAX_CHUNK_BYTES = 64 << 20
_CHUNKS_AT_LEAST = 64
_DTYPES = ("float16", "float32")


@dataclass(frozen=True)
class StoreSpec:
    """Shape of a feature store: one (rows, F) array per output, split into row chunks."""

    rows: int
    outputs: dict[str, int]  # array names, in order, and their lengths F
    dtype: str  # "float16" or "float32"
    chunk_rows: int  # the last chunk may hold fewer

    def __post_init__(self) -> None:
        if self.rows < 0 or self.chunk_rows < 1:
            raise StoreError(
                f"a store has 0 or more rows in chunks of 1 or more, "
                f"not {self.rows} in chunks of {self.chunk_rows}"
            )
        if not self.outputs or min(self.outputs.values()) < 1:
            raise StoreError(f"a store has outputs of length 1 or more, not {self.outputs}")
        if self.dtype not in _DTYPES:
            raise StoreError(
                f"features are stored as {' or '.join(_DTYPES)}, not {self.dtype!r}: set extract.dtype"
            )

    @classmethod
    def for_rows(cls, rows: int, outputs: dict[str, int], dtype: str) -> StoreSpec:
        """Return a spec with chunks small enough for many workers and large enough to be read fast.

        A chunk has the power of two at or above rows / 64 rows, within 64..8192. For long rows, such
        as all tokens of an image, that is halved until no array's chunk is above 64 MiB, because
        writers hold whole chunks in memory. No pooled output is that long.
        """
        wanted = max(1, -(-rows // _CHUNKS_AT_LEAST))
        power = 1 << (wanted - 1).bit_length()
        spec = cls(rows, dict(outputs), dtype, min(max(power, MIN_CHUNK_ROWS), MAX_CHUNK_ROWS))
        fitting = max(1, MAX_CHUNK_BYTES // (max(outputs.values()) * np.dtype(dtype).itemsize))
        return replace(spec, chunk_rows=min(spec.chunk_rows, 1 << (fitting.bit_length() - 1)))

    @property
    def row_bytes(self) -> int:
        """Bytes of one row, all outputs together."""
        return sum(self.outputs.values()) * np.dtype(self.dtype).itemsize

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return -(-self.rows // self.chunk_rows)

    def chunk_slice(self, chunk: int) -> slice:
        """Return the rows of one chunk; StoreError if there is no such chunk."""
        if not 0 <= chunk < self.chunks:
            raise StoreError(
                f"chunk {chunk} does not exist: the store has {self.chunks} chunks, numbered from 0"
            )
        start = chunk * self.chunk_rows
        return slice(start, min(start + self.chunk_rows, self.rows))

    def shard_chunks(self, shard: int, shards: int) -> range:
        """Return the chunks of work shard `shard` of `shards`; StoreError if there is no such shard.

        Shards cover every chunk once, in order. With more shards than chunks some are empty.
        """
        if shards < 1 or not 0 <= shard < shards:
            raise StoreError(f"shard {shard} does not exist: expected 0 to {shards - 1}")
        return range(shard * self.chunks // shards, (shard + 1) * self.chunks // shards)

    def shard_of_chunk(self, chunk: int, shards: int) -> int:
        """Return the work shard of a chunk: the inverse of `shard_chunks`."""
        self.chunk_slice(chunk)
        return ((chunk + 1) * shards - 1) // self.chunks


def number_ranges(numbers: Sequence[int]) -> str:
    """Return ascending numbers in short form: ``0-3,7``."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ",".join(f"{low}-{high}" if high > low else f"{low}" for low, high in spans)
