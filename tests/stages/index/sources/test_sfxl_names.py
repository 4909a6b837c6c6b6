"""Batches of SF-XL names give the same results as names parsed one by one."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.index.skipped import SkipReason
from stages.index.sources.sfxl_name_reference import parse_name
from stages.index.sources.sfxl_names import parse_names, parse_uniform_lines
from stages.index.sources.text_list import read_list
from tests.support.index_sources import listed, name


def assert_parsed_the_same(names):
    """Compare the fast reading of all names with the slow one of each."""
    assert_same(parse_names(pa.array(names, pa.string())), names)


def assert_same(batch, names):
    for row, text in enumerate(names):
        fields = parse_name(text)
        if isinstance(fields, SkipReason):
            assert batch.skip_reasons[row] == fields, text
            continue
        assert batch.skip_reasons[row] == SkipReason.NONE, text
        assert batch.positions[row].tolist() == [fields.east, fields.north]
        assert batch.zone_numbers[row] == fields.zone_number
        assert chr(batch.bands[row]).strip("\0") == fields.band
        np.testing.assert_equal(batch.heading[row], np.float32(fields.heading))
        assert batch.timestamp[row].as_py() == fields.timestamp


digits = st.text("0123456789", min_size=1, max_size=7)
decimals = st.one_of(
    st.floats(1e5, 1e6).map(lambda value: f"{value:010.2f}"),
    st.floats(0, 1.1e7).map(lambda value: f"{value:010.2f}"),
    st.builds("{}.{}".format, digits, digits),
    st.sampled_from(
        ["", "nan", "inf", "-3.5", "1e5", "1_0", " 7", "5.", ".5", "+4.25", "0543256@96", "05432/6.96"]
    ),
)
sf_xl_names = st.builds(
    name,
    east=decimals,
    north=decimals,
    zone=st.sampled_from(["10", "10", "11", "", "61", "1x", "٣"]),
    band=st.sampled_from(["S", "S", "T", "s", "", "I", "SS"]),
    heading=st.sampled_from(["090", "7", "", "-12.5", "north"]),
    stamp=st.sampled_from(["201408", "", "2014-08-01T10:00", "août"]),
    latitude=st.sampled_from(["037.75689", "-37.75689", "", "-"]),
    pano=st.sampled_from(["z8tOq_kN-8h", "z8t@q_kN-8h", "z8t/q_kN-8h", "é"]),
)
paths = st.builds("{}{}".format, st.sampled_from(["", "train/37.70/", "a@b/", "@/", "x"]), sf_xl_names)


@given(st.lists(st.one_of(paths, st.text(max_size=30)), max_size=30))
@settings(max_examples=300)
def test_batches_agree_with_names_parsed_one_by_one(names):
    assert_parsed_the_same(names)


def test_bad_names_among_regular_ones_are_found():
    regular = [f"train/{name(east=f'{500_000 + i:07d}.25', heading=f'{i % 360:03d}')}" for i in range(20_000)]
    for row, change in {
        3: ("@10@", "@1x@"),
        77: ("z8tOq", "z8@Oq"),
        9_000: (".25@", "x25@"),
        10_000: ("@0510000", "@9510000"),
        11_000: ("@037.", "@-37."),
        12_345: ("4178906.70", "41789O6.70"),
        19_999: ("train/", "tr@in/"),
    }.items():
        regular[row] = regular[row].replace(*change)
    assert_parsed_the_same(regular)


REGULAR = [f"ab/cd/{name(east=f'{500_000 + i:07d}.25', heading=f'{i % 360:03d}')}" for i in range(9_000)]


def test_uniform_lines_are_parsed_together():
    text = np.frombuffer("".join(f"{line}\n" for line in REGULAR).encode(), np.uint8)
    batch = parse_uniform_lines(text)
    assert batch is not None
    assert_same(batch, REGULAR)


@pytest.mark.parametrize(
    "change",
    [
        ("@10@", "@1x@"),
        ("z8tOq", "z8@Oq"),
        ("z8tOq", "z8/Oq"),
        ("z8tOq", "z8\nOq"),
        ("z8tOq", "z8\tOq"),
        ("z8tOq", "zéOq"),
        (".25@", "x25@"),
        ("4178906.70", "41789O6.70"),
        ("ab/cd", "ab@cd"),
        ("ab/cd", "a/bcd"),
        ("ab/cd", "abc/d"),
        ("ab/cd", "abccd"),
        ("090", "-90"),
        ("@0543256", "@0043256"),
        ("@037.", "@-37."),
    ],
    ids=lambda change: repr(change[1]),
)
def test_one_irregular_line_changes_no_other(tmp_path, change):
    lines = list(REGULAR)
    for row in (0, 90, 8_190, 8_999):
        lines[row] = name(heading="090", east="0543256.25").join(["ab/cd/", ""]).replace(*change)
    lines[100] = lines[100].replace("ab/cd", "abccd").replace("z8tOq", "z/tOq")  # as many slashes in all
    path = listed(tmp_path, lines)
    (batch,) = [batch for batch, _ in read_list(path)]
    assert batch.keys.to_pylist() == path.read_text().split("\n")[:-1]
    assert_same(batch, batch.keys.to_pylist())


def test_many_layouts_in_one_batch():
    rng = np.random.default_rng(0)
    assert_parsed_the_same(
        [
            "x" * int(rng.integers(0, 40))
            + "/"
            + name(east=f"{rng.uniform(1e5, 1e6):.{rng.integers(0, 6)}f}", heading=str(rng.integers(0, 360)))
            for _ in range(3000)
        ]
    )


@pytest.mark.parametrize(
    "own",
    [
        "2024@05@06@cam.jpg",
        "@2024@05@06@cam.jpg",
        "@handle_2024@shop@x.jpg",
        "@543256@4178906@front@left@x.jpg",
        "x" + name(),
        "@543256.jpg",
    ],
)
def test_own_names_with_at_signs_state_no_position(own):
    assert parse_name(own) == SkipReason.NO_POSITION


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"east": "O543256"}, SkipReason.NOT_A_NUMBER),
        ({"east": "-122.4194", "north": "37.7749"}, SkipReason.OUT_OF_RANGE),
        ({"zone": "10", "band": ""}, SkipReason.BAD_ZONE),
        ({"zone": "", "band": "S"}, SkipReason.BAD_ZONE),
    ],
)
def test_a_faulty_sfxl_name_has_its_own_reason(fault, reason):
    assert parse_name(name(**fault)) == reason


@pytest.mark.parametrize(
    ("north", "band", "latitude", "expected"),
    [
        ("6250000.00", "S", "-33.8700", "H"),
        ("6250000.00", "s", "-33.8700", "H"),
        ("3926000.00", "S", "-54.8000", "F"),
        ("4178906.70", "S", "037.7568", "S"),
        ("6250000.00", "H", "-33.8700", "H"),
    ],
)
def test_the_latitude_settles_the_letter_s(north, band, latitude, expected):
    text = name(north=north, band=band, latitude=latitude)
    assert parse_name(text).band == expected
    assert_parsed_the_same([text, text])
