"""Seeded damage to the content of a file."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

ROUNDS = int(os.environ.get("PLACECACHE_FUZZ", "10000"))
"""Damaged inputs per test; more with the environment variable."""
_TOKENS = (
    b"null",
    b"[]",
    b"{}",
    b"-1",
    b"1e999",
    b"NaN",
    b'"',
    b"[" * 3000,
    b"0" * 5000,
    b"\xff",
    b"\0",
    b",",
)


def damaged(content: bytes, seed: int) -> Iterator[bytes]:
    """Yield `ROUNDS` damaged forms of a file's content, the same for the same seed."""
    generator = random.Random(seed)
    for _ in range(ROUNDS):
        form = content
        for _ in range(generator.choice((1, 1, 1, 2, 3))):
            form = _damaged_once(form, generator)
        yield form


def _damaged_once(content: bytes, generator: random.Random) -> bytes:
    first, last = sorted(generator.randrange(len(content) + 1) for _ in range(2))
    last = min(last, first + 40)
    kind = generator.randrange(7)
    if kind <= 2 and first < len(content):
        flipped = content[first] ^ 1 << generator.randrange(8)
        return content[:first] + bytes([flipped]) + content[first + 1 :]
    if kind == 3:
        return content[:first] + content[last:]
    if kind == 4:
        return content[:last] + content[first:]
    if kind == 5:
        return content[:first] + generator.choice(_TOKENS) + content[last:]
    return (
        content[:first]
        if generator.random() < 0.2
        else content[:first] + generator.randbytes(4) + content[last:]
    )
