"""Create a project folder: settings, stages, DVC, and a Git repository unless there is one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ruamel.yaml import YAML

from pipeline.project.params import change_setting, load_params
from stages.errors import ConfigError, InputError
from stages.files import replacing

FILES = ("params.yaml", "dvc.yaml", "experiments.yaml")
IGNORED = (
    "/data/",
    "/models/",
    "/plots/",
    "/dvc_plots/",
    "/split/",
    "/experiments/",
    "/predictions.parquet",
    "/details.json",
    "/timings.json",
    "/report.html",
    "/.*.lock",
)
DVC_FILES = {  # what `dvc init` writes, without its need for a Git repository at this very place
    ".dvc/config": "[core]\n    analytics = false\n",
    ".dvc/.gitignore": "/config.local\n/tmp\n/cache\n",
    ".dvcignore": "# Patterns of files that DVC should ignore: https://dvc.org/doc/user-guide/dvcignore\n",
}


def template(name: str) -> Path:
    """Return the shipped copy of params.yaml, dvc.yaml or experiments.yaml.

    A wheel holds them inside the package; in a source checkout they are at its root.
    """
    packaged = Path(__file__).parent / "files" / name
    return packaged if packaged.exists() else Path(__file__).parents[2] / name


def make_project(
    folder: Path, settings: Mapping[str, object], *, add: Callable[[Path], None] | None = None
) -> Path | None:
    """Create a project in `folder` and commit it; after an error nothing has changed.

    Parameters
    ----------
    folder : Path
        Where; created if it does not exist.
    settings : mapping
        `section.key` -> value: settings that differ from the defaults.
    add : callable, optional
        Writes further files, which are not committed, into the folder that it gets.

    Returns
    -------
    Path or None
        The existing Git repository in which the project was committed; None if it has one of its own.

    Raises
    ------
    InputError
        If the folder already holds a project.
    ConfigError
        If a setting does not exist or its value is not valid.
    """
    present = [name for name in FILES if (folder / name).exists()]
    if present:
        raise InputError(f"{folder} already holds {' and '.join(present)}: edit them, or use another folder")
    repository = repository_of(folder)
    # Written beside its place or, if the folder exists, inside it: on one disk, so that moving is atomic.
    draft = (folder if folder.exists() else folder.resolve().parent) / f".new-project-{uuid.uuid4().hex}"
    draft.mkdir(parents=True)
    try:
        files = _write_files(folder, draft, settings)
        if add is not None:
            add(draft)
        if repository is None:
            run(draft, "git", "init", "--quiet")
            commit(draft, files, "Create the project")
        _move(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    if repository is not None:
        commit(folder, files, f"Create the project {folder.resolve().name}")
    return repository


def repository_of(folder: Path) -> Path | None:
    """Return the Git repository that `folder` is part of; None if there is none or it ignores the folder."""
    place = folder.resolve()
    for above in (place, *place.parents):
        if (above / ".git").exists():
            check = ("git", "-C", str(above), "check-ignore", "--quiet", f"{place}/params.yaml")
            ignored = subprocess.run(check, check=False, capture_output=True).returncode == 0
            return None if ignored and above != place else above
    return None


def _write_files(folder: Path, draft: Path, settings: Mapping[str, object]) -> list[str]:
    """Write the files that a project in `folder` needs to `draft`; return their names."""
    for name in FILES:
        shutil.copyfile(template(name), draft / name)
    set_params(draft / "params.yaml", settings)
    load_params(draft / "params.yaml")
    content = {} if (folder / ".dvc").exists() else dict(DVC_FILES)
    ignore = folder / ".gitignore"
    own = ignore.read_text(encoding="utf-8").splitlines() if ignore.exists() else []
    content[".gitignore"] = "\n".join([*own, *(line for line in IGNORED if line not in own), ""])
    for name, text in content.items():
        if name == ".dvcignore" and (folder / name).exists():
            continue
        (draft / name).parent.mkdir(exist_ok=True)
        (draft / name).write_text(text, encoding="utf-8")
    return sorted(str(path.relative_to(draft)) for path in draft.rglob("*") if path.is_file())


def _move(draft: Path, folder: Path) -> None:
    """Move all files to their place; params.yaml, which makes the folder a project, comes last."""
    if not folder.exists():
        draft.rename(folder)
        return
    replaced = (".gitignore",)
    in_the_way = [path.name for path in draft.iterdir() if (folder / path.name).exists()]
    if taken := [name for name in in_the_way if name not in replaced]:
        raise InputError(f"{folder} already holds {' and '.join(taken)}: use another folder")
    for path in sorted(draft.iterdir(), key=lambda path: path.name == "params.yaml"):
        path.rename(folder / path.name)


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
            raise ConfigError(f"{name} is not a setting of {path.name}: use a name from that file")
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
    """Commit the project folder, so that `dvc exp run` and `dvc metrics diff` have a baseline."""
    commit(folder, ["."], message)


def commit(folder: Path, files: Sequence[str], message: str) -> None:
    """Commit files or folders of a Git repository if they changed, and nothing else that is staged."""
    run(folder, "git", "add", "--all", "--", *files)
    changes = ("git", "diff", "--cached", "--quiet", "--", *files)
    if subprocess.run(changes, cwd=folder, check=False).returncode:
        known = subprocess.run(("git", "config", "user.email"), cwd=folder, check=False, capture_output=True)
        who = () if known.stdout else ("-c", "user.name=placecache", "-c", "user.email=placecache@localhost")
        run(folder, "git", *who, "commit", "--quiet", "--message", message, "--", *files)


def run(folder: Path, *command: str) -> None:
    """Run a command in a folder, with this installation's programs first on the path."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    try:
        subprocess.run(command, cwd=folder, env={**os.environ, "PATH": path}, check=True)
    except FileNotFoundError as fault:
        raise InputError(f"{command[0]} is not installed: install it and try again") from fault
    except subprocess.CalledProcessError as fault:
        raise InputError(f"`{' '.join(command)}` failed in {folder} (exit {fault.returncode})") from fault
