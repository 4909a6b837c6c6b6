"""Where batches come from: schedules, parts of a store, residency, sampled classes."""

import zlib
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from cache.errors import StoreError
from cache.recipe import Recipe
from cache.spec import StoreSpec
from stages.errors import ConfigError, InputError
from stages.models.aggregators.config import AggregatorSettings
from stages.models.backbones.card import describe_backbone
from stages.models.heads.margin_loss import Buffers
from stages.models.localiser.localiser import Localiser
from stages.models.localiser.predict import predict
from stages.models.trainable_blocks import TrainableBlocks, TrainableBlocksSettings
from stages.train import training_pass as passes
from stages.train.data import load as reading
from stages.train.data.feed import open_feed
from stages.train.data.load import load_rows
from stages.train.data.residency import choose_residency, step_bytes
from stages.train.data.samplers import ClassImages, GroupSampler
from stages.train.data.schedule import Schedule
from stages.train.data.streaming import PartOrder
from stages.train.init.pca import moments, store_moments
from stages.train.loop.optimiser import BETAS, EPSILON, DenseAdam, SampledAdam
from stages.train.prepare import open_files, open_source
from tests.support.training_city import CONFIG, VALIDATION, build_city, write_store

CPU = torch.device("cpu")


def source_of(city, config=CONFIG, rows=None):
    inputs = city.train_inputs(config)
    files = open_files(inputs)
    usable = (files.labels >= 0) & files.reader.valid
    return open_source(files, usable if rows is None else usable & rows)


def test_rotation_by_step_and_by_epoch_and_joint():
    groups, images = (0, 2, 3), (10, 25, 5)

    def order(kind, turn):
        schedule = Schedule(kind, turn, groups, images, 10)
        return [schedule.at(step) for step in range(1, 9)], schedule.steps(2.0)

    assert order("rotate", "step") == ([(0,), (2,), (3,), (0,), (2,), (3,), (0,), (2,)], 8)
    assert order("rotate", "epoch") == ([(0,), (2,), (2,), (2,), (3,), (0,), (2,), (2,)], 8)
    assert order("joint", "step") == ([groups] * 8, 3)
    assert Schedule("rotate", "epoch", (), (), 10).at(1) == ()
    assert Schedule("joint", "step", (), (), 10).steps(5.0) == 0


@pytest.mark.parametrize(("blocks", "per_part", "steps"), [(10, 3, 40), (7, 7, 5), (5, 1, 5), (9, 2, 11)])
def test_every_epoch_brings_every_block_into_memory_once(blocks, per_part, steps):
    order = PartOrder(blocks, per_part, steps, seed=3)
    seen = []
    for epoch in range(3):
        parts = [order.part_of(epoch * steps + step) for step in range(1, steps + 1)]
        assert parts == sorted(parts)
        counts = np.unique(parts, return_counts=True)[1]
        assert len(counts) == order.parts_per_epoch
        assert counts.max() - counts.min() <= 1
        drawn = [block for part in dict.fromkeys(parts) for block in order.blocks_of(part)]
        assert sorted(drawn) == list(range(blocks))
        seen.append(drawn)
    assert seen[0] != seen[1] or per_part == blocks
    assert order.blocks_of(0) == PartOrder(blocks, per_part, steps, seed=3).blocks_of(0)


def part_of(outputs, rows, views=0, dtype="float16"):
    """Rows of a part, and their bytes with views, of a store with params.yaml's `stream_rows`."""
    spec = StoreSpec.for_rows(rows, outputs, dtype)
    blocks = [(start, min(rows, start + spec.chunk_rows)) for start in range(0, rows, spec.chunk_rows)]
    reader = SimpleNamespace(chunk_rows=spec.chunk_rows, blocks=lambda: blocks)
    stored = (rows + views) * spec.row_bytes
    source = SimpleNamespace(reader=reader, inputs=tuple(outputs), stored_bytes=stored)
    config = replace(CONFIG, stream_rows=262_144)
    with open_feed(config, source, None, None, (0,), rows, 0) as feed:
        part = feed.order.blocks_per_part * spec.chunk_rows
    return part, part * spec.row_bytes * (1 + views / rows), spec.chunk_rows


@pytest.mark.parametrize("outputs", [{"avg": 384}, {"cls": 1536, "avg": 1536}, {"a": 1536, "b": 3072}])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_part_of_pooled_features_has_the_configured_rows(outputs, dtype):
    assert part_of(outputs, 2_000_000, views=1_000_000, dtype=dtype)[0] == 262_144


