"""Read every finished byte of the feature stores again and compare it with the ledger."""

from __future__ import annotations

from dataclasses import dataclass

from cache.integrity import ChunkFault, check_chunk
from cache.spec import StoreSpec
from cache.store import open_store
from pipeline.project.paths import Paths
from stages.files import Progress


@dataclass(frozen=True)
class Verdict:
    """What verifying one split's store found.

    Attributes
    ----------
    split : str
        The split.
    spec : StoreSpec
        How its store is cut.
    missing : int
        Chunks that are not extracted yet.
    bad : int
        Rows listed as bad: known, hence no fault.
    faults : list of ChunkFault
        What is wrong with finished chunks.
    """

    split: str
    spec: StoreSpec
    missing: int
    bad: int
    faults: list[ChunkFault]

    @property
    def sound(self) -> bool:
        """Whether the store is complete and every byte is as it was written."""
        return not self.faults and not self.missing

    @property
    def remedy(self) -> str:
        """The command that mends what is wrong; it extracts what is missing as well."""
        return f"pipeline extract --split {self.split}" + (" --repair" if self.faults else "")

    def row(self) -> tuple[object, ...]:
        """Return split, chunks, missing and damaged chunks, bad rows and a word, for a table."""
        damaged = len({fault.chunk for fault in self.faults})
        word = "damaged" if self.faults else "incomplete" if self.missing else "sound"
        return self.split, self.spec.chunks, self.missing, damaged, self.bad, word

    def fault_rows(self) -> list[tuple[object, ...]]:
        """Return split, chunk, its rows, array and what is wrong of every fault, for a table."""
        return [
            (self.split, str(fault.chunk), self._rows(fault.chunk), fault.output, fault.what)
            for fault in self.faults
        ]

    def _rows(self, chunk: int) -> str:
        rows = self.spec.chunk_slice(chunk)
        return f"{rows.start}-{rows.stop - 1}"


def verify_split(paths: Paths, split: str, progress: Progress) -> Verdict:
    """Return what is wrong with one split's store; every byte of it is read.

    Raises
    ------
    StoreError
        If there is no store, or its own description is damaged.
    """
    store = open_store(paths.features(split))
    faults: list[ChunkFault] = []
    listed = store.ledger.listed()
    for done, chunk in enumerate(listed, start=1):
        faults += check_chunk(store, chunk)
        progress(done, len(listed))
    missing = store.spec.chunks - len(listed)
    return Verdict(split, store.spec, missing, len(store.ledger.bad_rows()), faults)
