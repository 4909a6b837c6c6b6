"""params.yaml -> frozen dataclasses; an unknown or missing key is an error that names it."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipeline.typed import build, shown
from stages.augment import AugmentConfig
from stages.city import CityConfig
from stages.errors import ConfigError
from stages.eval.config import EvalConfig
from stages.extract.config import ExtractConfig
from stages.index import IndexConfig
from stages.partition import PartitionConfig
from stages.train.config import TrainConfig


@dataclass(frozen=True)
class DataConfig:
    """Where the images come from.

    Attributes
    ----------
    database
        "toycity", a folder, a .csv or a .txt list of paths: images whose position is known.
    queries
        The same, for the photos to be localised.
    """

    database: str
    queries: str


@dataclass(frozen=True)
class Params:
    """Every setting of the pipeline: one attribute per section of params.yaml."""

    seed: int
    data: DataConfig
    toycity: CityConfig
    index: IndexConfig
    partition: PartitionConfig
    augment: AugmentConfig
    extract: ExtractConfig
    train: TrainConfig
    eval: EvalConfig


def load_params(path: Path, overrides: Sequence[str] = ()) -> Params:
    """Return the settings of a params.yaml.

    Parameters
    ----------
    path
        The YAML file.
    overrides
        Settings that win over the file, each "section.key=value" with a YAML value.

    Raises
    ------
    ConfigError
        If the file is missing or no YAML, or a key is unknown, missing, of the
        wrong type or out of range; the message names it.
    """
    settings = read_settings(path)
    for override in overrides:
        _apply(settings, override)
    return build(Params, settings)


def read_settings(path: Path) -> dict[str, Any]:
    """Return the sections of a YAML file as nested dictionaries.

    Raises
    ------
    ConfigError
        If the file is missing, no YAML, holds a key twice or no sections.
    """
    try:
        settings = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeyLoader)
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist: lay out a project with `pipeline init FOLDER`") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is no valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(settings, dict):
        raise ConfigError(f"{path} holds {shown(settings)}: expected sections such as `index:` and `train:`")
    return settings


def _apply(settings: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    *sections, last = key.strip().split(".")
    if not equals or not all([*sections, last]):
        raise ConfigError(
            f"'{override}' is no setting: expected section.key=value, for instance partition.cell_m=20"
        )
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(
            f"the value of '{override}' is no valid YAML: {' '.join(str(error).split())}"
        ) from error
    section = settings
    for i, name in enumerate(sections):
        section = section.setdefault(name, {})
        if not isinstance(section, dict):
            raise ConfigError(
                f"'{override}' sets a key of {'.'.join(sections[: i + 1])}, which is no section"
            )
    section[last] = value


class _UniqueKeyLoader(yaml.SafeLoader):
    """A SafeLoader that refuses a key given twice, of which YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key '{key}' is given twice", node.start_mark
                )
        return super().construct_mapping(node, deep)