@pytest.mark.parametrize(("length", "views"), [(257 * 384, 0), (257 * 384, 150_000), (257 * 768, 0)])
def test_a_part_of_long_rows_is_bounded_by_its_bytes(length, views):
    _, size, _ = part_of({"avg": 384, "cut10": length}, 300_000, views)
    assert 1.9 * 2**30 < size <= 2**31
    rows, _, chunk_rows = part_of({"cut10": 1 << 31}, 100)
    assert rows == chunk_rows == 1


def test_parts_do_not_depend_on_the_classes_of_a_process(tmp_path):
    source = source_of(build_city(tmp_path / "city"))
    some = source.of_classes(np.arange(len(source.labels)) < 3)
    row_bytes = 2 * source.reader.length(source.inputs)
    assert some.bytes < source.bytes <= source.stored_bytes == some.stored_bytes
    assert source.stored_bytes == (source.reader.rows + source.view_reader.rows) * row_bytes


def test_parts_hold_the_rows_and_views_of_their_blocks(tmp_path):
    city = build_city(tmp_path / "city", bad=[3, 70])
    source = source_of(city)
    whole = source.read([(0, source.reader.rows)], CPU)
    ranges = list(source.reader.blocks())
    part = source.read([ranges[2], ranges[0]], CPU)
    place = np.cumsum(source.rows) - 1
    rows = [row for start, stop in (ranges[0], ranges[2]) for row in range(start, stop) if source.rows[row]]
    assert 3 not in rows
    assert torch.equal(part.features, whole.features[place[rows]])
    assert part.classes.tolist() == city.labels[rows].tolist()
    for image, row in enumerate(rows):
        mine = part.views[torch.from_numpy(part.view_images == image)]
        assert torch.equal(mine, whole.views[torch.from_numpy(whole.view_images == place[row])])
    assert len(whole.view_images) == source.views > 0


def test_dask_finds_the_moments_of_the_whole_store(tmp_path):
    source = source_of(build_city(tmp_path / "city", bad=[3, 70]))
    resident = source.read([(0, source.reader.rows)], CPU)
    for ours, plain in zip(store_moments(source), moments(resident.blocks()), strict=True):
        torch.testing.assert_close(ours, plain)
    features = resident.features.double()
    torch.testing.assert_close(store_moments(source)[0].double(), features.mean(0), rtol=1e-5, atol=1e-5)
    deviation = features.std(0, correction=0)
    torch.testing.assert_close(store_moments(source)[1].double(), deviation, rtol=1e-5, atol=1e-5)


def test_streaming_learns_as_residency_does(tmp_path):
    city = build_city(tmp_path / "city")
    config = replace(CONFIG, initial_weights="data", epochs=4.0, stream_rows=64)
    results = {}
    for place in ("device", "stream"):
        results[place] = city.train(replace(config, residency=place))
        localiser = Localiser.load(city.folder / "localiser")
        results[place, "right"] = accuracy(localiser, source_of(city))
    assert results["stream"].residency.startswith("stream: ")
    assert results["stream"].steps == results["device"].steps
    assert results["stream", "right"] > results["device", "right"] - 0.05 > 0.8


def accuracy(localiser, source):
    data = source.read([(0, source.reader.rows)], CPU)
    found = predict(localiser, data.features, top=1, score="cosine").class_id[:, 0]
    return (found == data.classes).mean()


def test_residency_is_the_fastest_place_that_fits():
    def place(wanted, size, device, host, name="cuda"):
        return choose_residency(wanted, size, 100, torch.device(name), (device, host))

    assert place("auto", 600, 1400, 5000).place == "device"
    assert place("auto", 800, 1400, 5000).place == "host"
    assert place("auto", 4000, 1400, 5000).place == "stream"
    assert place("auto", 4000, 5000, 5000, "cpu").place == "stream"
    assert "do not fit cuda" in place("auto", 800, 1400, 5000).reason
    assert place("stream", 1, 1400, 5000).place == "stream"
    with pytest.raises(ConfigError, match="embedding_dim"):
        place("auto", 1, 399, 5000)


def test_a_tail_needs_room_for_held_out_images_and_activations():
    def place(size, device, beside, name="cuda"):
        return choose_residency("auto", size, 100, torch.device(name), (device, 5000), beside_bytes=beside)

    assert place(600, 1400, 0).place == "device"
    assert place(600, 1400, 100).place == "device"
    assert place(600, 1400, 101).place == "host"
    assert place(600, 1400, 101, "cpu").place == "stream"
    assert "beside" in place(600, 1400, 101).reason


