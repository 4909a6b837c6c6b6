import csv
import json
import tracemalloc
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cache.errors import RecipeMismatch, StoreError
from cache.reader import FeatureReader
from stages.errors import ConfigError, InputError
from stages.eval.queries import Queries
from stages.eval.stage import EvalInputs, run
from stages.index.manifest import Manifest
from stages.index.manifest_writer import write_manifest
from stages.models.heads.heads import HeadSettings
from stages.models.localiser.localiser import Localiser
from stages.models.localiser.recall import errors_m, recall_percent
from tests.support.training_city import (
    CONFIG,
    CONFIG_EVAL,
    FUSION,
    RECIPE,
    build_city,
    write_rows,
    write_store,
)

ALL = replace(CONFIG_EVAL, localisers=("classify", "retrieve", "hybrid"), score="fused")
BAD = (3, 90)


@pytest.fixture(scope="module")
def city(tmp_path_factory):
    city = build_city(tmp_path_factory.mktemp("eval") / "city", bad_queries=BAD)
    validation = replace(CONFIG.validation, share=0.2, refit=True)
    config = replace(CONFIG, initial_weights="data", max_steps=40, validation=validation)
    city.train(config, fusion=FUSION)
    return city


def database(city):
    return {"database": city.folder / "database.zarr", "database_manifest": city.folder / "database.parquet"}


def test_queries_are_embedded_once(city, monkeypatch):
    passed, embed = [], Localiser.embed
    monkeypatch.setattr(Localiser, "embed", lambda self, rows: passed.append(len(rows)) or embed(self, rows))
    run(EvalInputs(replace(ALL, sequence="whole"), **city.outputs(), **database(city)))
    queries, photos = (FeatureReader.open(city.folder / f"{split}.zarr") for split in ("queries", "database"))
    assert passed[0] == queries.valid.sum()  # for classify, retrieve, hybrid, sequence and all scores
    assert sum(passed[1:]) == photos.rows + photos.valid.sum()  # for retrieve and the index of hybrid


def test_recall_by_hand():
    truth = np.array([[0.0, 0.0], [0.0, 0.0], [100.0, 0.0], [0.0, 0.0]])
    predicted = np.array(
        [
            [[0, 25], [0, 0], [0, 0]],  # exactly 25 m: right at once
            [[0, 25.01], [60, 0], [3, 4]],  # right at the third
            [[0, 0], [90, 0], [np.nan, np.nan]],  # right at the second, no third
            [[np.nan, np.nan]] * 3,  # no answer at all
        ]
    )
    errors = errors_m(predicted, truth)
    assert errors[1, 2] == 5
    assert np.isinf(errors[3]).all()
    assert recall_percent(errors, 25.0, (1, 2, 3, 9)) == {1: 25.0, 2: 50.0, 3: 75.0, 9: 75.0}
    assert recall_percent(errors[:0], 25.0, (1,)) == {1: 0.0}


@pytest.mark.parametrize("score", ["softmax", "cosine"])
def test_files_agree_with_each_other(city, score):
    result = run(EvalInputs(replace(CONFIG_EVAL, score=score), **city.outputs()))
    rows = pq.read_table(city.folder / "predictions.parquet")
    numbers = json.loads((city.folder / "details.json").read_text())["classify"]
    curve = list(csv.DictReader((city.folder / "lr_curve.csv").read_text().splitlines()))
    assert rows.num_rows == result.queries == numbers["queries"] == 100
    assert rows["key"].to_pylist()[:2] == ["0.jpg", "1.jpg"]
    for top in CONFIG_EVAL.top:
        share = 100 * np.mean(rows[f"correct@{top}"].to_numpy())
        assert numbers[f"LR@{top}"] == pytest.approx(share)
        assert result.recall[top] == pytest.approx(share)
        assert float(curve[top - 1]["classify"]) == pytest.approx(share)
    assert [row["n"] for row in curve] == [str(n) for n in range(1, 21)]
    truth = np.stack([rows["utm_east"], rows["utm_north"]], 1)
    answer = np.stack([rows["predicted_east"], rows["predicted_north"]], 1)
    error = np.linalg.norm(truth - answer, axis=1)
    sound = np.setdiff1d(np.arange(100), BAD)
    np.testing.assert_allclose(rows["error_m"].to_numpy()[sound], error[sound])
    np.testing.assert_array_equal(rows["correct@1"].to_numpy()[sound], error[sound] <= 25)
    assert result.median_error_m == pytest.approx(np.median(error[sound]))
    first = np.array([ids[0] for ids in rows["class_ids"].to_pylist()])
    np.testing.assert_array_equal(city.classes.centres[first[sound]], answer[sound])


