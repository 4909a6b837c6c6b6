"""Create a project folder: settings, stages, and a Git and a DVC repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from ruamel.yaml import YAML

from pipeline.project.params import change_setting
from stages.errors import ConfigError, InputError
from stages.files import replacing

FILES = ("params.yaml", "dvc.yaml", "experiments.yaml")
IGNORED = (
    "/data/",
    "/models/",
    "/plots/",
    "/experiments/",
    "/predictions.parquet",
    "/report.html",
    "/.*.lock",
)


def template(name: str) -> Path:
    """Return the shipped copy of params.yaml, dvc.yaml or experiments.yaml.

    A wheel holds them inside the package; in a source checkout they are at its root.
    """
    packaged = Path(__file__).parent / "files" / name
    return packaged if packaged.exists() else Path(__file__).parents[2] / name


def make_project(folder: Path, settings: Mapping[str, object]) -> None:
    """Create a project in `folder` with its own Git and DVC repositories.

    Parameters
    ----------
    folder : Path
        Where; created if it does not exist.
    settings : mapping
        `section.key` -> value: settings that differ from the defaults.

    Raises
    ------
    InputError
        If the folder already holds a project.
    """
    present = [name for name in FILES if (folder / name).exists()]
    if present:
        raise InputError(f"{folder} already holds {' and '.join(present)}: edit them, or use another folder")
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        shutil.copyfile(template(name), folder / name)
    set_params(folder / "params.yaml", settings)
    if not (folder / ".git").exists():
        run(folder, "git", "init", "--quiet")
    if not (folder / ".dvc").exists():
        run(folder, sys.executable, "-m", "dvc", "init", "--quiet")
        run(folder, sys.executable, "-m", "dvc", "config", "core.analytics", "false")
    with (folder / ".gitignore").open("a") as ignore:
        ignore.write("".join(f"{line}\n" for line in IGNORED))


def set_params(path: Path, settings: Mapping[str, object]) -> None:
    """Change settings in a params.yaml and keep its comments.

    Raises
    ------
    ConfigError
        If there is no setting of that name.
    """
    yaml = YAML()
    yaml.preserve_quotes, yaml.width = True, 4096
    document = yaml.load(path.read_text(encoding="utf-8"))
    for name, value in settings.items():
        if not change_setting(document, name, value):
            raise ConfigError(f"{name} is not a setting of {path}: use a name from that file")
    with replacing(path) as partial, partial.open("w", encoding="utf-8") as file:
        yaml.dump(document, file)


def parse_setting(text: str) -> tuple[str, object]:
    """Return name and value of `section.key=value`; the value is parsed as YAML."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--set {text!r}: expected section.key=value, such as partition.cell_m=20")
    return name, YAML(typ="safe").load(value)


def reproduce(folder: Path) -> None:
    """Run `dvc repro` in a project; raises InputError if a stage fails."""
    run(folder, sys.executable, "-m", "dvc", "repro")


def commit_all(folder: Path, message: str) -> None:
    """Commit the project, so that `dvc exp run` and `dvc metrics diff` have a baseline."""
    run(folder, "git", "add", "--all")
    staged = subprocess.run(["git", "diff", "--cached", "--quiet"], cwd=folder, check=False)
    if staged.returncode:
        who = ("-c", "user.name=placecache", "-c", "user.email=placecache@localhost")
        run(folder, "git", *who, "commit", "--quiet", "--message", message)


def run(folder: Path, *command: str) -> None:
    """Run a command in a folder, with this installation's programs first on the path."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    try:
        subprocess.run(command, cwd=folder, env={**os.environ, "PATH": path}, check=True)
    except FileNotFoundError as fault:
        raise InputError(f"{command[0]} is not installed: install it and try again") from fault
    except subprocess.CalledProcessError as fault:
        raise InputError(f"`{' '.join(command)}` failed in {folder} (exit {fault.returncode})") from fault
