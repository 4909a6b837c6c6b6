"""Compare every byte of the feature stores with the checksums in the ledger."""

from __future__ import annotations

from dataclasses import dataclass

from cache.integrity import ChunkFault, check_chunk
from cache.spec import StoreSpec
from cache.store import open_store
from pipeline.project.paths import Paths
from stages.files import Progress


@dataclass(frozen=True)
class Verdict:
    """State of one split's store: missing chunks, rows known to be bad, and faults of finished chunks."""

    split: str
    spec: StoreSpec
    missing: int
    bad: int
    faults: list[ChunkFault]

    @property
    def sound(self) -> bool:
        """Whether the store is complete and undamaged."""
        return not self.faults and not self.missing

    @property
    def remedy(self) -> str:
        """The command that repairs damaged chunks and extracts missing ones."""
        return f"pipeline extract --split {self.split}" + (" --repair" if self.faults else "")

    def row(self) -> tuple[object, ...]:
        """Return split, chunks, missing and damaged chunks, bad rows and the verdict, for a table."""
        damaged = len({fault.chunk for fault in self.faults})
        word = "damaged" if self.faults else "incomplete" if self.missing else "sound"
        return self.split, self.spec.chunks, self.missing, damaged, self.bad, word

    def fault_rows(self) -> list[tuple[object, ...]]:
        """Return split, chunk, its rows, array and fault, one per line of a table."""
        return [
            (self.split, str(fault.chunk), self._rows(fault.chunk), fault.output, fault.what)
            for fault in self.faults
        ]

    def _rows(self, chunk: int) -> str:
        rows = self.spec.chunk_slice(chunk)
        return f"{rows.start}-{rows.stop - 1}"


def verify_split(paths: Paths, split: str, progress: Progress) -> Verdict:
    """Return the verdict on one split's store; every byte of it is read.

    Raises
    ------
    StoreError
        If there is no store, or its metadata are damaged.
    """
    store = open_store(paths.features(split))
    faults: list[ChunkFault] = []
    listed = store.ledger.listed()
    for done, chunk in enumerate(listed, start=1):
        faults += check_chunk(store, chunk)
        progress(done, len(listed))
    missing = store.spec.chunks - len(listed)
    return Verdict(split, store.spec, missing, len(store.ledger.bad_rows()), faults)
