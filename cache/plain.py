"""Arrays whose chunk files are their values and nothing else, so that they need no detour through Zarr."""

from __future__ import annotations

import sys
from typing import Any

from zarr.codecs import BytesCodec
from zarr.core.chunk_key_encodings import DefaultChunkKeyEncoding


def is_plain(array: Any) -> bool:
    """Whether an array's chunks are files of uncompressed values in this machine's byte order."""
    codecs, keys = array.metadata.codecs, array.metadata.chunk_key_encoding
    if keys != DefaultChunkKeyEncoding(separator="/"):
        return False
    if len(codecs) != 1 or not isinstance(codecs[0], BytesCodec) or codecs[0].endian is None:
        return False
    # An enumeration up to Zarr 3.3, a word since.
    return getattr(codecs[0].endian, "value", codecs[0].endian) == sys.byteorder
