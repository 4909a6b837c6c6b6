"""`sequence`: what a walk brings, and what it may not look at."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cache.reader import FeatureReader
from stages.eval.stage import EvalInputs, run
from stages.index.manifest import Manifest
from tests.support.training_city import (
    CELL_M,
    CONFIG,
    CONFIG_EVAL,
    FUSION,
    build_city,
    write_rows,
    write_store,
)

SIDE, WALK, NOISE = 6, 100, 3.0
WHOLE = replace(CONFIG_EVAL, score="fused", sequence="whole", speed_m_s=2.0)


@pytest.fixture(scope="module")
def city(tmp_path_factory):
    """A city whose photos look alike, so that a query alone is often placed wrongly."""
    city = build_city(tmp_path_factory.mktemp("walks") / "city", side=SIDE, noise=NOISE)
    city.train(replace(CONFIG, initial_weights="data", max_steps=60), fusion=FUSION)
    return city


@pytest.fixture(scope="module")
def walk(city):
    """Features, positions and times of a walk through neighbouring cells."""
    random = np.random.default_rng(1)
    database = FeatureReader.open(city.folder / "database.zarr")
    features, positions = (
        database.read(0, database.rows),
        Manifest.open(city.folder / "database.parquet").positions(),
    )
    here, rows = positions[0], []
    for _ in range(WALK):
        near = np.flatnonzero(np.linalg.norm(positions - here, axis=1) < 1.5 * CELL_M)
        rows.append(int(random.choice(near)))
        here = positions[rows[-1]]
    seconds = np.arange(WALK) * CELL_M / 2.0
    noisy = features[rows] + random.normal(size=(WALK, features.shape[1])) * NOISE
    return (
        noisy.astype(np.float16),
        positions[rows],
        [f"2025-12-09T10:{s // 60:02.0f}:{s % 60:02.0f}" for s in seconds],
    )


def evaluate(city, folder, features, positions, timestamps, config=WHOLE):
    """Return metrics and the first positions of `sequence`."""
    folder.mkdir(exist_ok=True)
    write_store(folder / "queries.zarr", features)
    write_rows(folder / "queries.parquet", positions, timestamps)
    files = {"features": folder / "queries.zarr", "manifest": folder / "queries.parquet"}
    files |= {name: folder / name for name in ("metrics", "details", "timings", "predictions", "curve")}
    run(EvalInputs(config, **{**city.outputs(), **files}))
    table = pq.read_table(folder / "predictions")
    placed = np.stack([table["sequence_east"], table["sequence_north"]], axis=1)
    return json.loads((folder / "details").read_text()), placed


def test_a_walk_is_placed_better_than_its_photos(city, walk, tmp_path):
    whole, _ = evaluate(city, tmp_path / "whole", *walk)
    past, _ = evaluate(city, tmp_path / "past", *walk, replace(WHOLE, sequence="past"))
    alone = whole["classify"]["LR@1"]
    assert past["sequence"]["LR@1"] >= alone + 5
    assert whole["sequence"]["LR@1"] >= alone + 10


def test_positions_of_the_queries_are_not_used(city, walk, tmp_path):
    features, positions, timestamps = walk
    _, placed = evaluate(city, tmp_path / "true", features, positions, timestamps)
    _, again = evaluate(city, tmp_path / "elsewhere", features, positions[::-1].copy(), timestamps)
    np.testing.assert_array_equal(placed, again)


def test_past_does_not_look_ahead(city, walk, tmp_path):
    config = replace(WHOLE, sequence="past")
    _, placed = evaluate(city, tmp_path / "all", *walk, config)
    half = tuple(part[: WALK // 2] for part in walk)
    _, first = evaluate(city, tmp_path / "half", *half, config)
    np.testing.assert_allclose(placed[: WALK // 2], first)


def test_photos_without_a_time_are_placed_alone(city, walk, tmp_path):
    features, positions, timestamps = walk
    metrics, _ = evaluate(city, tmp_path / "untimed", features, positions, ["2025-12-09"] * len(timestamps))
    assert abs(metrics["sequence"]["LR@1"] - metrics["classify"]["LR@1"]) <= 5


def test_none_adds_no_localiser(city):
    result = run(EvalInputs(replace(CONFIG_EVAL, score="fused"), **city.outputs()))
    assert "sequence" not in result.details()


def test_figures_of_each_session_and_the_look_ahead(city, walk, tmp_path):
    from stages.index.manifest_writer import write_manifest

    features, positions, timestamps = walk
    evaluate(city, tmp_path, features, positions, timestamps)
    table = pq.read_table(tmp_path / "queries.parquet")
    names = np.where(np.arange(WALK) < 30, "first", "second")
    batch = table.append_column("session", pa.array(names)).to_batches()[0]
    write_manifest(tmp_path / "named.parquet", [batch], root=tmp_path, zone="10S", source="csv")
    files = {"features": tmp_path / "queries.zarr", "manifest": tmp_path / "named.parquet"}
    result = run(EvalInputs(WHOLE, **{**city.outputs(), **files}))
    details = result.details()
    counts = {name: block["queries"] for name, block in details["sessions"].items()}
    assert counts == {"first": 30, "second": 70}
    right = [block["queries"] * block["sequence"]["LR@1"] for block in details["sessions"].values()]
    assert sum(right) / WALK == pytest.approx(details["sequence"]["LR@1"], abs=0.01)
    # A photo every CELL_M / 2 seconds: the first of the longer walk looks at all 69 that follow.
    assert details["sequence"]["look_ahead_photos"] == 69
    assert details["sequence"]["look_ahead_s"] == pytest.approx(69 * CELL_M / 2, abs=1)
    past = run(EvalInputs(replace(WHOLE, sequence="past"), **{**city.outputs(), **files}))
    assert past.details()["sequence"]["look_ahead_photos"] == 0