@pytest.mark.parametrize(
    ("backbone", "size", "blocks", "kind"),
    [("dinov2_vits14", 56, 10, "salad"), ("efficientnet_lite0", 64, 5, "netvlad")],
)
def test_step_bytes_cover_the_activations_autograd_keeps(backbone, size, blocks, kind):
    settings = AggregatorSettings(kind=kind, clusters=4, channels=8, global_length=4)
    tail = TrainableBlocks.empty(TrainableBlocksSettings(backbone, size, blocks, ("avg",), settings))
    with torch.no_grad():
        for value in tail.state_dict().values():
            value.fill_(0.01)
    weights = {value.untyped_storage().data_ptr() for value in tail.state_dict().values()}
    kept = {}

    def keep(value):
        kept[value.untyped_storage().data_ptr()] = value.untyped_storage()
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        tail(torch.randn(24, tail.split.length))
    size = sum(storage.nbytes() for at, storage in kept.items() if at not in weights)
    assert size < step_bytes(tail, 24) < 3 * size
    assert step_bytes(tail, 48) == 2 * step_bytes(tail, 24)


def test_residency_counts_what_a_tail_has_beside_the_features(tmp_path, monkeypatch):
    city = build_city(tmp_path / "city")
    weights_id = describe_backbone("efficientnet_lite0", weights="random", image_size=32).weights_id
    outputs = {"avg": 16, "cut7": 320}
    recipe = Recipe("efficientnet_lite0", "random", weights_id, 32, {}, outputs, "float16", "float32")
    features = np.random.default_rng(0).normal(size=(len(city.labels), 336))
    (city.folder / "database.zarr").rename(city.folder / "plain.zarr")
    write_store(city.folder / "database.zarr", features, recipe)
    asked, free, choose = [], [10**12, 10**12], passes.choose_residency
    monkeypatch.setattr("stages.train.data.residency.free_bytes", lambda device: tuple(free))
    monkeypatch.setattr(
        passes,
        "choose_residency",
        lambda *given, **more: asked.append((given, more)) or choose(*given, **more),
    )
    validation = replace(VALIDATION, share=0.5, times=1)
    config = replace(CONFIG, tail=True, augment_views=False, max_steps=1, exemplars=0, validation=validation)
    first = city.train(config, weights="random")
    assert first.residency.startswith("device: ")
    (_, feature_bytes, weight_bytes, _), beside = asked[0]
    assert feature_bytes == first.images * 336 * 2
    step = step_bytes(Localiser.load(city.folder / "localiser").tail, config.batch_size)
    assert beside["beside_bytes"] == first.held_out * 336 * 2 + step > step > 0
    # Room for the features, and for all but the last of what lies beside them.
    free[:] = [int(4 * weight_bytes + (feature_bytes + beside["beside_bytes"] - 2) / 0.7)] * 2
    second = city.train(config, weights="random")
    assert second.residency.startswith("stream: ")
    assert np.isfinite(second.loss)


def test_heads_larger_than_memory_are_rejected(tmp_path, monkeypatch):
    city = build_city(tmp_path / "city")
    monkeypatch.setattr("stages.train.data.residency.free_bytes", lambda device: (1000, 1000))
    with pytest.raises(ConfigError, match=r"heads need.*torchrun"):
        city.train(CONFIG)


def test_a_softmax_over_a_share_of_the_classes():
    classes = np.arange(200).repeat(3)
    roster = ClassImages(classes, 260, np.zeros(260), np.zeros(0, np.int64))
    options = {"sampling": "class", "augment": False, "class_sampling": 0.25, "seed": (1,)}
    sampler = GroupSampler(roster, slice(40, 260), **options)
    times = np.zeros(260)
    for step in range(400):
        batch = sampler.draw(step, 4)
        assert (np.diff(batch.sampled_classes) > 0).all()
        assert np.isin(batch.image_classes, batch.sampled_classes).all()
        times[np.setdiff1d(batch.sampled_classes, batch.image_classes)] += 1
    assert not times[:40].any()
    assert times[40:200].mean() == pytest.approx(0.25 * 400 * (1 - 4 / 160), rel=0.05)
    assert times[200:].mean() == pytest.approx(0.25 * 400, rel=0.1)  # classes without images face the others
    assert np.abs(times[200:] - 100).max() < 5 * np.sqrt(400 * 0.25 * 0.75)
    whole = GroupSampler(roster, slice(40, 260), **{**options, "class_sampling": 1.0}).draw(0, 4)
    assert whole.sampled_classes is None


def test_sampled_classes_learn_as_well(tmp_path):
    city = build_city(tmp_path / "city")
    config = replace(CONFIG, initial_weights="data", class_sampling=0.1)
    city.train(config)
    assert accuracy(Localiser.load(city.folder / "localiser"), source_of(city)) > 0.85


