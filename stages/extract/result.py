"""What came out of stage one: of a shard, of a run, and the error when too much was unreadable."""

from __future__ import annotations

from dataclasses import dataclass, field

from cache.integrity import ChunkFault
from cache.ledger import BadRow
from cache.spec import number_ranges
from cache.storage.paths import StoragePath
from stages.errors import InputError
from stages.extract.config import ExtractConfig


@dataclass
class ShardResult:
    """What a worker did for one shard.

    Attributes
    ----------
    shard : int
        Number of the shard.
    computed, reused : int
        Rows put through the backbone, and rows copied from older stores.
    read_s, compute_s, write_s : float
        Seconds of work of the readers (summed over threads), the backbone and the writer.
    bad : list of BadRow
        Rows that could not be computed.
    """

    shard: int
    computed: int = 0
    reused: int = 0
    read_s: float = 0.0
    compute_s: float = 0.0
    write_s: float = 0.0
    bad: list[BadRow] = field(default_factory=list)


@dataclass(frozen=True)
class ExtractResult:
    """What a run of stage one did.

    Attributes
    ----------
    rows : int
        Rows of the shards asked for.
    done : int
        Of these, rows that were in the store before.
    computed, reused : int
        Rows put through the backbone, and rows copied from a store of the same recipe.
    bad : tuple of BadRow
        Rows tried in this run that could not be computed, with the reason.
    seconds : float
        Duration of the run.
    images_per_s : float
        Rows computed per second of the run; 0 if there were none.
    read_s, compute_s, write_s : float
        Seconds of work of the readers (summed over threads), the backbone and the writer.
    missing_rows : int
        Rows of the whole store that are still to do, in other shards.
    device : str
        Where the backbone ran.
    damaged : tuple of ChunkFault
        What was wrong with chunks that were therefore done again.
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

    def facts(self) -> list[tuple[str, object]]:
        """Return what a person wants to know of the run, in reading order."""
        facts: list[tuple[str, object]] = [
            ("rows", self.rows),
            ("done before", self.done),
            ("computed", self.computed),
            ("reused", self.reused),
            ("bad", len(self.bad)),
            ("missing in other shards", self.missing_rows),
            ("device", self.device),
        ]
        if self.damaged:
            chunks = number_ranges(sorted({fault.chunk for fault in self.damaged}))
            facts.append(("damaged chunks done again", f"{chunks} ({self.damaged[0].what})"))
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


def too_many_bad(bad: list[BadRow], config: ExtractConfig, store: StoragePath) -> InputError:
    """Return the error that says which images are bad and what to do."""
    first = "; ".join(f"{item.key}: {item.reason}" for item in bad[:5])
    return InputError(
        f"{len(bad)} images or more of the {store.stem} are bad ({first}), above extract.max_bad_fraction "
        f"{config.max_bad_fraction}: `pipeline status --bad` lists them; mend the images or raise it, "
        "then run `pipeline extract` again"
    )
