"""Results of extraction: of a shard, of a run, and the error for too many unreadable images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from cache.integrity import ChunkFault
from cache.ledger import BadRow
from cache.spec import number_ranges
from cache.storage.paths import StoragePath
from stages.errors import InputError
from stages.extract.config import ExtractConfig


@dataclass
class ShardResult:
    """What a worker did for one shard: rows computed, reused and bad, and seconds of work."""

    shard: int
    computed: int = 0
    reused: int = 0
    read_s: float = 0.0
    compute_s: float = 0.0
    write_s: float = 0.0
    bad: list[BadRow] = field(default_factory=list)


@dataclass(frozen=True)
class ExtractResult:
    """What a run did.

    Attributes
    ----------
    rows : int
        Rows of the requested shards.
    done : int
        Of these, rows that were in the store before.
    computed, reused : int
        Rows put through the backbone, and rows copied from an older store of the same recipe.
    bad : tuple of BadRow
        Rows tried in this run that could not be computed, with the reason.
    images_per_s : float
        Rows computed per second of the run; 0 if there were none.
    read_s, compute_s, write_s : float
        Seconds of work of the readers (summed over threads), the backbone and the writer.
    missing_rows : int
        Rows of the whole store that are still to do, in other shards.
    device : str
        Where the backbone ran; "" if nothing was left to do.
    damaged : tuple of ChunkFault
        Faults of the chunks that were done again.
    """

    rows: int
    done: int
    computed: int
    reused: int
    bad: tuple[BadRow, ...]
    seconds: float
    images_per_s: float
    read_s: float
    compute_s: float
    write_s: float
    missing_rows: int
    device: str
    damaged: tuple[ChunkFault, ...]
    described: tuple[str, ...]

    @classmethod
    def of_shards(
        cls,
        shards: Sequence[ShardResult],
        *,
        rows: int,
        missing_rows: int,
        seconds: float,
        device: str,
        damaged: tuple[ChunkFault, ...],
        described: tuple[str, ...],
    ) -> ExtractResult:
        """Return the result of a run from those of its shards."""
        computed, reused = sum(item.computed for item in shards), sum(item.reused for item in shards)
        bad = sorted((row for item in shards for row in item.bad), key=lambda row: row.row)
        return cls(
            rows=rows,
            done=rows - computed - reused - len(bad),
            computed=computed,
            reused=reused,
            bad=tuple(bad),
            seconds=seconds,
            images_per_s=computed / seconds if computed else 0.0,
            read_s=sum(item.read_s for item in shards),
            compute_s=sum(item.compute_s for item in shards),
            write_s=sum(item.write_s for item in shards),
            missing_rows=missing_rows,
            device=device,
            damaged=damaged,
            described=described,
        )

    def facts(self) -> list[tuple[str, object]]:
        """Return what to print about the run, in reading order."""
        facts: list[tuple[str, object]] = [
            ("rows", self.rows),
            ("done before", self.done),
            ("computed", self.computed),
            ("reused", self.reused),
            ("bad", len(self.bad)),
            ("missing in other shards", self.missing_rows),
        ]
        if self.device:
            facts.append(("device", self.device))
        if self.damaged:
            chunks = number_ranges(sorted({fault.chunk for fault in self.damaged}))
            facts.append(("damaged chunks done again", f"{chunks} ({self.damaged[0].what})"))
        if self.described:
            facts.append(("zarr.json written again", ", ".join(self.described)))
        if self.computed:
            facts += [
                ("images per second", round(self.images_per_s, 1)),
                (
                    "reading / computing / writing",
                    f"{self.read_s:.1f} / {self.compute_s:.1f} / {self.write_s:.1f} s",
                ),
            ]
        facts.append(("seconds", round(self.seconds, 1)))
        return facts + [(f"bad: {item.key}", item.reason) for item in self.bad[:5]]


def too_many_bad(bad: Sequence[BadRow], config: ExtractConfig, store: StoragePath) -> InputError:
    """Return the error that names the first bad images and says how to continue."""
    first = "; ".join(f"{item.key}: {item.reason}" for item in bad[:5])
    return InputError(
        f"{len(bad)} images or more of the {store.stem} are bad ({first}), above extract.max_bad_fraction "
        f"{config.max_bad_fraction}: `pipeline status --bad` lists them; fix the images or raise the limit, "
        "then run `pipeline extract` again"
    )
