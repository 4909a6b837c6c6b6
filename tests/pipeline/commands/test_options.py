"""Options: shard ranges, group sets and devices, valid and rejected."""

import click
import pytest
from click.testing import CliRunner

from pipeline.cli import cli
from pipeline.commands.options import GROUPS, SEEDS, SHARDS
from pipeline.project.init import template
from stages.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("5", (5,)),
        ("0-3", (0, 1, 2, 3)),
        ("0,3,7-9", (0, 3, 7, 8, 9)),
        ("9,1-2,2", (1, 2, 9)),
        (" 1 , 2 ", (1, 2)),
        ("4-4", (4,)),
    ],
)
def test_numbers_are_sorted_and_each_once(text, numbers):
    assert SHARDS.convert(text, None, None) == numbers
    assert GROUPS.convert(text, None, None) == numbers


@pytest.mark.parametrize(
    "text", ["", "5-2", "-1", "-3-2", "a", "1-", "1..3", "1,,2", "1.5", "٣", "0-99999999", "1-2-3"]
)
@pytest.mark.parametrize("kind", [SHARDS, SEEDS, GROUPS], ids=lambda kind: kind.name)
def test_anything_else_is_rejected_in_one_line(kind, text):
    @click.command()
    @click.option("--pick", type=kind)
    def command(pick):
        raise AssertionError("must not run")

    result = CliRunner().invoke(command, ["--pick", text])
    assert result.exit_code == 2
    assert len([line for line in result.output.splitlines() if line.startswith("Error")]) == 1
    assert "given as" in result.output


def test_a_backward_range_is_named_with_its_correction():
    with pytest.raises(click.BadParameter, match="the range 5-2 runs backwards: expected 2-5"):
        SHARDS.convert("5-2", None, None)


@pytest.mark.parametrize("text", ["all", "ALL", " all "])
def test_all_groups_is_none(text):
    assert GROUPS.convert(text, None, None) is None


def test_defaults_pass_through():
    assert SHARDS.convert((1, 2), None, None) == (1, 2)


@pytest.mark.parametrize("device", ["warp", "cpu,cpu", "cuda:99"])
@pytest.mark.parametrize("command", [("train-heads",), ("eval",), ("locate", "photo.jpg")])
def test_an_unusable_device_is_rejected(command, device, tmp_path):
    (tmp_path / "params.yaml").write_text(template("params.yaml").read_text())
    (tmp_path / "photo.jpg").write_bytes(b"")
    words = [word.replace("photo", str(tmp_path / "photo")) for word in command]
    with pytest.raises(ConfigError, match=f"device.* '{device}'.*: expected "):
        CliRunner().invoke(
            cli, ["--project", str(tmp_path), *words, "--device", device], catch_exceptions=False
        )
