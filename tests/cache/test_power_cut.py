"""Stores after a power cut, on a disk that keeps what was synced and any part of the rest."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cache.integrity import check_chunk, repair, torn
from cache.spec import StoreSpec
from cache.store import create_or_open, open_store
from cache.writer import ChunkWriter
from tests.cache.test_faults import CHUNKS, work
from tests.cache.test_store import OUTPUTS, RECIPE, content, features, ids


class Disk:
    """The possible contents of a folder if the power failed now.

    A file's content is safe once the file is synced; a new or deleted name is safe once its folder
    is. Until then a name can be old or new, and a file that was not synced can be all zeros or
    complete.
    """

    def __init__(self, folder: Path, patch) -> None:
        self.folder = folder
        self.safe = content(folder)  # name -> content
        self.pending: list[tuple[str, bytes | None, bytes | None]] = []  # name, worst, best content
        self.synced: dict[int, bytes] = {}  # inode -> content
        self.left: list[dict[str, bytes]] = []
        self.replace, self.unlink, self.fsync = os.replace, os.unlink, os.fsync
        patch.setattr("os.replace", self.replaced)
        patch.setattr("os.unlink", self.unlinked)
        patch.setattr("os.fsync", self.forced)

    def replaced(self, source, target):
        best = Path(source).read_bytes()
        worst = self.synced.pop(Path(source).stat().st_ino, bytes(len(best)))
        self.pending.append((self.name(target), worst, best))
        self.replace(source, target)
        self.look()

    def unlinked(self, path, **_):
        self.unlink(path)
        self.pending.append((self.name(path), None, None))
        self.look()

    def forced(self, descriptor):
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path.is_dir():
            forced = [item for item in self.pending if (self.folder / item[0]).parent == path]
            self.safe = self.after([(name, worst) for name, worst, _ in forced])
            self.pending = [item for item in self.pending if item not in forced]
        else:
            self.synced[os.fstat(descriptor).st_ino] = path.read_bytes()
        self.look()

    def look(self):
        """Record possible contents: no pending name, all, only the ledger's, only the arrays'."""
        worst = [(name, worst) for name, worst, _ in self.pending]
        arrays = [item for item in worst if not item[0].startswith("ledger")]
        ledger = [(name, best) for name, _, best in self.pending if name.startswith("ledger")]
        for survivors in ([], worst, worst[:-1], arrays, ledger, arrays + ledger):
            left = self.after(survivors)
            if left not in self.left:
                self.left.append(left)

    def after(self, names):
        left = dict(self.safe)
        for name, data in names:
            left.pop(name, None)
            if data is not None:
                left[name] = data
        return left

    def name(self, path):
        return str(Path(path).relative_to(self.folder))


@pytest.mark.parametrize("begun", [False, True], ids=["new chunks", "a chunk written again"])
def test_a_power_cut_at_any_time_does_not_change_the_store(begun, tmp_path, monkeypatch):
    path = tmp_path / "database.zarr"
    spec = StoreSpec(150, OUTPUTS, "float16", 64)
    store = create_or_open(path, spec, RECIPE, ids(150))
    if begun:
        ChunkWriter(store).write(1, features(spec, 1), {70: "no such file"})
    with monkeypatch.context() as patch:
        disk = Disk(path, patch)
        work(path)
    whole = content(path)
    assert len(disk.left) > 20
    for number, left in enumerate(disk.left):
        copy = tmp_path / f"{number}.zarr"
        for name, data in left.items():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes(data)
        store = open_store(copy)
        repair(store, torn(store, CHUNKS))  # the first step of every run; it reads no features
        assert [fault for chunk in CHUNKS for fault in check_chunk(store, chunk)] == []
        work(copy)
        assert content(copy) == whole
