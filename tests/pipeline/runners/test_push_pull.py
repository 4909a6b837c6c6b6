"""A localiser pushed to a folder, object storage and a stand-in for the hub, and pulled from there."""

from __future__ import annotations

import hashlib
import inspect
import json
import shutil
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub import HfApi, ModelCard
from PIL import Image

from cache.recipe import Recipe
from cache.storage.paths import storage_path
from pipeline.cli import main
from stages.models.backbones.card import describe_backbone
from stages.models.heads.heads import HeadSettings
from stages.models.localiser.localiser import Localiser
from tests.support.trained_project import build_project, evaluate_project
from tests.support.training_city import partition

FILES = ["README.md", "SHA256SUMS", "classes.parquet", "localiser.safetensors", "meta.json"]


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    return build_project(tmp_path_factory.mktemp("push"))


@pytest.fixture
def call(paths, capsys):
    """Run a command in the project; exit code and output."""

    def run(*arguments, project=paths.project):
        with pytest.raises(SystemExit) as stopped:
            main(("--project", str(project), *map(str, arguments)))
        printed = capsys.readouterr()
        return stopped.value.code or 0, " ".join((printed.out + printed.err).split())

    return run


class Hub:
    """Repositories in a folder, behind the methods of HfApi; calls must fit their signatures."""

    def __init__(self, folder):
        self.folder, self.calls = folder, []

    def _called(self, name, args, kwargs):
        given = inspect.signature(getattr(HfApi, name)).bind(None, *args, **kwargs).arguments
        del given["self"]
        self.calls.append((name, given))
        return given

    def create_repo(self, *args, **kwargs):
        given = self._called("create_repo", args, kwargs)
        (self.folder / given["repo_id"]).mkdir(parents=True, exist_ok=given["exist_ok"])

    def upload_folder(self, *args, **kwargs):
        given = self._called("upload_folder", args, kwargs)
        for pattern in given["delete_patterns"]:
            for file in (self.folder / given["repo_id"]).glob(pattern):
                file.unlink()
        shutil.copytree(given["folder_path"], self.folder / given["repo_id"], dirs_exist_ok=True)

    def snapshot_download(self, *args, **kwargs):
        given = self._called("snapshot_download", args, kwargs)
        repository = self.folder / given["repo_id"]
        if not repository.exists():
            raise FileNotFoundError("404 Client Error\nmore")
        for name in given["allow_patterns"]:
            if (repository / name).exists():
                shutil.copy(repository / name, given["local_dir"])


