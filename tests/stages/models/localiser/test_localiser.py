import json
import os
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode

from stages.errors import InputError
from stages.models.heads.heads import HeadSettings
from stages.models.localiser import embedded
from stages.models.localiser import scoring as module
from stages.models.localiser.calibration import Calibration
from stages.models.localiser.confidence import PRIOR
from stages.models.localiser.localiser import Localiser
from stages.models.localiser.predict import predict
from stages.models.localiser.scoring import best_scores
from stages.models.localiser.topk import best_columns, merge_groups
from tests.support.training_city import RECIPE, build_city, partition

SETTINGS = HeadSettings("aamc", 100.0, 0.2, False)


def make(positions=None, groups_per_side=2, settings=SETTINGS, least=1):
    positions = np.random.default_rng(0).uniform(0, 100, (200, 2)) if positions is None else positions
    table, _ = partition(positions, groups_per_side, least=least)
    torch.manual_seed(0)
    return Localiser.new(table, RECIPE, ("cls", "avg"), 6, settings)


def features(rows=40):
    return np.random.default_rng(1).normal(size=(rows, 24)).astype(np.float16)


def plain_scores(localiser, rows, score):
    """Equations 4.16 and 4.18 in float64, class by class."""
    weight = localiser.projection.weight.detach().double().numpy()
    out = np.zeros((len(rows), len(localiser.classes)))
    for i, h in enumerate(rows.astype(np.float64)):
        z = weight @ h
        z /= np.linalg.norm(z)
        for group, head in enumerate(localiser.heads):
            w = head.prototypes.detach().double().numpy()
            cosine = np.array([p @ z / np.linalg.norm(p) for p in w])
            logits = head.settings.scale * cosine
            p = np.exp(logits - logits.max())
            out[i, localiser.classes.group_slice(group)] = cosine if score == "cosine" else p / p.sum()
    return out


@pytest.mark.parametrize("score", ["softmax", "cosine"])
def test_scores_are_those_of_the_equations(score):
    # A scale of 3 keeps float64 probabilities apart, so that the plain ranking is exact.
    localiser = make(settings=HeadSettings("aamc", 3.0, 0.2, False))
    expected = plain_scores(localiser, features(), score)
    found = predict(localiser, features(), top=20, score=score)
    np.testing.assert_allclose(found.score, -np.sort(-expected, axis=1)[:, :20], atol=1e-5)
    np.testing.assert_allclose(np.take_along_axis(expected, found.class_id, 1), found.score, atol=1e-5)
    np.testing.assert_array_equal(found.positions, localiser.classes.centres[found.class_id])
    assert all(len(set(row)) == 20 for row in found.class_id)


@pytest.mark.parametrize("score", ["softmax", "cosine"])
def test_blocks_change_nothing(score, monkeypatch):
    localiser = make()
    whole = predict(localiser, features(), top=5, score=score)
    monkeypatch.setattr(module, "_SCORES_IN_MEMORY", 32)
    pieces = predict(localiser, features(), top=5, score=score)
    np.testing.assert_array_equal(whole.class_id, pieces.class_id)
    np.testing.assert_allclose(whole.score, pieces.score, atol=1e-5)


@pytest.mark.parametrize("columns", [1, 64, 1000, 4097])
@pytest.mark.parametrize("top", [1, 7, 70])
def test_best_columns_are_the_best(columns, top):
    scores = torch.randn(5, columns, generator=torch.Generator().manual_seed(columns))
    value, column = best_columns(scores, top)
    assert torch.equal(value, scores.topk(min(top, columns), dim=1).values)
    assert torch.equal(scores.gather(1, column), value)


def test_best_columns_among_equal_and_infinite_scores():
    scores = torch.full((2, 640), -torch.inf)
    scores[0, 639], scores[0, 3] = 1.0, 1.0
    value, column = best_columns(scores, 3)
    assert set(column[0, :2].tolist()) == {3, 639}
    assert value[0].tolist() == [1.0, 1.0, -torch.inf]
    assert all(len(set(row)) == 3 for row in column.tolist())


