"""Checkpoints: a training run that was killed resumes with exactly the same numbers.

A checkpoint is a folder such as `first-000000120` with `meta.json` (everything that is not a tensor) and one
safetensors file per process. It is written under another name and renamed when complete; only then is the
previous one deleted. Nothing is pickled.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from cache.storage.paths import write_atomic
from stages.errors import InputError
from stages.models.localiser.io import save_tensors
from stages.train.loop.distributed import Ranks

FORMAT = 2  # of format 1, the identity did not cover views, checksums and held-out images


class Checkpoint(NamedTuple):
    """The state of a run at some step: this process's tensors, and everything that is not a tensor."""

    tensors: dict[str, Tensor]
    meta: dict[str, Any]


@dataclass
class Checkpoints:
    """The checkpoints of one run; without a folder none are taken.

    Those of a run of another identity are ignored. Two are at least `every_s` seconds apart.
    """

    folder: Path | None
    identity: str
    every_s: float
    ranks: Ranks

    def __post_init__(self) -> None:
        self._last = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether it is time for the next one; all processes agree."""
        if self.folder is None:
            return False
        return bool(self.ranks.agree(float(time.monotonic() - self._last >= self.every_s)))

    def save(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """Write a checkpoint of this process's tensors; a reader sees all of it or nothing.

        `meta` has ``pass``, ``step`` and anything else needed to resume; the first process's is written.
        """
        if self.folder is None:
            return
        final = self.folder / f"{meta['pass']}-{meta['step']:09d}"
        partial = final.with_name(f"{final.name}.partial")
        if self.ranks.first:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        self.ranks.wait()
        own = partial / f"state-{self.ranks.rank}.safetensors"
        save_tensors(tensors, own)
        self.ranks.wait()
        if self.ranks.first:
            text = json.dumps({"format": FORMAT, "run": self.identity, **meta}, indent=2)
            write_atomic(partial / "meta.json", (text + "\n").encode())
            shutil.rmtree(final, ignore_errors=True)
            partial.rename(final)
            for other in self.folder.iterdir():
                if other != final:
                    shutil.rmtree(other)
        self._last = time.monotonic()

    def latest(self) -> Checkpoint | None:
        """Return the newest checkpoint of this run, None if there is none.

        Raises
        ------
        InputError
            If it is damaged.
        """
        if self.folder is None or not self.folder.exists():
            return None
        complete = sorted(path for path in self.folder.iterdir() if path.suffix != ".partial")
        if not complete:
            return None
        try:
            meta = json.loads((complete[-1] / "meta.json").read_text(encoding="utf-8"))
            if (meta["format"], meta["run"]) != (FORMAT, self.identity):
                return None
            return Checkpoint(load_file(complete[-1] / f"state-{self.ranks.rank}.safetensors"), meta)
        except (OSError, KeyError, TypeError, ValueError, RecursionError, SafetensorError) as error:
            raise InputError(
                f"the checkpoint {complete[-1]} is damaged ({error}): delete {self.folder} to start again"
            ) from error

    def clear(self) -> None:
        """Delete all of them; called when the run is complete."""
        if self.folder is not None and self.ranks.first:
            shutil.rmtree(self.folder, ignore_errors=True)
