"""Checkpoints: a training run that was killed goes on where it was, to the bit.

A checkpoint is a folder `step-0000120` with `meta.json`, for people and for
what is not a tensor, and a safetensors file per process. It appears whole, by
renaming; only then is the one before it deleted. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from stages.errors import InputError
from stages.train.loop.distributed import Ranks

FORMAT = 1


def identity_of(facts: Mapping[str, Any]) -> str:
    """Return a digest of what makes a run what it is: another digest is another run."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


@dataclass
class Checkpoints:
    """The checkpoints of one run.

    Attributes
    ----------
    folder : Path or None
        Where they are; None takes none.
    identity : str
        Of the run; those of another run are not taken up.
    every_s : float
        Least seconds between two.
    ranks : Ranks
        The processes that train together.
    """

    folder: Path | None
    identity: str
    every_s: float
    ranks: Ranks

    def __post_init__(self) -> None:
        self._last = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether it is time for one; the same answer in all processes."""
        if self.folder is None:
            return False
        return bool(self.ranks.agree(float(time.monotonic() - self._last >= self.every_s)))

    def save(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """Write a checkpoint, whole or not at all.

        Parameters
        ----------
        tensors : dict of str to Tensor
            Of this process.
        meta : dict
            ``pass`` and ``step``, and whatever else is needed to go on; the first process's is kept.
        """
        if self.folder is None:
            return
        final = self.folder / f"{meta['pass']}-{meta['step']:09d}"
        partial = final.with_name(f"{final.name}.partial")
        if self.ranks.first:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        self.ranks.wait()
        mine = partial / f"state-{self.ranks.rank}.safetensors"
        save_file({name: value.cpu().contiguous() for name, value in tensors.items()}, mine)
        _sync(mine)
        self.ranks.wait()
        if self.ranks.first:
            text = json.dumps({"format": FORMAT, "run": self.identity, **meta}, indent=2)
            (partial / "meta.json").write_text(text + "\n", encoding="utf-8")
            _sync(partial / "meta.json")
            shutil.rmtree(final, ignore_errors=True)
            partial.rename(final)
            for other in self.folder.iterdir():
                if other != final:
                    shutil.rmtree(other)
        self._last = time.monotonic()

    def latest(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return tensors and meta of the newest checkpoint of this run, None if there is none.

        Raises
        ------
        InputError
            If it is damaged.
        """
        if self.folder is None or not self.folder.exists():
            return None
        whole = sorted(path for path in self.folder.iterdir() if path.suffix != ".partial")
        if not whole:
            return None
        try:
            meta = json.loads((whole[-1] / "meta.json").read_text(encoding="utf-8"))
            if (meta["format"], meta["run"]) != (FORMAT, self.identity):
                return None
            return load_file(whole[-1] / f"state-{self.ranks.rank}.safetensors"), meta
        except (OSError, KeyError, json.JSONDecodeError, SafetensorError) as error:
            raise InputError(
                f"the checkpoint {whole[-1]} is damaged ({error}): delete {self.folder} to begin anew"
            ) from error

    def clear(self) -> None:
        """Delete them: the run is complete."""
        if self.folder is not None and self.ranks.first:
            shutil.rmtree(self.folder, ignore_errors=True)


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