def test_unreadable_queries_count_as_not_localised(city):
    result = run(EvalInputs(CONFIG_EVAL, **city.outputs()))
    rows = pq.read_table(city.folder / "predictions.parquet")
    assert result.unreadable == 2
    assert result.recall[20] <= 98
    for row in BAD:
        assert np.isinf(rows["error_m"][row].as_py())
        assert not rows["correct@20"][row].as_py()
        assert set(rows["class_ids"][row].as_py()) == {-1}


def test_chance_and_ceiling(city):
    result = run(EvalInputs(CONFIG_EVAL, **city.outputs()))
    rows = pq.read_table(city.folder / "predictions.parquet")
    truth = np.stack([rows["utm_east"], rows["utm_north"]], 1)
    near = np.linalg.norm(truth[:, None] - city.classes.centres[None], axis=2) <= 25
    assert result.reach.chance == pytest.approx(100 * near.mean())
    assert result.reach.near_cell == pytest.approx(100 * near.any(axis=1).mean())
    assert result.reach.ceiling == result.reach.near_cell


def test_metrics_say_what_was_resampled(city, tmp_path):
    run(EvalInputs(ALL, **city.outputs(), **database(city)))
    rows = pq.read_table(city.folder / "predictions.parquet")
    block = json.loads((city.folder / "details.json").read_text())["classify"]
    assert block["resampled"] == "burst"
    assert block["units"] == len(np.unique(rows["unit"])) < 100
    assert set(rows["cell"].to_pylist()) <= {"head", "mid", "tail", "none"}
    assert block["skipped_at_index"] == 0
    truth = np.stack([rows["utm_east"], rows["utm_north"]], 1)
    write_rows(tmp_path / "some.parquet", truth, [""] * 100, skipped=7)
    run(EvalInputs(ALL, **{**city.outputs(), "manifest": tmp_path / "some.parquet"}, **database(city)))
    block = json.loads((city.folder / "details.json").read_text())["classify"]
    assert block["skipped_at_index"] == 7


def test_confidence_holds_only_for_its_own_radius(city):
    fitted = run(EvalInputs(ALL, **city.outputs(), **database(city))).confidence
    assert "left out" not in fitted
    other = replace(ALL, radius_m=10.0)
    assert run(EvalInputs(other, **city.outputs(), **database(city))).confidence == {
        "left out": "fitted for radius_m 25 and not 10: make train.validation.radius_m equal to "
        "eval.radius_m and run `pipeline train-heads` again"
    }
    rows = pq.read_table(city.folder / "predictions.parquet")
    sound = np.setdiff1d(np.arange(100), BAD)
    assert np.isnan(rows["confidence"].to_numpy()[sound]).all()
    assert not rows["abstain"].to_numpy(zero_copy_only=False)[sound].any()
    other = replace(ALL, fusion=replace(FUSION, edge_m=8.0))
    assert (
        "edge_m 5 and not 8"
        in run(EvalInputs(other, **city.outputs(), **database(city))).confidence["left out"]
    )
    same = replace(ALL, fusion=replace(FUSION, covered=0.5, abstain_cost=0.1))
    assert run(EvalInputs(same, **city.outputs(), **database(city))).confidence == fitted


def test_random_weights_are_noted(city):
    result = run(EvalInputs(CONFIG_EVAL, **city.outputs()))
    assert result.weights == "random"
    assert "untrained" in dict(result.facts())["note"]


def test_queries_that_do_not_match_are_rejected(city, tmp_path):
    features = np.zeros((100, 24))
    write_store(tmp_path / "other.zarr", features, replace(RECIPE, image_size=98))
    with pytest.raises(RecipeMismatch, match="image_size"):
        run(EvalInputs(CONFIG_EVAL, **{**city.outputs(), "features": tmp_path / "other.zarr"}))
    write_store(tmp_path / "short.zarr", features[:5])
    with pytest.raises(InputError, match="5 rows"):
        run(EvalInputs(CONFIG_EVAL, **{**city.outputs(), "features": tmp_path / "short.zarr"}))
    write_rows(tmp_path / "zone.parquet", np.zeros((100, 2)), [""] * 100, zone="36R")
    with pytest.raises(InputError, match="36R"):
        run(EvalInputs(CONFIG_EVAL, **{**city.outputs(), "manifest": tmp_path / "zone.parquet"}))
    write_rows(tmp_path / "unknown.parquet", np.zeros((100, 2)), [""] * 100, zone="")
    with pytest.raises(InputError, match="in an unknown zone: add a column zone"):
        run(EvalInputs(CONFIG_EVAL, **{**city.outputs(), "manifest": tmp_path / "unknown.parquet"}))
    write_store(tmp_path / "part.zarr", features)
    next((tmp_path / "part.zarr" / "ledger").glob("*.json")).unlink()
    with pytest.raises(StoreError, match="pipeline extract"):
        run(EvalInputs(CONFIG_EVAL, **{**city.outputs(), "features": tmp_path / "part.zarr"}))


