"""Read everything that a project stores and look for damage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from cache.errors import PlacecacheError
from cache.integrity import ChunkFault, MetadataFault, check_chunk, metadata_faults
from cache.spec import StoreSpec
from cache.store import open_store
from pipeline.checks.finding import Finding
from pipeline.project.paths import Paths
from stages.errors import InputError
from stages.files import Progress
from stages.index.hashing import ManifestDigest
from stages.index.manifest import Manifest
from stages.index.packs.reader import ImageSource
from stages.partition.classes import ClassTable, load_labels
from stages.partition.views import ViewPlan


@dataclass(frozen=True)
class Verdict:
    """State of one split's store: missing chunks, rows known to be bad, faults of chunks and of the rest."""

    split: str
    spec: StoreSpec
    missing: int
    bad: int
    faults: list[ChunkFault]
    metadata: list[MetadataFault]

    @property
    def sound(self) -> bool:
        """Whether the store is complete and undamaged."""
        return not self.faults and not self.missing and not self.metadata

    @property
    def remedy(self) -> str:
        """The command that repairs what is damaged and extracts what is missing."""
        split = self.split.partition("-crop")[0]  # crops of queries are extracted with the queries
        if any(not fault.repairable for fault in self.metadata):
            return f"pipeline extract --split {split} --replace"
        repair = self.faults or self.metadata
        return f"pipeline extract --split {split}" + (" --repair" if repair else "")

    def row(self) -> tuple[object, ...]:
        """Return split, chunks, missing and damaged chunks, bad rows and the verdict, for a table."""
        damaged = len({fault.chunk for fault in self.faults})
        word = "damaged" if self.faults or self.metadata else "incomplete" if self.missing else "sound"
        return self.split, self.spec.chunks, self.missing, damaged, self.bad, word

    def fault_rows(self) -> list[tuple[object, ...]]:
        """Return split, chunk, its rows, array and fault, one per line of a table."""
        return [
            *((self.split, "", "", fault.name, fault.what) for fault in self.metadata),
            *(
                (self.split, str(fault.chunk), self._rows(fault.chunk), fault.output, fault.what)
                for fault in self.faults
            ),
        ]

    def _rows(self, chunk: int) -> str:
        rows = self.spec.chunk_slice(chunk)
        return f"{rows.start}-{rows.stop - 1}"


def verify_split(paths: Paths, split: str, progress: Progress) -> Verdict:
    """Return the verdict on one split's store; every byte of it is read.

    Raises
    ------
    StoreError
        If there is no store, or its own zarr.json is damaged.
    """
    store = open_store(paths.features(split))
    faults: list[ChunkFault] = []
    listed = store.ledger.listed()
    for done, chunk in enumerate(listed, start=1):
        faults += check_chunk(store, chunk)
        progress(done, len(listed))
    missing, bad = store.spec.chunks - len(listed), len(store.ledger.bad_rows())
    return Verdict(split, store.spec, missing, bad, faults, metadata_faults(store))


def verify_artifacts(paths: Paths) -> Iterator[Finding]:
    """Read manifests, packs, partition and localiser, as far as they exist, and yield the state of each."""
    checks: list[tuple[str, bool, Callable[[], str]]] = [
        (f"index {split}", paths.index(split).exists(), partial(_check_manifest, paths, split))
        for split in ("database", "queries")
    ]
    checks.append(("partition", paths.partition.exists(), partial(_check_partition, paths)))
    checks.append(("localiser", paths.localiser.exists(), partial(_check_localiser, paths)))
    for subject, exists, check in checks:
        if exists:
            try:
                yield Finding(subject, "ok", check())
            except PlacecacheError as fault:
                yield Finding.of(subject, fault)


def _check_manifest(paths: Paths, split: str) -> str:
    manifest, digest = Manifest.open(paths.index(split)), ManifestDigest()
    for batch in manifest.batches():
        digest.add([batch])
    if digest.digest() != manifest.digest:
        raise InputError(f"{manifest.path} is damaged (its rows changed): run `pipeline index` again")
    packed = ImageSource(manifest).verify_packs()
    return f"{manifest.rows:,} rows" + (f", {packed:,} images in packs" if packed else "")


def _check_partition(paths: Paths) -> str:
    classes = ClassTable.load(paths.partition / "classes.parquet")
    labels = load_labels(paths.partition / "labels.npy")
    views = ViewPlan.load(paths.partition / "views.parquet")
    least, most = int(labels.min(initial=0)), int(labels.max(initial=-1))
    last_view = int(views.row.max(initial=-1))
    if least < -1 or most >= len(classes) or last_view >= len(labels):
        raise InputError(
            f"{paths.partition} is damaged (classes {least} to {most} of {len(classes)}, views up to row "
            f"{last_view} of {len(labels)}): run `pipeline partition` again"
        )
    return f"{len(classes):,} classes, {len(labels):,} labels, {len(views):,} views"


def _check_localiser(paths: Paths) -> str:
    from stages.models.localiser.localiser import Localiser  # imports torch, which takes seconds

    localiser = Localiser.load(paths.localiser)
    return f"{len(localiser.classes):,} classes"
