"""Files of a small made-up city for the tests of training and evaluation: no images, no backbone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from cache.recipe import Recipe
from cache.row_identity import RowIdentities, row_ids
from cache.spec import StoreSpec
from cache.store import create_or_open
from cache.writer import ChunkWriter
from stages.eval.config import EvalConfig, HybridConfig
from stages.index.manifest_writer import write_manifest
from stages.models.aggregators.config import AggregatorSettings
from stages.models.localiser.cell_fusion import FusionConfig
from stages.partition.classes import ClassTable
from stages.partition.grid import cells, centres, group_of
from stages.partition.views import ViewPlan
from stages.train.config import TrainConfig, ValidationConfig
from stages.train.inputs import TrainInputs
from stages.train.stage import run

CELL_M = 20.0
OUTPUTS = {"cls": 8, "avg": 16}
RECIPE = Recipe("toy", "random", "0" * 64, 56, {"resize": 64}, OUTPUTS, "float16", "float32")

VALIDATION = ValidationConfig(
    share=0.0, max_images=1000, times=5, patience=5, refit=False, score="cosine", radius_m=25.0
)
CONFIG = TrainConfig(
    inputs="all",
    tail=False,
    aggregator=AggregatorSettings(kind="pooled", clusters=4, channels=8, global_length=4),
    embedding_dim=16,
    head="aamc",
    scale=30.0,
    margin=0.2,
    easy_margin=False,
    margin_power=0.0,
    class_weight_beta=0.0,
    logit_adjustment=0.0,
    initial_weights="random",
    standardise=True,
    sampling="class",
    schedule="rotate",
    turn="step",
    class_sampling=1.0,
    augment_views=True,
    mix_views=False,
    feature_noise=0.0,
    exemplars=4,
    epochs=12.0,
    max_steps=400,
    batch_size=32,
    learning_rate_tail=1e-3,
    learning_rate_projection=1e-2,
    learning_rate_heads=3e-2,
    weight_decay=0.0,
    precision="auto",
    compile=False,
    residency="auto",
    stream_rows=128,
    checkpoint_s=60.0,
    validation=VALIDATION,
)
FUSION = FusionConfig(
    candidates=16, edge_m=5.0, covered=0.7, temperature=0.1, likeness=8.0, abstain_cost=0.02
)
CONFIG_EVAL = EvalConfig(
    localisers=("classify",),
    score="softmax",
    radius_m=25.0,
    top=(1, 5, 10, 20),
    query_fraction=1.0,
    bootstrap=100,
    seed=0,
    fusion=FUSION,
    space="projected",
    hybrid=HybridConfig(cells=4, neighbours=1, photos=32, temperature=0.05, prior_weight=1.0),
    sequence="none",
    speed_m_s=1.4,
    crops=1,
)


def write_store(path, features, recipe=RECIPE, bad=(), names=None):
    spec = StoreSpec(len(features), recipe.outputs, recipe.dtype, 64)
    names = names or [f"{row}.jpg" for row in range(len(features))]
    writer = ChunkWriter(create_or_open(path, spec, recipe, RowIdentities.of(row_ids(names))))
    for chunk in range(spec.chunks):
        rows = spec.chunk_slice(chunk)
        arrays, column = {}, 0
        for name, length in recipe.outputs.items():
            arrays[name] = features[rows, column : column + length]
            column += length
        writer.write(chunk, arrays, {row: "broken" for row in bad if rows.start <= row < rows.stop})


def write_rows(path, positions, timestamps, zone="10S", headings=None, skipped=0):
    batch = pa.record_batch(
        {
            "key": pa.array([f"{row}.jpg" for row in range(len(positions))]),
            "utm_east": positions[:, 0].copy(),
            "utm_north": positions[:, 1].copy(),
            "heading": pa.array(
                np.full(len(positions), np.nan) if headings is None else headings, pa.float32()
            ),
            "timestamp": pa.array(timestamps),
        }
    )
    write_manifest(path, [batch], root=Path("/nowhere"), zone=zone, source="csv", skipped=lambda: skipped)


@dataclass
class City:
    """Paths of one city's files, under the names of the stages' inputs."""

    folder: Path
    classes: ClassTable
    labels: np.ndarray
    plan: ViewPlan

    def inputs(self):
        return {
            "partition": self.folder / "partition",
            "features": self.folder / "database.zarr",
            "views": self.folder / "views.zarr",
            "manifest": self.folder / "database.parquet",
            "output": self.folder / "localiser",
        }

    def train_inputs(self, config, **changes):
        """What a training of the city is given; `changes` replace single inputs."""
        return TrainInputs(**{**self.inputs(), "config": config, "seed": 0, **changes})

    def train(self, config, *, progress=None, report=None, **changes):
        """Train a localiser on the city and return the result."""
        return run(self.train_inputs(config, **changes), progress=progress, report=report)

    def outputs(self):
        return {
            "localiser": self.folder / "localiser",
            "features": self.folder / "queries.zarr",
            "manifest": self.folder / "queries.parquet",
            "metrics": self.folder / "metrics.json",
            "details": self.folder / "details.json",
            "timings": self.folder / "timings.json",
            "predictions": self.folder / "predictions.parquet",
            "curve": self.folder / "lr_curve.csv",
        }


def build_city(folder, *, side=6, images=360, noise=0.6, bad=(), bad_queries=(), seed=0, groups_per_side=2):
    """A square of side x side cells, each with its own look; class sizes fall off like a tail."""
    random = np.random.default_rng(seed)
    looks = random.normal(size=(side * side, sum(OUTPUTS.values()))) * 2 + 3
    weight = 1 / np.arange(1, side * side + 1)
    cell = np.concatenate(
        [np.arange(side * side).repeat(3), random.choice(side * side, images, p=weight / weight.sum())]
    )

    def draw(where, days):
        corner = np.stack([where // side, where % side], axis=1) * CELL_M + 500_000
        positions = corner + random.uniform(0, CELL_M, corner.shape)
        features = looks[where] + random.normal(size=(len(where), looks.shape[1])) * noise
        stamps = [f"2025-12-{day:02}T10:00:00" for day in random.integers(1, 1 + days, len(where))]
        return positions, features, stamps

    positions, features, stamps = draw(cell, 4)
    table, labels = partition(positions, groups_per_side)
    counts = np.where(table.images[labels] <= 8, 2, 0)
    counts[random.random(len(counts)) < 0.3] = 0
    plan = ViewPlan.of_counts(counts)
    views = features[plan.row] + random.normal(size=(len(plan), looks.shape[1])) * noise
    (folder / "partition").mkdir(parents=True)
    table.save(folder / "partition" / "classes.parquet")
    np.save(folder / "partition" / "labels.npy", labels)
    plan.save(folder / "partition" / "views.parquet")
    write_rows(folder / "database.parquet", positions, stamps)
    write_store(folder / "database.zarr", features, bad=bad)
    names = [f"{row}.jpg#{view}" for row, view in zip(plan.row, plan.view, strict=True)]
    write_store(folder / "views.zarr", views, replace(RECIPE, augment={"seed": 0}), names=names)
    positions, features, stamps = draw(random.integers(side * side, size=100), 1)
    write_rows(folder / "queries.parquet", positions, stamps)
    write_store(folder / "queries.zarr", features, bad=bad_queries)
    return City(folder, table, labels, plan)


def partition(positions, groups_per_side=2, cell_m=CELL_M, least=1):
    """Classes and labels straight from the equations, independent of the partition stage."""
    unique, inverse, counts = np.unique(
        cells(positions, cell_m), axis=0, return_inverse=True, return_counts=True
    )
    group = group_of(unique, groups_per_side)
    order = [i for i in np.lexsort((unique[:, 1], unique[:, 0], group)) if counts[i] >= least]
    rank = np.full(len(unique), -1)
    rank[order] = np.arange(len(order))
    unique, group, counts = unique[order], group[order], counts[order]
    index = np.arange(len(order)) - np.searchsorted(group, group)
    tail = np.quantile(counts, 0.5)
    table = ClassTable(
        group=group.astype(np.int32),
        index=index.astype(np.int32),
        p=unique[:, 0],
        q=unique[:, 1],
        centres=centres(unique, cell_m),
        images=counts.astype(np.int64),
        bucket=np.where(counts <= tail, "tail", np.where(counts > np.quantile(counts, 0.9), "head", "mid")),
        p_aug=np.clip(0.5 * tail / counts, 0, 0.5).astype(np.float32),
        cell_m=cell_m,
        groups_per_side=groups_per_side,
        zone="10S",
    )
    return table, rank[inverse.ravel()].astype(np.int32)