def test_merging_keeps_the_order_of_groups_and_pads():
    first = (torch.tensor([[2.0, 1.0]]), torch.tensor([[10, 11]]))
    second = (torch.tensor([[2.0]]), torch.tensor([[20]]))
    value, ids = merge_groups([first, second], 4)
    assert ids.tolist() == [[10, 20, 11, -1]]
    assert value.tolist() == [[2.0, 2.0, 1.0, -torch.inf]]


def test_fewer_classes_than_asked_for():
    localiser = make(np.array([[5.0, 5.0], [5.0, 45.0]]))
    found = predict(localiser, features(3), top=4, score="cosine")
    assert (found.class_id[:, 2:] == -1).all()
    assert np.isneginf(found.score[:, 2:]).all()
    assert np.isnan(found.positions[:, 2:]).all()
    assert len(predict(localiser, features(0), top=4, score="softmax").class_id) == 0


def test_a_group_of_one_class_does_not_win_every_query():
    localiser = make(np.array([[5.0, 5.0], [5.0, 45.0], [25.0, 25.0]]))
    found = predict(localiser, features(), top=3, score="softmax")
    assert (localiser.classes.group[found.class_id[:, 2]] == 3).all()


@pytest.mark.parametrize("rows", [np.zeros((2, 5)), np.full((2, 24), np.nan), np.zeros(24)])
def test_features_of_wrong_shape_or_not_finite_are_rejected(rows):
    with pytest.raises(InputError):
        predict(make(), rows, top=1, score="cosine")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_no_answer_is_given_with_a_feature_that_is_not_finite(monkeypatch, bad, dtype):
    localiser, rows = make(), features().astype(dtype)
    monkeypatch.setattr(module, "_SCORES_IN_MEMORY", 256)
    monkeypatch.setattr(embedded, "_VALUES_CHECKED", 50)
    plain = Calibration((0.1,) * 4, 0.0, PRIOR, 0, None, None)
    largest = np.full_like(rows, np.finfo(dtype).max / 2)
    predict(localiser, largest, top=1, score="cosine")  # however large, it is finite
    rows[-1, -1] = bad
    with pytest.raises(InputError, match="not finite"):
        predict(localiser, rows, top=1, score="cosine")
    with pytest.raises(InputError, match="not finite"):
        best_scores(localiser, rows, 1, "calibrated", plain)
    with pytest.raises(InputError, match="not finite"):
        predict(localiser, torch.from_numpy(rows), top=1, score="softmax")


def test_a_threshold_of_an_older_familiarity_is_not_used():
    localiser = make()
    localiser.meta["familiarity_threshold"] = 9.0  # also of the angle of centred features
    assert localiser.familiarity_threshold is None
    localiser.meta["least_familiarity"] = 0.5
    assert localiser.familiarity_threshold == 0.5


class Largest(TorchDispatchMode):
    """Notes how many bytes the largest tensor has that is made, of others than those given."""

    def __init__(self, given):
        super().__init__()
        self.given, self.bytes = given.untyped_storage().data_ptr(), 0

    def __torch_dispatch__(self, call, types, args=(), kwargs=None):
        made = call(*args, **(kwargs or {}))
        for value in made if isinstance(made, tuple | list) else [made]:
            if isinstance(value, torch.Tensor) and value.untyped_storage().data_ptr() != self.given:
                self.bytes = max(self.bytes, value.nbytes)
        return made


def test_checking_for_finite_features_takes_little_memory():
    long = torch.ones(50, 1 << 18, dtype=torch.float16)
    with Largest(long) as largest:
        embedded.require_finite(long)
    assert largest.bytes < long.nbytes


def test_features_pass_by_block_by_block():
    many = torch.from_numpy(np.resize(features(), (100_000, 24)))
    with Largest(many) as largest:
        predict(make(), many, top=1, score="cosine")
    assert largest.bytes < many.nbytes / 2


