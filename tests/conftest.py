"""What holds for the whole suite."""

from __future__ import annotations

from uuid import uuid4

import pytest
import torch

from cache.storage.remote import RemotePath

# One thread: the tests' tensors are small, and results must not depend on how busy the machine is.
torch.set_num_threads(1)


@pytest.fixture(params=["disk", "objects"])
def folder(request, tmp_path):
    """Where stores lie: a folder on the disk, or names on an object storage (in memory)."""
    if request.param == "disk":
        yield tmp_path
        return
    place = RemotePath(f"memory://{uuid4().hex}")
    yield place
    place.delete_store()
