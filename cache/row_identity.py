"""Identities of a store's rows: which image each row shows, and how long that image's file was."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

_ID_BLOCK = 1 << 16


class IdentityArrays(NamedTuple):
    """Identity (rows,) uint64 and file length in bytes (rows,) int64 of every row; None or 0: unknown."""

    ids: npt.NDArray[np.uint64]
    file_bytes: npt.NDArray[np.int64] | None


@dataclass(frozen=True)
class RowIdentities:
    """The rows that a store is for; equal digests mean equal rows, so the arrays are rarely computed."""

    digest: str
    compute: Callable[[], IdentityArrays]

    @classmethod
    def of(cls, ids: npt.NDArray[np.uint64], file_bytes: npt.NDArray[np.int64] | None = None) -> Self:
        """Return the identities that these arrays hold."""
        digest = hashlib.sha256(ids.tobytes() + (b"" if file_bytes is None else file_bytes.tobytes()))
        return cls(digest.hexdigest(), lambda: IdentityArrays(ids, file_bytes))

    @cached_property
    def arrays(self) -> IdentityArrays:
        """The arrays, computed once."""
        return self.compute()


def row_ids(names: Iterable[str]) -> npt.NDArray[np.uint64]:
    """Return the identity of each row, uint64: the first 64 bits of the BLAKE2b of its name.

    A name is an image's key, or ``key#view`` for a view.
    """
    empty = hashlib.blake2b(digest_size=8)

    def digest(name: str) -> bytes:
        hasher = empty.copy()  # half the time of a new one
        hasher.update(name.encode())
        return hasher.digest()

    # In blocks: millions of small bytes objects would take gigabytes.
    rest, blocks = iter(names), []
    while block := b"".join(map(digest, islice(rest, _ID_BLOCK))):
        blocks.append(block)
    return np.frombuffer(b"".join(blocks), dtype="<u8").astype(np.uint64)


def same_length(
    one: npt.NDArray[np.int64] | None, two: npt.NDArray[np.int64] | None, rows: int
) -> npt.NDArray[np.bool_]:
    """Return for each of `rows` rows whether two file lengths agree; an unknown length agrees with any."""
    if one is None or two is None:
        return np.ones(rows, np.bool_)
    return np.asarray((one == two) | (one == 0) | (two == 0))
