"""The command line: all stages in order, help, wrong calls, bad input."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from PIL import Image

from cache.storage.folder_lock import held
from pipeline.cli import cli, main
from pipeline.commands.help import LINE
from pipeline.commands.system_errors import explain
from pipeline.project.init import set_params, template
from pipeline.project.paths import Paths

README = (Path(__file__).parents[2] / "README.md").read_text()
SMALL = {
    "toycity.images": 60,
    "toycity.queries": 12,
    "toycity.image_px": 64,
    "partition.scheme": "grid",
    "partition.groups_per_side": 2,
    "partition.max_views": 1,
    "extract.backbone": "efficientnet_lite0",
    "extract.image_size": 64,
    "train.epochs": 2.0,
}


def call(*arguments: str) -> int:
    """Exit code of the program."""
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    return int(stopped.value.code or 0)


def make_project(folder: Path, **settings: object) -> Path:
    folder.mkdir(exist_ok=True)
    shutil.copyfile(template("params.yaml"), folder / "params.yaml")
    set_params(folder / "params.yaml", SMALL | settings)
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which every stage has run."""
    project = make_project(tmp_path_factory.mktemp("project"))
    for command in ("index", "partition", "extract", "train-heads", "eval"):
        assert call("--project", str(project), command) == 0
    return project


@pytest.fixture
def project(finished, tmp_path):
    """A copy of the finished project that a test may change."""
    return shutil.copytree(finished, tmp_path / "project")


def leaf_commands(group: click.Group, prefix: str = "") -> list[tuple[str, click.Command]]:
    found = []
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found += leaf_commands(command, f"{prefix}{name} ")
        else:
            found.append((prefix + name, command))
    return found


@pytest.mark.parametrize(("name", "command"), leaf_commands(cli))
def test_every_command_has_help_and_is_in_the_readme(name, command):
    assert command.help
    assert len(command.help.splitlines()[0]) <= LINE
    assert f"pipeline {name}" in README or f"make {name}" in README
    for parameter in command.params:
        if isinstance(parameter, click.Option) and parameter.name != "help":
            assert parameter.help, f"{name} --{parameter.name} has no help"


def test_help_lists_commands_in_the_order_of_use(capsys):
    assert call("--help") == 0
    usage = capsys.readouterr().out
    lines = usage[usage.index("Stages:") :].splitlines()
    assert [line.split()[0] for line in lines if line] == [
        *("Stages:", "index", "partition", "extract", "train-heads", "eval", "report"),
        *("Everyday:", "init", "demo", "locate", "serve", "status", "explain"),
        *("Tools:", "doctor", "backbones", "verify", "pack"),
        *("import", "export", "push", "pull", "experiments"),
    ]
    assert not any(line.endswith("...") for line in lines)
    assert max(map(len, usage.splitlines())) <= 80


@pytest.mark.parametrize("arguments", [[], ["export"], ["import"]])
def test_a_group_without_a_command_shows_its_help(capsys, arguments):
    assert call(*arguments) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("Usage: ")
    assert len(shown.out.splitlines()) > 5
    assert shown.err == ""


def test_a_subfolder_belongs_to_its_project(finished, monkeypatch, capsys):
    monkeypatch.chdir(finished / "data" / "index")
    assert call("status") == 0
    assert re.search(r"features database.*\b60\b", capsys.readouterr().out)


