"""Read params.yaml into frozen dataclasses; errors name the unknown, missing or invalid key."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.project.schema import build, shown
from stages.errors import ConfigError, require
from stages.eval.config import EvalConfig
from stages.eval.report.config import ReportConfig
from stages.extract.config import IMPORTED, ExtractConfig
from stages.images.augment import AugmentConfig
from stages.index.config import IndexConfig
from stages.index.packs.config import PackConfig
from stages.partition.config import PartitionConfig
from stages.toycity.config import CityConfig
from stages.train.config import TrainConfig


@dataclass(frozen=True)
class DataConfig:
    """Where the images come from.

    Attributes
    ----------
    database
        "toycity", a folder, a .csv, a .txt list of paths or a pack's manifest.parquet: images with known
        positions; "imported" if `pipeline import features` brought features and positions.
    queries
        The same, for the photos to localise; or a list of them, each a query set with metrics of its own.
    features
        Where feature stores are: a folder, or an address such as s3://bucket/features.

    "~" at the start stands for the home folder in all of them.
    """

    database: str
    queries: str | tuple[str, ...]
    features: str

    def __post_init__(self) -> None:
        for name in ("database", "features"):
            object.__setattr__(self, name, _at_home(f"data.{name}", getattr(self, name)))
        queries = tuple(_at_home("data.queries", source) for source in self.sources("queries"))
        fits = len(queries) == len(set(queries)) > 0 and (len(queries) == 1 or IMPORTED not in queries)
        require(
            "data.queries", list(queries), fits, "one source or several different ones, none of them imported"
        )
        object.__setattr__(self, "queries", queries[0] if len(queries) == 1 else queries)

    def sources(self, split: str) -> tuple[str, ...]:
        """Return the sources of database or queries."""
        value: str | tuple[str, ...] = getattr(self, split)
        return (value,) if isinstance(value, str) else value


def _at_home(name: str, path: str) -> str:
    """Return a path with the home folder in place of "~"."""
    try:
        return str(Path(path).expanduser()) if path.startswith("~") else path
    except RuntimeError:
        raise ConfigError(f"{name} is {path}: expected a folder: there is no such home folder") from None


@dataclass(frozen=True)
class SeedsConfig:
    """Seeds of views (which images get them, how they look) and training (weights, sampling, holdout).

    They are separate, so that another training seed does not need other features.
    """

    views: int
    train: int


@dataclass(frozen=True)
class Params:
    """Every setting of the pipeline: one attribute per section of params.yaml.

    Raises
    ------
    ConfigError
        If `train.tail` needs tensors that extraction does not keep.
    """

    seeds: SeedsConfig
    data: DataConfig
    toycity: CityConfig
    index: IndexConfig
    pack: PackConfig
    partition: PartitionConfig
    augment: AugmentConfig
    extract: ExtractConfig
    train: TrainConfig
    eval: EvalConfig
    report: ReportConfig

    def __post_init__(self) -> None:
        self._require_import_complete()
        if self.train.tail and self.extract.cut == "none":
            raise ConfigError(
                "train.tail is true, but extract.cut is none: set extract.cut to the number of frozen blocks "
                "such as 4 for efficientnet_lite0 or 10 for dinov2_vits14, or train.tail to false"
            )

    def _require_import_complete(self) -> None:
        imported = self.extract.imported is not None
        if (self.data.database == IMPORTED, self.data.queries == IMPORTED) != (imported, imported):
            raise ConfigError(
                f"data.database is {self.data.database}, data.queries is {self.data.queries} and "
                f"extract.backbone is {self.extract.backbone}: expected all three to be imported (`pipeline "
                "import features` sets them) or none; edit them in params.yaml"
            )
        if imported and self.train.tail:
            raise ConfigError(
                f"train.tail is true, but {self.extract.backbone} has no blocks to train: "
                "set train.tail to false"
            )


def load_params(path: Path) -> Params:
    """Return the settings of a params.yaml.

    Raises
    ------
    ConfigError
        If the file is missing or not valid YAML, or a key is unknown, missing, of the wrong type or out
        of range.
    """
    return build(Params, read_settings(path))


def change_setting(settings: Any, name: str, value: object) -> bool:
    """Change `section.key` in nested sections and return True; False if there is no such setting."""
    *parents, key = name.split(".")
    for parent in parents:
        settings = settings.get(parent) if isinstance(settings, dict) else None
    if not isinstance(settings, dict) or key not in settings:
        return False
    settings[key] = value
    return True


def read_settings(path: Path) -> dict[str, Any]:
    """Return the sections of a YAML file as nested dictionaries.

    Raises
    ------
    ConfigError
        If the file is missing, is not valid YAML, has a key twice or has no sections.
    """
    try:
        settings = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist: create a project with `pipeline init FOLDER`") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    except YAMLError as error:
        fault = getattr(error, "problem", None) or str(error)
        raise ConfigError(f"{path} is not valid YAML: {' '.join(fault.split())}") from error
    if not isinstance(settings, dict):
        raise ConfigError(f"{path} holds {shown(settings)}: expected sections such as `index:` and `train:`")
    return settings