def test_sampled_adam_is_adam_for_the_rows_it_touches():
    torch.manual_seed(0)
    start = torch.randn(6, 4)
    sampled, dense = nn.Parameter(start.clone()), nn.Parameter(start[[1, 4]].clone())
    ours, plain = SampledAdam(sampled, 0.1, 0.01), DenseAdam(dense, 0.1, 0.01)
    rows = torch.tensor([1, 4])
    for _ in range(5):
        gradient = torch.randn(2, 4)
        ours.step(rows, sampled.detach()[rows], gradient)
        plain.step(gradient)
    torch.testing.assert_close(sampled[rows], dense)
    assert torch.equal(sampled[[0, 2, 3, 5]], start[[0, 2, 3, 5]])
    assert ours.tensors()["count"].flatten().tolist() == [0, 5, 0, 0, 5, 0]
    assert (BETAS, EPSILON) == ((0.9, 0.999), 1e-8)


def test_a_feature_that_is_not_finite_is_named(tmp_path):
    city = build_city(tmp_path / "city")
    source = source_of(city)
    store = source.reader.store
    store.array("avg")[130, 3] = np.nan
    with pytest.raises(StoreError, match=r"chunk 2 of .* is damaged \(avg: bytes changed"):
        source.read([(0, source.reader.rows)], torch.device("cpu"))
    rows = store.spec.chunk_slice(2)
    checksums = {name: zlib.crc32(store.array(name)[rows].tobytes()) for name in store.spec.outputs}
    store.ledger.mark(2, checksums, ())
    source = source_of(city)
    with pytest.raises(StoreError, match="row 128"):
        city.train(CONFIG)
    wanted = np.ones(source.reader.rows, np.bool_)
    wanted[130] = False
    assert load_rows(source.reader, wanted, ("avg",), CPU).isfinite().all()


def test_a_part_read_again_is_the_same_and_not_checked_again(tmp_path, monkeypatch):
    city = build_city(tmp_path / "city", bad=[3, 70])
    source = source_of(city, rows=np.arange(len(city.labels)) % 5 != 2)
    asked, ask = [], reading._require_finite
    monkeypatch.setattr(reading, "_require_finite", lambda *given: (asked.append(given[2]), ask(*given)))
    ranges, buffers = list(source.reader.blocks()), Buffers()
    first = source.read(ranges, CPU, buffers)
    copies = first.features.clone(), first.views.clone()
    count = len(asked)
    source.read(ranges[:1], CPU, buffers)
    again = source.read(ranges, CPU, buffers)
    assert len(asked) == count > len(ranges)
    assert torch.equal(again.features, copies[0])
    assert torch.equal(again.views, copies[1])
    plain = torch.from_numpy(source.reader.read(0, source.reader.rows)[source.rows])
    assert torch.equal(again.features, plain)


def test_training_that_diverges_is_an_error(tmp_path):
    city = build_city(tmp_path / "city")
    with pytest.raises(InputError, match="learning_rate"):
        city.train(replace(CONFIG, learning_rate_projection=1e38, epochs=2.0))


def test_classes_of_one_image_are_trained(tmp_path):
    city = build_city(tmp_path / "city", images=0)
    keep = np.unique(city.labels, return_index=True)[1]
    single = np.full_like(city.labels, -1)
    single[keep] = city.labels[keep]
    np.save(city.folder / "partition" / "labels.npy", single)
    result = city.train(CONFIG)
    assert result.images == len(city.classes)
    assert np.isfinite(result.loss)
    held = replace(CONFIG, validation=replace(CONFIG.validation, share=0.5))
    assert city.train(held).held_out == 0  # never all of a class


@pytest.mark.parametrize(
    "change", [{"class_sampling": 0.0}, {"class_sampling": 1.5}, {"stream_rows": 0}, {"checkpoint_s": -1.0}]
)
def test_config_rejects(change):
    with pytest.raises(ConfigError, match=f"train.{next(iter(change))}"):
        replace(CONFIG, **change)


@pytest.mark.parametrize(
    "changes",
    [
        {"schedule": "joint"},
        {"turn": "epoch"},
        {"precision": "bfloat16"},
        {"initial_weights": "whitened", "learning_rate_heads": 3e-2},
    ],
    ids=str,
)
def test_every_way_of_training_learns(tmp_path, changes):
    city = build_city(tmp_path / "city")
    city.train(replace(CONFIG, **changes))
    assert accuracy(Localiser.load(city.folder / "localiser"), source_of(city)) > 0.85