def test_three_localisers_side_by_side(city):
    result = run(EvalInputs(ALL, **city.outputs(), **database(city)))
    numbers = json.loads((city.folder / "details.json").read_text())
    times = json.loads((city.folder / "timings.json").read_text())
    rows = pq.read_table(city.folder / "predictions.parquet")
    for name, column in (
        ("classify", "error_m"),
        ("retrieve", "retrieve_error_m"),
        ("hybrid", "hybrid_error_m"),
    ):
        block = numbers[name]
        right = rows[column].to_numpy() <= 25
        assert block["LR@1"] == pytest.approx(100 * right.mean())
        assert block["LR@1 low"] <= block["LR@1"] <= block["LR@1 high"]
        assert block["LR@1"] > 5 * result.reach.chance
        assert times[name]["ms_per_query"] > 0
    assert numbers["hybrid"]["index_bytes"] > numbers["classify"]["index_bytes"] > 0
    assert set(numbers) == {"classify", "retrieve", "hybrid", "scores", "confidence", "breakdown"}
    flat = [value for block in numbers.values() for value in block.values()]
    assert all(value is None or isinstance(value, int | float | str) for value in flat)


def test_metrics_are_few_and_without_times(city):
    result = run(EvalInputs(ALL, **city.outputs(), **database(city)))
    metrics = json.loads((city.folder / "metrics.json").read_text())
    details = json.loads((city.folder / "details.json").read_text())
    first = details["classify"]
    assert metrics == {
        "LR@1": first["LR@1"],
        "LR@5": first["LR@5"],
        "median_m": first["median_error_m"],
        "ECE": details["confidence"]["ECE"],
        "ceiling": first["ceiling"],
        "retrieve": {"LR@1": details["retrieve"]["LR@1"]},
        "hybrid": {"LR@1": details["hybrid"]["LR@1"]},
    }
    assert not [name for block in details.values() for name in block if "ms" in name]
    unknown = replace(result, confidence={}, blocks={"classify": result.blocks["classify"]})
    assert set(unknown.metrics()) == {"LR@1", "LR@5", "median_m", "ceiling"}


def test_another_evaluation_changes_no_tracked_byte(city):
    files = [city.folder / name for name in ("metrics.json", "details.json", "predictions.parquet")]
    inputs = EvalInputs(ALL, **city.outputs(), **database(city))
    run(inputs)
    before = [file.read_bytes() for file in files]
    run(inputs)
    assert [file.read_bytes() for file in files] == before


def test_breakdown_adds_up(city):
    numbers = run(EvalInputs(ALL, **city.outputs(), **database(city))).details()
    for prefix in ("cell", "centre"):
        names = [name[: -len(" queries")] for name in numbers["breakdown"] if name.endswith("queries")]
        mine = [name for name in names if name.startswith(prefix)]
        counts = [numbers["breakdown"][f"{name} queries"] for name in mine]
        shares = [numbers["breakdown"][f"{name} LR@1"] for name in mine]
        assert sum(counts) == 100
        assert np.dot(counts, shares) / 100 == pytest.approx(numbers["classify"]["LR@1"], abs=0.01)


def test_a_share_of_the_queries_is_drawn_by_the_seed(city):
    def keys(seed):
        run(EvalInputs(replace(CONFIG_EVAL, query_fraction=0.2, seed=seed), **city.outputs()))
        return pq.read_table(city.folder / "predictions.parquet")["key"].to_pylist()

    assert len(keys(0)) == 20
    assert keys(0) == keys(0) != keys(1)


def test_features_of_queries_are_in_memory_once(city, tmp_path):
    recipe = replace(RECIPE, outputs={"cls": 8, "avg": 4096})
    features = np.random.default_rng(0).normal(size=(1000, 4104)).astype(np.float16)
    write_store(tmp_path / "queries.zarr", features, recipe, bad=BAD)
    write_rows(tmp_path / "queries.parquet", np.zeros((1000, 2)), [""] * 1000)
    settings = HeadSettings("aamc", 30.0, 0.2, False)
    localiser = Localiser.new(city.classes, recipe, ("avg", "cls"), 4, settings)
    reader = FeatureReader.open(tmp_path / "queries.zarr")
    manifest = Manifest.open(tmp_path / "queries.parquet")
    some = replace(CONFIG_EVAL, query_fraction=0.9)
    Queries.load([reader], manifest, localiser, None, some)  # what is looked up once
    tracemalloc.start()
    queries = Queries.load([reader], manifest, localiser, None, some)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    sound = np.setdiff1d(queries.rows, BAD)
    assert 890 <= len(sound) < 900 == len(queries.rows)
    np.testing.assert_array_equal(queries.embedded.features, np.roll(features, -8, axis=1)[sound])
    assert peak < 1.5 * queries.embedded.features.nbytes