def test_saved_and_loaded_predicts_the_same(tmp_path):
    localiser = make()
    localiser.projection.shift.fill_(0.5)
    localiser.save(tmp_path / "localiser")
    localiser.save(tmp_path / "localiser")  # over the old one
    loaded = Localiser.load(tmp_path / "localiser")
    for score in ("softmax", "cosine"):
        ours, theirs = (predict(x, features(), top=7, score=score) for x in (localiser, loaded))
        np.testing.assert_array_equal(ours.class_id, theirs.class_id)
        np.testing.assert_array_equal(ours.score, theirs.score)
    assert loaded.recipe == RECIPE
    assert loaded.inputs == ("cls", "avg")
    meta = json.loads((tmp_path / "localiser" / "meta.json").read_text())
    assert meta["cell_m"] == 20
    assert meta["head"]["kind"] == "aamc"
    assert [path.name for path in tmp_path.iterdir()] == ["localiser"]


def without_digest(folder):
    """Make a localiser like those of earlier versions, whose files can be edited."""
    meta = json.loads((folder / "meta.json").read_text())
    del meta["digest"]
    (folder / "meta.json").write_text(json.dumps({**meta, "format": 2}))


def flip(path, where):
    content = bytearray(path.read_bytes())
    content[where % len(content)] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["meta.json", "localiser.safetensors", "classes.parquet"])
def test_a_flipped_bit_anywhere_is_noticed(tmp_path, name):
    make().save(tmp_path / "a")
    path = tmp_path / "a" / name
    size = path.stat().st_size
    for where in range(0, size, max(1, size // 40)):
        if path.read_bytes()[where : where + 1].isspace():  # means the same to JSON
            continue
        flip(path, where)
        with pytest.raises(InputError, match=r"damaged|format|not readable"):
            Localiser.load(tmp_path / "a")
        flip(path, where)
    Localiser.load(tmp_path / "a")


def test_swapped_tensors_and_nan_do_not_answer(tmp_path):
    make().save(tmp_path / "a")
    path = tmp_path / "a" / "localiser.safetensors"
    tensors = load_file(path)
    first, second = "projection.shift", "projection.gain"
    save_file(tensors | {first: tensors[second].clone(), second: tensors[first].clone()}, path)
    with pytest.raises(InputError, match="damaged"):
        Localiser.load(tmp_path / "a")
    without_digest(tmp_path / "a")
    tensors[first][0] = float("nan")
    save_file(tensors, path)
    with pytest.raises(InputError, match=r"projection\.shift is not finite"):
        Localiser.load(tmp_path / "a")


def test_a_diverged_localiser_is_not_written(tmp_path):
    localiser = make()
    localiser.save(tmp_path / "a")
    localiser.projection.shift.fill_(float("inf"))
    with pytest.raises(InputError, match=r"lower train\.learning_rate"):
        localiser.save(tmp_path / "a")
    Localiser.load(tmp_path / "a")


@pytest.mark.parametrize("content", ["null", "[" * 100_000, '{"format": 3', "\xff", '{"format": 2}'])
def test_a_torn_meta_json_is_one_error(tmp_path, content):
    make().save(tmp_path / "a")
    (tmp_path / "a" / "meta.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match="damaged"):
        Localiser.load(tmp_path / "a")


def test_files_are_readable_by_others(tmp_path):
    before = os.umask(0o022)
    try:
        make().save(tmp_path / "a")
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "a").iterdir()} == {0o644}


def test_a_kill_between_two_renames_keeps_the_localiser(tmp_path):
    make().save(tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "a.old")
    (tmp_path / "a.partial").mkdir()
    Localiser.load(tmp_path / "a")
    make(groups_per_side=1).save(tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_load_names_the_fault(tmp_path):
    with pytest.raises(InputError, match="train-heads"):
        Localiser.load(tmp_path)
    make().save(tmp_path / "a")
    (tmp_path / "a" / "localiser.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match="damaged"):
        Localiser.load(tmp_path / "a")
    make().save(tmp_path / "a")
    make(groups_per_side=1).save(tmp_path / "b")
    shutil.copy(tmp_path / "a" / "localiser.safetensors", tmp_path / "b")
    without_digest(tmp_path / "b")
    with pytest.raises(InputError, match="fit"):
        Localiser.load(tmp_path / "b")
    (tmp_path / "a" / "meta.json").write_text('{"format": 0}')
    with pytest.raises(InputError, match="format"):
        Localiser.load(tmp_path / "a")


def test_city_helper_agrees_with_itself(tmp_path):
    city = build_city(tmp_path)
    assert (np.bincount(city.labels) == city.classes.images).all()