@pytest.fixture
def hub(tmp_path, monkeypatch):
    hub = Hub(tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    return hub


@pytest.fixture(params=["folder", "objects", "hub"])
def target(request, tmp_path, hub):
    """Each kind of target, and the path where its files lie."""
    if request.param == "folder":
        yield str(tmp_path / "shared" / "city"), storage_path(tmp_path / "shared" / "city")
    elif request.param == "hub":
        yield "hf://user/city", storage_path(tmp_path / "hub" / "user" / "city")
    else:
        place = storage_path(f"memory://{uuid4().hex}/city")
        yield str(place), place
        place.delete_store()


def same_files(first, second):
    return all((first / name).read_bytes() == (second / name).read_bytes() for name in FILES[2:])


def test_a_localiser_returns_from_every_target(paths, call, target, tmp_path):
    address, place = target
    code, output = call("push", address)
    assert code == 0, output
    assert "LR@1" in output
    assert sorted(place.sizes()) == FILES
    code, output = call("pull", address, tmp_path / "pulled")
    assert code == 0, output
    assert sorted(file.name for file in (tmp_path / "pulled").iterdir()) == FILES
    assert same_files(paths.localiser, tmp_path / "pulled")


def test_the_list_of_digests_is_that_of_sha256sum(paths, call, tmp_path):
    call("push", tmp_path / "out")
    lines = (tmp_path / "out" / "SHA256SUMS").read_text().splitlines()
    assert lines == [
        f"{hashlib.sha256((paths.localiser / name).read_bytes()).hexdigest()}  {name}"
        for name in ("meta.json", "localiser.safetensors", "classes.parquet")
    ]


@pytest.mark.parametrize("name", FILES[1:])
def test_a_changed_or_missing_file_is_not_pulled(call, target, tmp_path, name):
    address, place = target
    call("push", address)
    content = bytearray((place / name).read_bytes())
    content[len(content) // 2] ^= 1
    (place / name).write_bytes(bytes(content))
    code, output = call("pull", address, tmp_path / "in" / "pulled")
    assert code == 1
    assert "is damaged or was changed" in output
    assert not list((tmp_path / "in").iterdir())


def test_names_of_photos_are_pushed_only_on_request(paths, call, target, tmp_path):
    address, place = target
    assert Localiser.load(paths.localiser).exemplars.photos is not None
    assert call("push", address, "--photos")[0] == 0
    assert "exemplars.parquet" in place.sizes()
    assert b"File names and positions of these photos" in (place / "README.md").read_bytes()
    assert call("pull", address, tmp_path / "pulled")[0] == 0
    assert Localiser.load(tmp_path / "pulled").exemplars.photos is not None
    if address.startswith("hf://"):
        assert call("push", address)[0] == 0
        assert sorted(place.sizes()) == FILES
        assert b"no names or times of photos" in (place / "README.md").read_bytes()
        assert call("pull", address, tmp_path / "anew")[0] == 0
        assert Localiser.load(tmp_path / "anew").exemplars.photos is None


def test_an_edited_card_is_pulled(call, tmp_path):
    call("push", tmp_path / "out")
    (tmp_path / "out" / "README.md").write_text("edited")
    assert call("pull", tmp_path / "out", tmp_path / "pulled")[0] == 0
    assert (tmp_path / "pulled" / "README.md").read_text() == "edited"


def test_an_incomplete_target_is_named(call, target, tmp_path):
    address, place = target
    code, output = call("pull", address, tmp_path / "pulled")
    assert code == 1
    assert address in output
    call("push", address)
    if isinstance(place, Path):
        (place / "SHA256SUMS").unlink()
    else:
        place.fs.rm((place / "SHA256SUMS").key)
    code, output = call("pull", address, tmp_path / "pulled")
    assert code == 1
    assert "holds no complete localiser (SHA256SUMS is missing)" in output
    assert not (tmp_path / "pulled").exists()


def test_only_a_repository_is_pushed_to_twice(call, target):
    address, _ = target
    assert call("push", address)[0] == 0
    code, output = call("push", address)
    if address.startswith("hf://"):
        assert code == 0
    else:
        assert code == 1
        assert "exists: delete it, or name another folder" in output


def test_a_pull_overwrites_no_localiser(paths, call, tmp_path):
    call("push", tmp_path / "out")
    code, output = call("pull", tmp_path / "out")
    assert code == 1
    assert f"{paths.localiser} exists" in output
    assert call("pull", tmp_path / "out", project=tmp_path / "new")[0] == 0
    assert same_files(paths.localiser, tmp_path / "new" / "models" / "localiser")


def test_a_new_repository_is_private(call, hub):
    call("push", "hf://user/city@v1")
    (created, repository), (uploaded, commit) = hub.calls
    assert (created, uploaded) == ("create_repo", "upload_folder")
    assert repository == {"repo_id": "user/city", "private": True, "exist_ok": True}
    assert commit["revision"] == "v1"
    assert commit["commit_message"]


def test_a_version_of_a_repository_can_be_pulled(call, hub, tmp_path):
    call("push", "hf://user/city")
    assert call("pull", "hf://user/city@3f2a", tmp_path / "pulled")[0] == 0
    assert hub.calls[-1][1]["revision"] == "3f2a"


def test_errors_of_the_hub_name_the_way_out(call, hub, tmp_path):
    code, output = call("pull", "hf://user/none", tmp_path / "pulled")
    assert code == 1
    assert "hf://user/none cannot be reached (FileNotFoundError: 404 Client Error)" in output
    assert "hf auth login" in output
    code, output = call("pull", "hf://none", tmp_path / "pulled")
    assert code == 1
    assert "expected hf://user/name" in output


def test_nothing_is_pushed_of_a_damaged_localiser(paths, call, tmp_path):
    shutil.copytree(paths.localiser, tmp_path / "model")
    meta = json.loads((tmp_path / "model" / "meta.json").read_text())
    (tmp_path / "model" / "meta.json").write_text(json.dumps({**meta, "cell_m": 5.0}))
    code, output = call("push", tmp_path / "out", "--model", tmp_path / "model")
    assert code == 1
    assert "is damaged or was edited" in output
    assert not (tmp_path / "out").exists()


def card(folder):
    return ModelCard.load(folder / "README.md")


def test_the_card_has_the_front_matter_of_the_hub(call, tmp_path):
    call("push", tmp_path / "out", "--licence", "cc-by-4.0")
    data = card(tmp_path / "out").data
    assert data.license == "cc-by-4.0"
    assert data.library_name == "placecache"
    assert "visual-place-recognition" in data.tags
    code, output = call("push", tmp_path / "other", "--licence", "a: b")
    assert code == 1
    assert "expected an identifier of the hub" in output


def test_the_card_states_data_results_and_limits(paths, call, tmp_path):
    call("push", tmp_path / "out")
    text = card(tmp_path / "out").text
    details, trained = json.loads(paths.details.read_text()), Localiser.load(paths.localiser)
    for name in ("classify", "retrieve", "hybrid"):
        block = details[name]
        interval = f"({block['LR@1 low']:.1f}-{block['LR@1 high']:.1f})"
        assert f"| {name} | {block['LR@1']:.1f} {interval} |" in text
    assert f"percentage of {details['classify']['queries']} queries" in text
    assert "In brackets: the 95 % interval" in text
    assert f"| expected calibration error, percent | {details['confidence']['ECE']} |" in text
    assert trained.recipe.weights_id in text
    assert "untrained (random)" in text
    assert f"| places that answers name | {len(trained.places)} |" in text
    assert f"| training photos | {trained.meta['training']['images']} |" in text
    count = len(trained.exemplars.features()[1])
    assert f"Features of {count} single photos (exemplars)" in text
    assert "To locate people" in text
    assert "without consent" in text or "did not consent" in text
    assert "Its owner has not stated a licence" in text


def test_the_card_claims_no_calibration_on_no_photos(paths, call, tmp_path):
    trained = Localiser.load(paths.localiser)
    trained.meta["calibration"] |= {"images": 0, "nll_before": None, "nll_after": None}
    trained.save(tmp_path / "model")
    assert call("push", tmp_path / "out", "--model", tmp_path / "model")[0] == 0
    assert "Not calibrated" in card(tmp_path / "out").text


def test_results_of_another_localiser_are_left_out(paths, call, tmp_path):
    trained = Localiser.load(paths.localiser)
    trained.meta["training"]["seed"] = 1
    trained.save(tmp_path / "model")
    code, output = call("push", tmp_path / "out", "--model", tmp_path / "model")
    assert code == 0
    assert "none: run `pipeline eval`" in output
    assert "Not measured" in card(tmp_path / "out").text


def test_results_without_intervals_are_shown(paths, call, tmp_path):
    details = json.loads(paths.details.read_text())
    evaluate_project(paths, bootstrap=0)
    try:
        assert call("push", tmp_path / "out")[0] == 0
    finally:
        evaluate_project(paths)
    text = card(tmp_path / "out").text
    assert f"| classify | {details['classify']['LR@1']:.1f} |" in text
    assert "In brackets" not in text


def test_a_pulled_localiser_answers(call, tmp_path):
    described = describe_backbone("efficientnet_lite0", weights="pretrained", image_size=32, outputs=("avg",))
    shown = described.name, described.weights, described.weights_id, 32, described.preprocessing
    recipe = Recipe(*shown, described.outputs, "float16", "float32")
    table, _ = partition(np.random.default_rng(0).uniform(551_000, 551_120, (60, 2)))
    trained = Localiser.new(
        replace(table, zone="10S"), recipe, ("avg",), 16, HeadSettings("aamc", 30.0, 0.2, False)
    )
    torch.manual_seed(0)
    for head in trained.heads:
        torch.nn.init.normal_(head.prototypes)
    torch.nn.init.normal_(trained.projection.weight)
    trained.save(tmp_path / "model")
    Image.new("RGB", (60, 40), "grey").save(tmp_path / "photo.jpg")
    assert call("push", tmp_path / "out", "--model", tmp_path / "model")[0] == 0
    assert call("pull", tmp_path / "out", tmp_path / "pulled")[0] == 0
    answers = [
        call(
            "locate", "--model", tmp_path / name, "--format", "json", tmp_path / "photo.jpg", project=tmp_path
        )
        for name in ("model", "pulled")
    ]
    assert answers[0] == answers[1]
    assert answers[0][0] == 0
    assert "licence of these weights | apache-2.0" in card(tmp_path / "out").text
