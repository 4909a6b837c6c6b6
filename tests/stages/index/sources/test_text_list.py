"""Lists of SF-XL paths: order, line ends, blocks and unusable entries."""

import pytest

from stages.errors import InputError
from stages.index.sources.text_list import BLOCK_BYTES, read_list
from tests.support.index_sources import index, listed, name


@pytest.mark.parametrize(
    ("ending", "last"), [("\n", "\n"), ("\n", ""), ("\r\n", "\r\n"), ("\r\n", ""), ("\n\n", "\n\n\n")]
)
@pytest.mark.parametrize("same_length", [True, False])
def test_a_list_keeps_its_order_with_any_line_ends(tmp_path, ending, last, same_length):
    lines = [name(east=f"054{i:04d}.00", heading="090" if same_length else str(i)) for i in (5, 3, 90, 4)]
    result, manifest = index(listed(tmp_path, lines, ending, last), tmp_path)
    assert manifest.column("key").tolist() == lines
    assert result.rows == 4
    assert result.skipped == {}
    assert manifest.column("timestamp").tolist() == ["201408"] * 4
    assert manifest.source == "names"


def test_a_list_with_a_byte_order_mark(tmp_path):
    path = listed(tmp_path, [name()])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert index(path, tmp_path)[1].column("key").tolist() == [name()]


@pytest.mark.parametrize("block_bytes", [90, 100, 256, 1000])
def test_lines_across_two_blocks(tmp_path, monkeypatch, block_bytes):
    monkeypatch.setattr("stages.index.sources.text_list.BLOCK_BYTES", block_bytes)
    lines = [name(east=f"054{i:04d}.00", heading=str(i)) for i in range(200)]
    keys = [key for batch, _ in read_list(listed(tmp_path, lines, last="")) for key in batch.keys.to_pylist()]
    assert keys == lines
    assert BLOCK_BYTES > 1 << 20


def test_a_file_without_line_ends_is_rejected(tmp_path, monkeypatch):
    monkeypatch.setattr("stages.index.sources.text_list.BLOCK_BYTES", 64)
    with pytest.raises(InputError, match="no line end in 64 bytes"):
        index(listed(tmp_path, ["x" * 500]), tmp_path)


@pytest.mark.parametrize("last", ["", "\n"])
def test_an_overlong_first_line_is_skipped(tmp_path, last):
    result, manifest = index(listed(tmp_path, ["x" * 70_000, name()], last=last), tmp_path)
    assert manifest.column("key").tolist() == [name()]
    assert sum(result.skipped.values()) == 1


def test_skipped_entries_are_counted_by_reason(tmp_path):
    good = [name(heading=str(i)) for i in range(3)]
    bad = [
        "no_position.jpg",
        name(east="nan"),
        name(east=""),
        name(north="99999999999.0"),
        name(zone="61"),
        "@1@2.jpg",
    ]
    result, manifest = index(listed(tmp_path, [*bad, *good]), tmp_path)
    assert manifest.column("key").tolist() == good
    assert result.skipped == {
        "no position": 2,
        "position is not a number": 2,
        "position out of range": 1,
        "not a UTM zone: expected number and letter, such as 10S": 1,
    }
    assert result.examples["no position"] == ("no_position.jpg", "@1@2.jpg")
    assert result.rows == 3


def test_a_path_that_is_not_utf8_is_skipped(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes(b"caf\xe9/" + name().encode() + b"\n" + name().encode() + b"\n")
    result, manifest = index(path, tmp_path)
    assert result.skipped == {"path is not UTF-8": 1}
    assert manifest.rows == 1