def test_answers_have_a_confidence(city):
    result = run(EvalInputs(ALL, **city.outputs(), **database(city)))
    rows = pq.read_table(city.folder / "predictions.parquet")
    for name in ("confidence", "retrieve_confidence", "hybrid_confidence"):
        confidence = rows[name].to_numpy()
        assert ((confidence >= 0) & (confidence <= 1)).all()
        assert len(np.unique(confidence)) > 20
        assert confidence[list(BAD)].tolist() == [0, 0]
    for name in ("retrieve", "hybrid"):
        assert 0 <= result.blocks[name].numbers()["ECE"] < 100 > result.blocks[name].numbers()["mean"] > 0
    assert rows["abstain"].to_numpy(zero_copy_only=False)[list(BAD)].all()


def test_photos_in_frozen_space_have_no_confidence(city):
    frozen = replace(ALL, space="frozen")
    result = run(EvalInputs(frozen, **city.outputs(), **database(city)))
    assert "ECE" not in result.blocks["retrieve"].numbers() | result.blocks["hybrid"].numbers()
    assert "ECE" in result.confidence


def test_retrieval_without_a_database_is_rejected(city):
    with pytest.raises(InputError, match="retrieve needs the database"):
        run(EvalInputs(ALL, **city.outputs()))


def test_outside_queries_get_lower_confidence(city, tmp_path):
    random = np.random.default_rng(5)
    features = random.normal(size=(60, 24)) * 2 + 3  # looks of no place
    write_store(tmp_path / "away.zarr", features)
    write_rows(tmp_path / "away.parquet", random.uniform(0, 50, (60, 2)) + 600_000, [""] * 60)
    localiser = Localiser.load(city.folder / "localiser")
    localiser.meta["calibration"]["confidence"].update(slope=1.0, offset=0.0)  # the share of the evidence
    localiser.save(tmp_path / "localiser")
    outputs = {**city.outputs(), "localiser": tmp_path / "localiser"}
    inside = run(EvalInputs(ALL, **outputs, **database(city))).confidence["mean"]
    away = {**outputs, "features": tmp_path / "away.zarr", "manifest": tmp_path / "away.parquet"}
    outside = run(EvalInputs(ALL, **away, **database(city))).confidence
    assert outside["outside queries"] == 60
    assert outside["mean"] < inside - 20


@pytest.mark.parametrize("change", [{"radius_m": 0.0}, {"top": ()}, {"top": (0, 1)}, {"query_fraction": 0.0}])
def test_invalid_settings_are_rejected(change):
    with pytest.raises(ConfigError, match=f"eval.{next(iter(change))}"):
        replace(CONFIG_EVAL, **change)


def test_metrics_of_each_query_set(city, tmp_path):
    table = pq.read_table(city.folder / "queries.parquet")
    names = np.where(np.arange(100) % 4 == 1, "v2", "v1")
    batch = table.append_column("query_set", pa.array(names)).to_batches()[0]
    write_manifest(tmp_path / "sets.parquet", [batch], root=tmp_path, zone="10S", source="csv")
    outputs = {**city.outputs(), "manifest": tmp_path / "sets.parquet"}
    run(EvalInputs(ALL, **outputs, **database(city)))
    rows = pq.read_table(city.folder / "predictions.parquet")
    details = json.loads((city.folder / "details.json").read_text())
    headline = json.loads((city.folder / "metrics.json").read_text())
    assert list(details["sets"]) == ["v1", "v2"]
    for name, count in {"v1": 75, "v2": 25}.items():
        block, chosen = details["sets"][name], names == name
        right = 100 * (rows["error_m"].to_numpy()[chosen] <= 25).mean()
        assert block["queries"] == count
        assert block["unreadable"] == (2 if name == "v1" else 0)
        assert block["classify"]["LR@1"] == pytest.approx(right, abs=1e-3)
        assert block["classify"]["LR@1 low"] < right <= block["classify"]["LR@1 high"]
        assert headline[name] == {"LR@1": block["classify"]["LR@1"], "hybrid LR@1": block["hybrid"]["LR@1"]}
        assert set(block) == {"queries", "unreadable", "resampled", "units", "classify", "retrieve", "hybrid"}
    run(EvalInputs(ALL, **city.outputs(), **database(city)))
    assert "sets" not in json.loads((city.folder / "details.json").read_text())