def test_a_project_is_named_before_or_after_a_command(finished, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for arguments in (("--project", str(finished), "status"), ("status", "--project", str(finished))):
        assert call(*arguments) == 0
        assert re.search(r"features database.*\b60\b", capsys.readouterr().out)
    assert call("--project", str(tmp_path / "other"), "partition", "--project", str(finished)) == 0


def test_backbones_are_listed_and_measured(capsys):
    assert call("backbones", "--search", "efficientnet_lite0", "--measure", "--device", "cpu") == 0
    shown = capsys.readouterr().out
    assert "images/s on cpu" in shown
    rows = [line for line in shown.splitlines() if "timm:tf_efficientnet_lite0.in1k" in line]
    assert len(rows) == 1
    assert [cell.strip() for cell in rows[0].split("│")][2:6] == ["224", "6144", "0.8", "here"]


def test_partition_and_doctor_say_what_bounds_the_result(project, capsys):
    set_params(project / "params.yaml", {"partition.min_images_per_class": 8, "partition.cell_m": 20.0})
    assert call("--project", str(project), "partition") == 0
    call("--project", str(project), "doctor", "--device", "cpu")
    shown = capsys.readouterr().out
    assert (
        len(re.findall(r"of 60 photos lie in cells with fewer than \d+ photos and are in no class", shown))
        == 2
    )
    assert shown.count("-> lower partition.min_images_per_class, or raise partition.cell_m (now 20)") == 2
    assert "% of the queries lie within 25 m of a class" in shown


def run_without(modules: set[str], *arguments: str) -> str:
    """What a command prints in a process of its own, in which none of these modules is imported."""
    script = f"""
import sys
from pipeline.cli import main
try:
    main({arguments!r})
except SystemExit as stopped:
    sys.exit(stopped.code or ", ".join({modules!r} & sys.modules.keys()) or 0)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_help_imports_nothing_slow():
    shown = run_without({"torch", "pyarrow", "numpy", "zarr", "dask", "scipy"}, "--help")
    assert shown.startswith("Usage: ")


def test_extract_with_nothing_left_imports_no_torch(finished):
    shown = run_without({"torch", "timm", "dask", "scipy"}, "--project", str(finished), "extract")
    assert (
        len(re.findall(r"computed\s+0\b", shown)) == 5
    )  # database, views, queries and their two other crops
    run_without({"torch", "timm", "dask", "scipy"}, "--project", str(finished), "status")


def test_a_system_error_is_one_line(tmp_path, capsys):
    project = make_project(tmp_path / "project", **{"data.database": "photos"})
    (project / "photos").mkdir()
    (project / "photos" / name_at(550000, "photo")).touch()
    (project / "data").write_text("a file where a folder is needed")
    assert call("--project", str(project), "index") == 1
    errors = capsys.readouterr().err.strip()
    assert errors.startswith(f"error: {project}/data")
    assert "a file is where a folder is needed, then run the same command again" in errors
    assert "\n" not in errors


@pytest.mark.parametrize(
    ("error", "parts"),
    [
        (OSError(errno.ENOSPC, "No space", "/data/a"), ("/data/a", "no space left on device", "free some")),
        (OSError(errno.EROFS, "x", Path("/data/a")), ("/data/a", "read-only", "mount it writable")),
        (PermissionError(errno.EACCES, "x", "/data/a"), ("/data/a", "permission denied", "permissions")),
        (OSError("Can't write data (errno = 28, error message = 'full')"), ("no space left", "free some")),
        (OSError("Couldn't open file"), ("couldn't open file", "run the same command again")),
        (OSError(errno.EIO, "x"), ("input/output error", "check the disk")),
        (TimeoutError(), ("TimeoutError", "run the same command again")),
    ],
)
def test_a_system_error_names_path_and_way_out(error, parts):
    line = explain(error)
    assert "\n" not in line
    for part in parts:
        assert part.lower() in line.lower()


def test_an_early_end_of_a_file_is_no_interruption(monkeypatch):
    def truncated(*_, **__):
        raise EOFError("No data left in file")

    monkeypatch.setattr("pipeline.commands.everyday.project_of", truncated)
    with pytest.raises(EOFError, match="No data left"):
        main(["status"])


@pytest.mark.parametrize("content", [b"", b"no array", b"\x93NUMPY\x01\x00\xff"])
def test_a_torn_labels_file_is_named(project, capsys, content):
    labels = project / "data" / "partition" / "labels.npy"
    labels.write_bytes(content)
    assert call("--project", str(project), "train-heads") == 1
    errors = capsys.readouterr().err.strip()
    assert str(labels) in errors
    assert "run `pipeline partition` again" in errors
    assert "\n" not in errors


@pytest.mark.parametrize("command", ["index", "partition", "train-heads", "eval", "report"])
def test_a_second_run_of_a_stage_is_told_who_is_at_work(project, capsys, command):
    with held(Paths(project, "").lock(command), "the first"):
        assert call("--project", str(project), command) == 1
    errors = capsys.readouterr().err.strip()
    assert f"`pipeline {command}` in this project is already running (process {os.getpid()} on " in errors
    assert "\n" not in errors
    assert not Paths(project, "").lock(command).exists()


def test_the_stages_in_order_end_in_metrics(finished, capsys):
    numbers = json.loads((finished / "details.json").read_text())["classify"]
    assert (
        0 <= numbers["LR@1"] <= numbers["LR@5"] <= numbers["LR@10"] <= numbers["LR@20"] <= numbers["ceiling"]
    )
    assert numbers["queries"] == SMALL["toycity.queries"]
    assert call("--project", str(finished), "status") == 0
    shown = capsys.readouterr().out
    assert "features database" in shown
    assert "60" in shown


def test_extracting_again_computes_nothing(finished, capsys):
    assert call("--project", str(finished), "extract", "--split", "database", "--device", "cpu") == 0
    shown = capsys.readouterr().out
    assert re.match(r"database: 60 images x .* = .* in ", shown)
    assert " on cpu" not in shown  # no device is looked for
    assert re.search(r"computed\s+0\b", shown)


def test_some_groups_are_trained_with_a_frozen_projection(project, capsys):
    assert call("--project", str(project), "train-heads", "--groups", "1,3") == 0
    assert re.search(r"projection\s+frozen", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["extract", "--shards", "5-2"], 2, "5-2 runs backwards"),
        (["extract", "--shards", "64"], 1, "--shards names 64, expected 0 to 63"),
        (["extract", "--split", "photos"], 2, "'photos' is not one of"),
        (["extract", "--device", "warp"], 1, "device 'warp' cannot be used"),
        (["train-heads", "--groups", "9"], 1, "9"),
        (["train-heads", "--groups", "a"], 2, "neither a number nor a range"),
        (["evaluate"], 2, "No such command"),
    ],
)
def test_a_wrong_call_is_one_line(finished, capsys, arguments, code, message):
    assert call("--project", str(finished), *arguments) == code
    errors = capsys.readouterr().err.strip()
    assert errors.startswith("error: ")
    assert message in errors
    assert "\n" not in errors


@pytest.mark.parametrize(
    ("name", "value", "command", "message"),
    [
        ("partition.cell_m", -5, "partition", "partition.cell_m is -5"),
        ("data.database", "nowhere", "index", "nowhere"),
        ("extract.outputs", ["cls"], "extract", "cls"),
        ("extract.dtype", "float32", "extract", "dtype"),
        ("extract.decoder", "nvjpeg", "extract", "needs a GPU"),
        ("extract.weights", "lost.pth", "extract", "lost.pth"),
        ("extract.backbone", "resnet50", "extract", "resnet50"),
    ],
)
def test_a_wrong_setting_is_named_in_one_line(project, capsys, name, value, command, message):
    set_params(project / "params.yaml", {name: value})
    assert call("--project", str(project), command) == 1
    errors = capsys.readouterr().err.strip()
    assert errors.startswith("error: ")
    assert message in errors
    assert "\n" not in errors


@pytest.mark.parametrize("policy", [None, "active"])
def test_idle_threads_sleep_unless_told_otherwise(monkeypatch, capsys, policy):
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.setenv(name, policy or "")
        monkeypatch.delenv(name)
    if policy is not None:
        monkeypatch.setenv("OMP_WAIT_POLICY", policy)
    assert call("--version") == 0
    assert os.environ.get("GOMP_SPINCOUNT") == ("2000" if policy is None else None)


def test_an_unknown_setting_is_named(project, capsys):
    path = project / "params.yaml"
    path.write_text(path.read_text().replace("cell_m:", "cel_m:"))
    assert call("--project", str(project), "partition") == 1
    assert "partition.cel_m is not a known setting: did you mean cell_m?" in capsys.readouterr().err


def test_a_missing_params_yaml_names_pipeline_init(tmp_path, capsys):
    assert call("--project", str(tmp_path), "index") == 1
    assert "pipeline init" in capsys.readouterr().err


def name_at(east: float, note: str) -> str:
    return f"@{east:.2f}@4180000.00@10@S@037.76540@-122.41870@{note}@@0@@@@201806@@.jpg"


def test_unreadable_images_are_listed_and_skipped(tmp_path, finished, capsys):
    """Of a folder with all kinds of files, readable images are used and the others listed."""
    photos = tmp_path / "photos"
    photos.mkdir()
    good = next((finished / "data" / "toycity" / "database").glob("*.jpg"))
    picture = Image.open(good)
    for number in range(8):
        shutil.copyfile(good, photos / name_at(550000 + 3 * number, f"good{number}"))
    picture.convert("CMYK").save(photos / name_at(550010, "cmyk"), "JPEG")
    picture.convert("P").save(photos / name_at(550011, "palette"), "PNG")
    picture.convert("I;16").save(photos / name_at(550012, "deep"), "PNG")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(photos / name_at(550013, "rotated"), exif=exif)
    (photos / name_at(550014, "truncated")).write_bytes(good.read_bytes()[:700])
    (photos / name_at(550015, "empty")).write_bytes(b"")
    (photos / name_at(550016, "text")).write_text("not a picture")
    (photos / "holiday.jpg").write_bytes(good.read_bytes())
    project = make_project(tmp_path / "project")
    set_params(project / "params.yaml", {
        "data.database": str(photos), "data.queries": str(photos), "extract.max_bad_fraction": 0.5,
    })  # fmt: skip
    for command in ("index", "partition", "extract", "train-heads", "eval"):
        assert call("--project", str(project), command) == 0, capsys.readouterr().err
    assert "holiday.jpg" in capsys.readouterr().out
    assert call("--project", str(project), "status", "--bad") == 0
    listed = capsys.readouterr().out
    for note in ("truncated", "empty", "text"):
        assert f"@{note}@" in listed
    for note in ("cmyk", "palette", "deep", "rotated", "good0"):
        assert f"@{note}@" not in listed
    assert json.loads((project / "details.json").read_text())["classify"]["unreadable"] == 3


@pytest.mark.parametrize(
    ("row", "message"),
    [("photo.jpg,95.0,34.8", "position out of range (photo.jpg)"), ("photo.jpg,,", "photo.jpg")],
)
def test_an_invalid_position_is_named(tmp_path, capsys, row, message):
    (tmp_path / "photos.csv").write_text(f"path,lat,lon\n{row}\n")
    project = make_project(tmp_path / "project")
    source = str(tmp_path / "photos.csv")
    set_params(project / "params.yaml", {"data.database": source, "index.on_error": "stop"})
    assert call("--project", str(project), "index") == 1
    assert message in capsys.readouterr().err


def test_an_empty_folder_is_an_error(tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    project = make_project(tmp_path / "project")
    set_params(project / "params.yaml", {"data.database": str(tmp_path / "photos")})
    assert call("--project", str(project), "index") == 1
    assert "photos" in capsys.readouterr().err


READ_ONLY = """
import sys
from pathlib import Path
from pipeline.cli import main

project, features = sys.argv[1:]
try:
    (Path(features) / "probe").touch()
    sys.exit("the folder is writable")
except PermissionError:
    pass
for command in ("extract --device cpu", "status", "verify", "train-heads", "eval"):
    try:
        main(["--project", project, *command.split()])
    except SystemExit as stopped:
        if stopped.code:
            sys.exit(f"{command}: {stopped.code}")
"""


def test_complete_stores_serve_from_a_read_only_folder(project, tmp_path):
    """Run without the right of root to write everywhere."""
    features = Path(shutil.move(project / "data" / "features", tmp_path / "features"))
    set_params(project / "params.yaml", {"data.features": str(features)})
    command = [sys.executable, "-c", READ_ONLY, str(project), str(features)]
    if os.geteuid() == 0:
        if not shutil.which("setpriv"):
            pytest.skip("root writes everywhere, and there is no setpriv")
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *command]
    before = {path: path.stat().st_mtime_ns for path in features.rglob("*")}
    subprocess.run(["chmod", "-R", "a-w", features], check=True)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    finally:
        subprocess.run(["chmod", "-R", "u+w", features], check=True)
    if done.stderr.startswith("setpriv:"):
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stdout + done.stderr
    assert before == {path: path.stat().st_mtime_ns for path in features.rglob("*")}


def damage_root(store: Path) -> None:
    (store / "zarr.json").write_text("{")


def damage_array(store: Path) -> None:
    (store / "bilinear" / "zarr.json").write_text("null")


def lose_array(store: Path) -> None:
    (store / "bilinear" / "zarr.json").unlink()


def lose_chunks(store: Path) -> None:
    shutil.rmtree(store / "bilinear")


def lose_ledger(store: Path) -> None:
    shutil.rmtree(store / "ledger")


def lose_rows(store: Path) -> None:
    shutil.rmtree(store / "row_id")


def follow_advice(project: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    """Run a command, and what it advises, until it succeeds: one fault may hide another."""
    capsys.readouterr()
    advised = []
    while call("--project", str(project), command):
        printed = capsys.readouterr()
        text = " ".join((printed.out + printed.err).split())
        commands = re.findall(r"run `pipeline ([^`]+)`", text)
        assert commands, text
        advised.append(next((words for words in commands if words not in advised), commands[0]))
        assert len(advised) < 5, advised
        call("--project", str(project), *advised[-1].split())


@pytest.mark.parametrize(
    "damage", [damage_root, damage_array, lose_array, lose_chunks, lose_ledger, lose_rows]
)
@pytest.mark.parametrize("command", ["verify", "extract", "train-heads"])
def test_advice_about_a_damaged_store_works(project, capsys, damage, command):
    damage(Paths(project, "efficientnet_lite0-64").features("database"))
    follow_advice(project, capsys, command)
    follow_advice(project, capsys, "verify")
