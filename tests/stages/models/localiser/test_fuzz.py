"""Ten thousand damaged forms of meta.json: an InputError or the right localiser, nothing else."""

from __future__ import annotations

import contextlib

from stages.errors import InputError
from stages.models.localiser.io import read_folder
from tests.stages.models.localiser.test_localiser import make
from tests.support.fuzz import ROUNDS, damaged


def test_damaged_meta_json(tmp_path):
    make().save(tmp_path / "a")
    file, read = tmp_path / "a" / "meta.json", 0
    meta, *_ = read_folder(tmp_path / "a")
    for content in damaged(file.read_bytes(), seed=4):
        file.write_bytes(content)
        with contextlib.suppress(InputError):
            assert read_folder(tmp_path / "a")[0] == meta
            read += 1
    assert 0 < read < ROUNDS
