"""Single rows out of a store, wherever they lie: memory-mapped, since chunks are plain bytes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cache.reader import FeatureReader


def gather(
    reader: FeatureReader, rows: npt.NDArray[np.int64], outputs: Sequence[str] | None = None
) -> npt.NDArray[np.floating]:
    """Features of single rows, outputs side by side.

    Only the pages that hold these rows are read from the disk. A store that
    some other program compressed or sharded is read chunk by chunk instead.

    Parameters
    ----------
    reader : FeatureReader
        An open store.
    rows : ndarray of int64, shape (n,)
        Rows, ascending.
    outputs : sequence of str, optional
        Which outputs, in which order; by default all.

    Returns
    -------
    ndarray, (n, F)
        In the store's dtype; NaN for bad rows.
    """
    names = list(reader.outputs) if outputs is None else list(outputs)
    features = np.empty((len(rows), reader.length(names)), reader.store.spec.dtype)
    chunks = rows // reader.chunk_rows
    starts = np.flatnonzero(np.diff(chunks, prepend=-1))
    for low, high in itertools.pairwise(np.append(starts, len(rows))):
        chunk, column = int(chunks[low]), 0
        offsets = rows[low:high] - chunk * reader.chunk_rows
        for name in names:
            block = reader.mapped(name, chunk)
            features[low:high, column : column + block.shape[1]] = block[offsets]
            column += block.shape[1]
    return features
