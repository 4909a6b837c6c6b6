import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from cache.errors import StoreError
from stages.errors import ConfigError, InputError
from stages.eval.stage import EvalInputs
from stages.eval.stage import run as evaluate
from stages.models.heads.margin_loss_compiled import _pieces
from stages.partition.views import ViewPlan
from stages.train.data.holdout import visit_numbers
from stages.train.data.samplers import GroupSampler
from stages.train.loop import trainer
from stages.train.loop.validation import Validation
from tests.support.training_city import CONFIG, CONFIG_EVAL, VALIDATION, build_city, write_rows

EVAL = dataclasses.replace(CONFIG_EVAL, score="cosine", bootstrap=0)


@pytest.fixture(autouse=True)
def _one_thread():
    """More only get into each other's way at this size."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def city(tmp_path):
    return build_city(tmp_path / "city")


def configured(**changes):
    validation = {key: changes.pop(key) for key in list(changes) if hasattr(VALIDATION, key)}
    return dataclasses.replace(CONFIG, validation=dataclasses.replace(VALIDATION, **validation), **changes)


def tensors(city):
    return load_file(city.folder / "localiser" / "localiser.safetensors")


def same(ours, theirs):
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"initial_weights": "data"},
        {"sampling": "image"},
        {"head": "lmcc"},
        {"head": "linear", "learning_rate_heads": 0.3},
        {"easy_margin": True},
        {"standardise": False, "augment_views": False},
        {"inputs": ("avg",), "residency": "host"},
        {"share": 0.1, "refit": True},
    ],
    ids=str,
)
def test_training_learns_the_city(city, changes):
    result = city.train(configured(**changes))
    found = evaluate(EvalInputs(EVAL, **city.outputs()))
    assert found.recall[1] > 80 > 20 > found.reach.chance
    assert result.projection == "trained"
    assert result.groups == (0, 1, 2, 3)
    assert result.classes == len(city.classes)
    assert sum(result.drawn.values()) <= result.samples
    assert (result.views > 0) == changes.get("augment_views", True)


def test_same_seed_same_bits(city):
    config, outcome = configured(share=0.1, refit=True, epochs=4.0), []
    for seed in (0, 0, 1):
        city.train(config, seed=seed)
        outcome.append((tensors(city), (city.folder / "localiser" / "meta.json").read_bytes()))
    assert same(outcome[0][0], outcome[1][0])
    assert outcome[0][1] == outcome[1][1]
    assert not same(outcome[0][0], outcome[2][0])


def test_compiled_training_gives_nearly_the_same(city, monkeypatch):
    """The compiler itself needs a minute and a C++ compiler: it is stood in for."""
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda piece, **_: compiled.append(piece) or piece)
    city.train(configured(epochs=4.0))
    plain = tensors(city)
    _pieces.cache_clear()
    city.train(configured(epochs=4.0, compile=True))
    _pieces.cache_clear()
    assert len(compiled) == 3
    for name, value in tensors(city).items():
        torch.testing.assert_close(value, plain[name], rtol=1e-2, atol=1e-3)


def test_training_leaves_the_global_generator_alone(city):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    city.train(configured(max_steps=2))
    assert torch.equal(before, torch.get_rng_state())


def test_masked_rows_never_enter(tmp_path, monkeypatch):
    city = build_city(tmp_path / "city")
    rare = int(np.argmin(city.classes.images))
    bad = [*np.flatnonzero(city.labels == rare).tolist(), 0, 70, 200]
    shutil.rmtree(tmp_path / "city")
    city = build_city(tmp_path / "city", bad=bad)
    drawn, draw = set(), GroupSampler.draw

    def spy(self, step, size):
        batch = draw(self, step, size)
        drawn.update(batch.image_classes.tolist())
        return batch

    monkeypatch.setattr(GroupSampler, "draw", spy)
    result = city.train(configured(initial_weights="data"))
    assert result.masked == len(set(bad))
    assert result.images == len(city.labels) - len(set(bad))
    assert np.isfinite(result.loss)
    assert drawn == set(range(len(city.classes))) - {rare}
    assert all(value.isfinite().all() for value in tensors(city).values())


def test_some_groups_leave_all_else_untouched(city):
    city.train(configured())
    before = tensors(city)
    result = city.train(configured(epochs=3.0), groups=(2, 1), seed=1)
    after = tensors(city)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"group.1.prototypes", "group.2.prototypes"}
    assert (result.projection, result.groups) == ("frozen", (1, 2))
    assert evaluate(EvalInputs(EVAL, **city.outputs())).recall[1] > 50


def test_some_groups_need_a_localiser_that_fits(city):
    with pytest.raises(ConfigError, match="train all groups first"):
        city.train(configured(), groups=(0,))
    city.train(configured(max_steps=1))
    with pytest.raises(ConfigError, match="embedding_dim"):
        city.train(configured(embedding_dim=8), groups=(0,))
    with pytest.raises(ConfigError, match="0 to 3"):
        city.train(configured(), groups=(4,))


def test_groups_of_no_and_of_one_class(tmp_path):
    city = build_city(tmp_path / "city", side=3, groups_per_side=3)  # nine groups of one class
    result = city.train(configured())
    assert (result.steps, result.samples) == (0, 0)
    city = build_city(tmp_path / "other", side=2, groups_per_side=3)  # and groups of none
    assert city.train(configured(initial_weights="data")).classes == 4
    assert evaluate(EvalInputs(EVAL, **city.outputs())).recall[1] > 50


def test_planned_views_must_be_there(city):
    shutil.rmtree(city.folder / "views.zarr")
    for views in (city.folder / "views.zarr", None):
        with pytest.raises(StoreError, match="pipeline extract --split views"):
            city.train(configured(), views=views)
    city.train(configured(augment_views=False, max_steps=1), views=None)
    ViewPlan.of_counts(np.zeros(len(city.labels), np.int64)).save(city.folder / "partition" / "views.parquet")
    assert city.train(configured(max_steps=1), views=None).views == 0


def test_unfit_inputs_are_named(city):
    with pytest.raises(ConfigError, match="gem"):
        city.train(configured(inputs=("gem",)))
    with pytest.raises(ConfigError, match="nonsense"):
        city.train(configured(), device="nonsense")
    next((city.folder / "database.zarr" / "ledger").glob("*.json")).unlink()
    with pytest.raises(StoreError, match="pipeline extract --split database"):
        city.train(configured())
    np.save(city.folder / "partition" / "labels.npy", city.labels[:-1])
    with pytest.raises(InputError, match="pipeline partition"):
        city.train(configured())


def test_progress_moves_between_lines_of_the_log(city, monkeypatch):
    monkeypatch.setattr(trainer, "PROGRESS_S", 0.0)
    steps = []
    result = city.train(configured(share=0.2, refit=False), progress=lambda done, _: steps.append(done))
    assert steps == list(range(1, result.steps + 1))


def test_log_and_meta_tell_what_happened(city):
    calls = []
    result = city.train(
        configured(share=0.2),
        seed=3,
        log=city.folder / "plots" / "training",
        progress=lambda done, total: calls.append((done, total)),
    )
    logged = {}
    for metric in ("loss", "samples_per_s", "validation_lr1"):
        lines = (city.folder / "plots" / "training" / f"{metric}.tsv").read_text().splitlines()
        assert lines[0] == f"step\t{metric}"
        logged[metric] = {int(step): float(value) for step, value in map(str.split, lines[1:])}
    loss, lr1 = logged["loss"], logged["validation_lr1"]
    assert list(lr1) == [0, *loss]  # before the first step there is no loss
    assert list(loss) == list(logged["samples_per_s"])
    assert max(loss) == result.steps
    assert loss[result.steps] < next(iter(loss.values()))
    assert lr1[result.kept_step] == pytest.approx(result.validation_lr1, abs=0.01)
    assert calls[-1][0] == result.steps
    assert result.held_out + result.images == len(city.labels)
    training = json.loads((city.folder / "localiser" / "meta.json").read_text())["training"]
    assert training["seed"] == 3
    assert training["kept_step"] == result.kept_step
    assert training["settings"]["margin"] == CONFIG.margin
    assert dict(result.facts())["held out"] == result.held_out


def test_the_latest_weights_within_a_standard_error_are_kept():
    validation = Validation(
        torch.zeros(100, 2), np.zeros((100, 2)), dataclasses.replace(VALIDATION, patience=3)
    )
    kept = [
        validation.keeps(percent, step) for step, percent in enumerate([50.0, 46.0, 60.0, 56.0, 54.0, 50.0])
    ]
    assert kept == [True, True, True, True, False, False]  # 60 % of 100 images is known to 4.9 %
    assert (validation.kept_step, validation.kept_percent, validation.best_percent) == (3, 56.0, 60.0)
    assert not validation.exhausted
    validation.keeps(40.0, 6)
    assert validation.exhausted


def test_weights_that_got_worse_are_dropped(city):
    # A rate so high that the first step spoils what the class means knew.
    wild = {"learning_rate_projection": 30.0, "learning_rate_heads": 30.0, "initial_weights": "data"}
    result = city.train(configured(share=0.2, patience=2, sampling="image", **wild))
    assert result.kept_step == 0
    assert result.steps < 100
    assert evaluate(EvalInputs(EVAL, **city.outputs())).recall[1] > 80


def test_visits_are_dates_and_else_positions(tmp_path):
    from stages.index.manifest import Manifest

    positions = np.array([[1.2, 1.0], [1.9, 1.1], [7.0, 1.0], [7.0, 1.0], [1.2, 1.0]])
    write_rows(
        tmp_path / "m.parquet", positions, ["2025-01-01T08:00", "2025-01-01T09:00", "2025-01-02", "", ""]
    )
    visits = visit_numbers(Manifest.open(tmp_path / "m.parquet"))
    assert visits[0] == visits[1]
    assert len(set(visits.tolist())) == 4


@pytest.mark.parametrize(
    "change", [{"scale": 0.0}, {"margin": 1.6}, {"epochs": 0.0}, {"inputs": ()}, {"weight_decay": -1.0}]
)
def test_config_rejects(change):
    with pytest.raises(ConfigError, match=f"train.{next(iter(change))}"):
        dataclasses.replace(CONFIG, **change)


@pytest.mark.parametrize(
    "change", [{"share": 1.0}, {"patience": 0}, {"times": 0}, {"radius_m": 0.0}, {"max_images": 0}]
)
def test_validation_config_rejects(change):
    with pytest.raises(ConfigError, match=r"train\.validation\."):
        dataclasses.replace(VALIDATION, **change)
