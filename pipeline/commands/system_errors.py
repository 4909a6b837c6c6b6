"""An error of the operating system as one line: the path, the fault, the way out."""

from __future__ import annotations

import errno
import os
import re
import traceback
from pathlib import Path

_FULL = "free some space there, or use another disk"
_RIGHTS = "check its owner and permissions (`ls -ld`), or use another folder"
_DEVICE = "check the disk (`dmesg`), its cables and its mount"
_NETWORK = "check network, address and mount"
_PATH = "check the path"
_WAYS_OUT = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: "use a disk that can hold such a large file",
    errno.EROFS: "mount it writable, or use another folder",
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.EIO: _DEVICE,
    errno.ENXIO: _DEVICE,
    errno.ENODEV: _DEVICE,
    errno.ESTALE: _NETWORK,
    errno.ENOTCONN: _NETWORK,
    errno.ETIMEDOUT: _NETWORK,
    errno.ECONNREFUSED: _NETWORK,
    errno.EHOSTUNREACH: _NETWORK,
    errno.ENOENT: _PATH,
    errno.ENOTDIR: f"{_PATH}: a file is where a folder is needed",
    errno.EISDIR: f"{_PATH}: a folder is where a file is needed",
    errno.EEXIST: f"{_PATH}: move away what is there",
    errno.ENAMETOOLONG: "use a shorter path",
    errno.ELOOP: "remove the symbolic links that point at each other",
    errno.EMFILE: "allow more open files (`ulimit -n 65536`)",
    errno.ENFILE: "allow more open files (`ulimit -n 65536`)",
    errno.ENOMEM: "free some memory",
    errno.EBUSY: "close the program that uses it",
}
# Libraries written in other languages state the number in their text only.
_NUMBER_IN_TEXT = re.compile(r"(?:errno[ =:]+|os error )(\d+)", re.IGNORECASE)


def explain(error: OSError) -> str:
    """Return the line to print: which path, what is wrong, how to fix it."""
    text = " ".join(str(error).split())
    stated = _NUMBER_IN_TEXT.search(text)
    number = error.errno or (int(stated[1]) if stated else 0)
    reason = os.strerror(number).lower() if number else text or type(error).__name__
    path = error.filename if isinstance(error.filename, str | os.PathLike) else None
    if path is None and number and not _names_a_path(text):
        path = _path_at_work(error)
    subject = f"{os.fspath(path)} cannot be used ({reason})" if path else reason
    if number and not path and text:
        subject = f"{reason} ({text})"
    fix = _WAYS_OUT.get(number, "fix that")
    return f"{subject}: {fix}, then run the same command again; finished work is kept"


def _names_a_path(text: str) -> bool:
    return bool(re.search(r"(^|['\" ])/", text))


def _path_at_work(error: OSError) -> Path | None:
    """Return the path that the innermost functions worked on: reads and writes of open files name none."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    for frame in reversed(frames):
        values = list(frame.f_locals.values())
        for value in (*values, *(getattr(value, "path", None) for value in values)):
            if isinstance(value, Path):
                return value
    return None
