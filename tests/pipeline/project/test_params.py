"""params.yaml: keys, types and ranges are checked, and errors name the key."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from pipeline.project.init import parse_setting, set_params
from pipeline.project.params import DataConfig, Params, load_params
from pipeline.project.schema import build
from stages.errors import ConfigError

SHIPPED = Path(__file__).parents[3] / "params.yaml"


@dataclass(frozen=True)
class Inner:
    count: int
    share: float


@dataclass(frozen=True)
class Sample:
    name: str
    flag: bool
    kind: Literal["a", "b"]
    sizes: tuple[int, ...]
    span: tuple[float, float]
    limit: int | None
    outputs: Literal["default"] | tuple[str, ...]
    inner: Inner


GOOD = {
    "name": "x",
    "flag": True,
    "kind": "a",
    "sizes": [1, 2, 3],
    "span": [0, 1.5],
    "limit": None,
    "outputs": ["cls", "avg"],
    "inner": {"count": 3, "share": 1},
}


def changed(**changes):
    return {**GOOD, **changes}


def test_a_mapping_becomes_the_dataclass():
    sample = build(Sample, GOOD, "sample")
    assert sample == Sample("x", True, "a", (1, 2, 3), (0.0, 1.5), None, ("cls", "avg"), Inner(3, 1.0))
    assert type(sample.inner.share) is float
    assert build(Sample, changed(outputs="default", limit=4), "sample").outputs == "default"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": 3}, "sample.name is 3: expected a text"),
        ({"flag": 1}, "sample.flag is 1: expected true or false"),
        ({"kind": "c"}, r"sample.kind is 'c': expected a \| b"),
        ({"sizes": 3}, "sample.sizes is 3: expected a list, each item a whole number"),
        ({"sizes": [1, "2"]}, r"sample.sizes\[1\] is '2': expected a whole number"),
        ({"span": [1]}, r"sample.span is \[1\]: expected a list of 2"),
        ({"limit": "many"}, "sample.limit is 'many': expected a whole number or null"),
        ({"outputs": "cls"}, "sample.outputs is 'cls': expected default or a list"),
        ({"inner": {"count": True, "share": 1.0}}, "sample.inner.count is True: expected a whole number"),
        ({"inner": {"count": 1.0, "share": 1.0}}, "sample.inner.count is 1.0: expected a whole number"),
        ({"inner": {"count": 1, "share": True}}, "sample.inner.share is True: expected a number"),
        ({"inner": {"count": 1, "share": float("nan")}}, "sample.inner.share is nan: expected a number"),
        ({"inner": {"count": 1, "share": "1"}}, "sample.inner.share is '1': expected a number"),
        ({"inner": {"count": 1}}, "sample.inner.share is missing: expected a number"),
        (
            {"inner": {"count": 1, "share": 1.0, "shaer": 2}},
            "sample.inner.shaer is not a known setting: did you mean share?",
        ),
        ({"inner": None}, "sample.inner is empty: expected a section"),
        ({"zzz": 1}, "sample.zzz is not a known setting: expected name, flag"),
    ],
)
def test_a_wrong_value_is_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        build(Sample, changed(**changes), "sample")


def test_the_shipped_settings_are_valid():
    params = load_params(SHIPPED)
    assert isinstance(params, Params)
    assert params.partition.cell_m == 10.0
    assert params.index.on_error == "skip"


def with_setting(tmp_path, name, value):
    path = tmp_path / "params.yaml"
    path.write_text(SHIPPED.read_text())
    set_params(path, {name: value})
    return load_params(path)


def test_changing_a_setting_keeps_the_comments(tmp_path):
    assert with_setting(tmp_path, "partition.cell_m", 20).partition.cell_m == 20.0
    assert "# M, cell side in metres" in (tmp_path / "params.yaml").read_text()
    with pytest.raises(ConfigError, match=r"partition.cel_m is not a setting"):
        with_setting(tmp_path, "partition.cel_m", 20)
    with pytest.raises(ConfigError, match=r"partition.cell_m is 'wide': expected a number"):
        with_setting(tmp_path, "partition.cell_m", "wide")


def test_a_setting_on_the_command_line_is_yaml():
    assert parse_setting("partition.cell_m=20") == ("partition.cell_m", 20)
    assert parse_setting("extract.outputs=[cls, avg]") == ("extract.outputs", ["cls", "avg"])
    with pytest.raises(ConfigError, match=r"expected section\.key=value"):
        parse_setting("partition.cell_m")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("partition.cell_m", -1, "partition.cell_m is -1"),
        ("partition.groups_per_side", 0, "partition.groups_per_side is 0"),
        ("partition.p_min", 0.9, "partition.p_min is 0.9"),
        ("partition.head_quantile", 0.1, "partition.head_quantile is 0.1"),
        ("partition.max_views", -1, "partition.max_views is -1"),
        ("index.on_error", "ignore", r"index.on_error is 'ignore': expected skip \| stop"),
    ],
)
def test_values_out_of_range_are_named(tmp_path, name, value, message):
    with pytest.raises(ConfigError, match=message):
        with_setting(tmp_path, name, value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty|holds empty"),
        ("- 1\n", "expected sections"),
        ("seeds: [1\n", "not valid YAML"),
        ("seeds: 0\nseeds: 1\n", 'duplicate key "seeds"'),
        ("seads: 0\n", r"seads is not a known setting: did you mean seeds\?"),
        ("seeds: {views: 0, train: 0}\n", "data is missing"),
    ],
)
def test_an_invalid_file_is_named(tmp_path, text, message):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_params(path)


def test_a_missing_file_names_pipeline_init(tmp_path):
    with pytest.raises(ConfigError, match="pipeline init"):
        load_params(tmp_path / "params.yaml")


def test_trainable_blocks_need_cached_tensors(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(SHIPPED.read_text())
    set_params(path, {"train.tail": True, "extract.cut": 4})
    assert load_params(path).train.tail
    set_params(path, {"extract.cut": "none"})
    with pytest.raises(ConfigError, match=r"train\.tail is true, but extract\.cut is none"):
        load_params(path)


def test_scientific_notation_is_a_number():
    assert build(Inner, {"count": 1, "share": "1e-4"}).share == 1e-4


def test_the_home_folder_is_expanded_in_data(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    data = DataConfig("~/db.csv", "photos/~x", "~/features")
    assert (data.database, data.features) == (f"{tmp_path}/db.csv", f"{tmp_path}/features")
    assert data.queries == "photos/~x"
    with pytest.raises(ConfigError, match=r"data.queries is ~nobody-here/a: expected .*home folder"):
        DataConfig("toycity", "~nobody-here/a", "data/features")


def test_queries_are_one_source_or_different_ones():
    def queries(value):
        return DataConfig("a", value, "f")

    assert queries("q").sources("queries") == ("q",)
    assert queries(("q", "r")).sources("queries") == ("q", "r")
    assert queries(("q",)) == queries("q")
    assert queries(("~/q", "r")).queries == (str(Path.home() / "q"), "r")
    for wrong in ((), ("q", "q"), ("q", "imported")):
        with pytest.raises(ConfigError, match="expected one source or several different ones"):
            queries(wrong)
