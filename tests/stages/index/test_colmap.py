"""Positions in COLMAP's text form."""

from __future__ import annotations

import pytest

from stages.errors import InputError
from stages.index.colmap import convert_colmap_positions, write_colmap_positions
from tests.support.features_to_import import manifest_of


def test_positions_are_written_in_degrees(tmp_path):
    manifest = manifest_of(tmp_path / "database.parquet", ["a/b.jpg", "c.jpg"])
    assert write_colmap_positions(manifest, tmp_path / "ref.txt") == 2
    fields = [line.split(" ") for line in (tmp_path / "ref.txt").read_text().splitlines()]
    assert [row[0] for row in fields] == ["a/b.jpg", "c.jpg"]
    # Easting 500,000 is the central meridian of the zone, 123 degrees west for zone 10.
    assert float(fields[0][1]) == pytest.approx(36.14, abs=0.01)
    assert float(fields[0][2]) == pytest.approx(-123, abs=1e-5)
    assert fields[0][3] == "0"


def test_what_colmap_cannot_read_is_not_written(tmp_path):
    with pytest.raises(InputError, match="holds a space"):
        write_colmap_positions(manifest_of(tmp_path / "a.parquet", ["a b.jpg"]), tmp_path / "ref.txt")
    with pytest.raises(InputError, match="no UTM zone"):
        write_colmap_positions(manifest_of(tmp_path / "b.parquet", zone=""), tmp_path / "ref.txt")
    assert not (tmp_path / "ref.txt").exists()


def test_lists_become_a_table_in_degrees(tmp_path):
    (tmp_path / "ref.txt").write_text("# a comment\n\na.jpg 37.5 -122.25 12.0\r\nb.jpg\t-33 151 0\n")
    convert_colmap_positions(tmp_path / "ref.txt", tmp_path / "positions.csv")
    lines = (tmp_path / "positions.csv").read_text().splitlines()
    assert lines == ["path,lat,lon", "a.jpg,37.5,-122.25", "b.jpg,-33,151"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.jpg 37.5 -122.25", "expected image latitude longitude altitude"),
        ("a b.jpg 37.5 -122.25 0", "expected image latitude longitude altitude"),
        ("a.jpg 500000 4180000 0", "are not degrees: write metres to a .csv"),
        ("a.jpg nan 0 0", "are not degrees"),
    ],
)
def test_other_lines_are_rejected_with_their_number(line, message, tmp_path):
    (tmp_path / "ref.txt").write_text(f"x.jpg 37 -122 0\n{line}\n")
    with pytest.raises(InputError, match=f"line 2 of .*{message}"):
        convert_colmap_positions(tmp_path / "ref.txt", tmp_path / "positions.csv")
