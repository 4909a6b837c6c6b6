"""The zone of most images counts, and positions that do not belong together are rejected."""

import pytest

from stages.errors import InputError
from tests.support.index_sources import SKIP, STOP, index, listed, name

TOO_FAR = "too far from the UTM zone of the others"
NO_FIX = "position is 0, 0: no GPS fix"
SAN_FRANCISCO, PARIS, SYDNEY = "37.77,-122.42", "48.86,2.35", "-33.87,151.21"


def degrees(*rows):
    return ["path,lat,lon", *(f"{number}.jpg,{row}" for number, row in enumerate(rows))]


def metres(*rows):
    return ["path,utm_east,utm_north,zone", *(f"{number}.jpg,{row}" for number, row in enumerate(rows))]


def index_table(tmp_path, lines, zone=None):
    (tmp_path / "photos.csv").write_text("\n".join(lines) + "\n")
    return index(tmp_path / "photos.csv", tmp_path, zone=zone)


@pytest.fixture
def _small_batches(monkeypatch):
    monkeypatch.setattr("stages.index.sources.text_list.BLOCK_BYTES", 128)


@pytest.mark.parametrize("shift", range(6))
def test_order_decides_nothing(tmp_path, shift):
    rows = [PARIS, "0,0", "0.0,-0.0", *3 * [SAN_FRANCISCO]]
    result, _ = index_table(tmp_path, degrees(*rows[shift:], *rows[:shift]))
    assert (result.zone, result.rows, result.skipped) == ("10S", 3, {TOO_FAR: 1, NO_FIX: 2})


@pytest.mark.usefixtures("_small_batches")
@pytest.mark.parametrize("config", [SKIP, STOP])
def test_another_pass_follows_if_most_lie_elsewhere(tmp_path, config):
    west, east = name(east="0230000.00", zone="11"), name(east="0770000.00", zone="10")
    lines = [west, *(east.replace("@090@", f"@{number:03d}@") for number in range(9))]
    result, manifest = index(listed(tmp_path, lines), tmp_path, config)
    assert (result.zone, result.rows) == ("10S", 10)
    assert manifest.positions()[1].tolist() == [770_000, 4_178_906.70]
    assert manifest.positions()[0][0] == pytest.approx(759_000, abs=1000)


@pytest.mark.usefixtures("_small_batches")
def test_a_stop_counts_what_is_far_from_most(tmp_path):
    lines = [name(zone="31"), *(name(heading=str(number)) for number in range(5))]
    with pytest.raises(InputError, match=f"unusable entries: 1 {TOO_FAR}"):
        index(listed(tmp_path, lines), tmp_path, STOP)


@pytest.mark.usefixtures("_small_batches")
def test_another_pass_leaves_out_repeated_keys(tmp_path):
    lines = [name(zone="31"), name(), name(heading="1"), name(), name(heading="2")]
    result, manifest = index(listed(tmp_path, lines), tmp_path)
    assert result.skipped == {TOO_FAR: 1, "key seen before": 1}
    assert manifest.column("key").tolist() == [lines[1], lines[2], lines[4]]


@pytest.mark.usefixtures("_small_batches")
def test_names_without_a_zone_may_come_first(tmp_path):
    first, others = name(zone="", band=""), [name(heading=str(number)) for number in range(5)]
    result, manifest = index(listed(tmp_path, [first, *others]), tmp_path)
    assert (result.zone, result.rows) == ("10S", 6)
    assert manifest.positions()[0].tolist() == [543_256.96, 4_178_906.70]


def test_metres_without_a_zone_take_that_of_most_others(tmp_path):
    rows = ["770000,4180000,", "770001,4180000,10S", "230000,4180000,11S", "770002,4180000,10S"]
    result, manifest = index_table(tmp_path, metres(*rows, "0,0,", "0,0,10S"))
    assert (result.zone, result.skipped) == ("10S", {NO_FIX: 2})
    assert manifest.positions()[2].tolist() == pytest.approx([758_789, 4_179_640], abs=1)


def test_too_many_metres_without_a_zone_are_rejected(tmp_path):
    rows = ["770000,4180000,", "770001,4180000,", "770000,4180000,10S"]
    message = r"2 images .*without a UTM zone \(first: 0.jpg\), but others lie in 10S"
    with pytest.raises(InputError, match=message):
        index_table(tmp_path, metres(*rows))


def test_a_majority_outside_stops(tmp_path):
    with pytest.raises(InputError, match=r"3 of 4 images .* zone of the database \(first: 1.jpg in 31U\)"):
        index_table(tmp_path, degrees(SAN_FRANCISCO, *3 * [PARIS]), zone="10S")
    with pytest.raises(InputError, match=r"3 of 5 images .*too far from UTM zone 10S"):
        index_table(tmp_path, degrees(SYDNEY, *2 * [SAN_FRANCISCO], PARIS, "51.5,-0.1"))
    assert not (tmp_path / "out/database.parquet").exists()


def test_known_zones_against_an_unknown_one(tmp_path):
    with pytest.raises(InputError, match=r"without a UTM zone .*the database lies in 10S.* a column zone"):
        index_table(tmp_path, metres("770000,4180000,"), zone="10S")
    for lines in (degrees(SAN_FRANCISCO), metres("770000,4180000,10S")):
        with pytest.raises(InputError, match=r"the database states no UTM zone, .* lie in 10S: add the zone"):
            index_table(tmp_path, lines, zone="")
    assert index_table(tmp_path, metres("770000,4180000,"), zone="")[0].zone == ""


@pytest.mark.parametrize(
    "rows", [["-122.42,37.77,"], ["37.77,-122.42,10S", "37.78,-122.43,10S"], ["2.3,48.8,"]]
)
def test_degrees_are_never_written_as_metres(tmp_path, rows):
    with pytest.raises(InputError, match=r"states degrees where metres are expected.* columns lat and lon"):
        index_table(tmp_path, metres(*rows))


def test_bands_of_one_hemisphere_are_one_zone(tmp_path):
    rows = ["39.9,116.4", "40.1,116.4", "40.1,116.5", "-0.1,117", "-0.2,117"]
    assert index_table(tmp_path, degrees(*rows))[0].zone == "50T"
