"""One split's extraction: from parameters and paths to the stage's call, here or on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from pipeline.cluster import connect, map_shards
from pipeline.params import Params
from pipeline.paths import Paths
from stages.classes import ViewPlan
from stages.extract.stage import ExtractResult, ShardOrder, ShardResult, run
from stages.manifest import Manifest

Progress = Callable[[int, int], None]


def extract_split(
    params: Params,
    paths: Paths,
    split: str,
    *,
    shards: Iterable[int],
    device: str,
    replace: bool,
    scheduler: str | None,
    progress: Progress,
) -> ExtractResult:
    """Return what extracting some shards of one split did; see `stages.extract.run`."""
    views = ViewPlan.load(paths.partition / "views.parquet") if split == "views" else None

    def on_cluster(
        work: Callable[[ShardOrder], ShardResult], orders: Sequence[ShardOrder]
    ) -> Iterable[ShardResult]:
        if not orders:
            return []
        with connect(scheduler or "") as client:
            return map_shards(work, orders, client, progress=progress)

    return run(
        params.extract,
        split=split,
        manifest=Manifest.open(paths.index("database" if split == "views" else split)),
        store=paths.features(split),
        shards=shards,
        views=views,
        augment=params.augment if split == "views" else None,
        seed=params.seed,
        device=device,
        progress=progress,
        replace=replace,
        mapper=on_cluster if scheduler else None,
    )
