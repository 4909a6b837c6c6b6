"""Creating a project: committed at once, in one step or not at all, never a Git repository inside another."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.project import init as project_init
from pipeline.project.init import make_project
from stages.errors import ConfigError, InputError


def git(folder: Path, *arguments: str) -> list[str]:
    done = subprocess.run(("git", *arguments), cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.splitlines()


def commit_something(folder: Path, name: str) -> None:
    (folder / name).write_text("content\n")
    git(folder, "add", name)
    git(folder, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--message", name)


@pytest.fixture
def repository(tmp_path):
    """A Git repository with one commit, and a staged file that is nobody else's to commit."""
    git(tmp_path, "init", "--quiet")
    commit_something(tmp_path, "code.py")
    (tmp_path / "staged.py").write_text("")
    git(tmp_path, "add", "staged.py")
    return tmp_path


def test_a_new_project_is_committed_and_clean(tmp_path):
    assert make_project(tmp_path / "city", {"partition.cell_m": 20.0}) is None
    project = tmp_path / "city"
    assert len(git(project, "log", "--oneline")) == 1
    assert git(project, "status", "--short") == []
    assert "cell_m: 20.0" in "\n".join(git(project, "show", "HEAD:params.yaml"))
    assert {"/data/", "/dvc_plots/"} <= set((project / ".gitignore").read_text().splitlines())
    assert [path.name for path in tmp_path.iterdir()] == ["city"]


@pytest.mark.parametrize("settings", [{"partition.cel_m": 1.0}, {"partition.cell_m": -5.0}])
@pytest.mark.parametrize("exists", [True, False])
def test_a_wrong_setting_leaves_nothing_behind(tmp_path, settings, exists):
    folder = tmp_path / "city"
    if exists:
        folder.mkdir()
        (folder / "photo.jpg").touch()
    before = set(tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match=r"cell?_m"):
        make_project(folder, settings)
    assert set(tmp_path.rglob("*")) == before


def test_without_git_nothing_is_left_behind(tmp_path, monkeypatch):
    def missing(*_):
        raise InputError("git is not installed: install it and try again")

    monkeypatch.setattr(project_init, "run", missing)
    with pytest.raises(InputError, match="git is not installed"):
        make_project(tmp_path / "city", {})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_photos_keeps_them_uncommitted(tmp_path):
    (tmp_path / "photo.jpg").touch()
    (tmp_path / ".gitignore").write_text("*.tmp")
    assert make_project(tmp_path, {}) is None
    assert git(tmp_path, "status", "--short") == ["?? photo.jpg"]
    assert (tmp_path / ".gitignore").read_text().splitlines()[:2] == ["*.tmp", "/data/"]


@pytest.mark.parametrize("place", [".", "models/city"])
def test_an_existing_repository_is_used(repository, capsys, place):
    with pytest.raises(SystemExit) as stopped:
        main(["init", str(repository / place)])
    assert not stopped.value.code
    assert (
        f"is in the Git repository {repository}: its new files are committed there" in capsys.readouterr().out
    )
    assert sorted(path.parent for path in repository.rglob(".git")) == [repository]
    assert git(repository, "status", "--short") == ["A  staged.py"]
    committed = git(repository / place, "ls-files")
    assert {"params.yaml", "dvc.yaml", ".dvc/config", ".gitignore"} <= set(committed)


def test_a_folder_that_git_ignores_gets_its_own_repository(repository):
    (repository / ".gitignore").write_text("/demo/\n")
    assert make_project(repository / "demo", {}) is None
    assert (repository / "demo" / ".git").is_dir()


def test_an_existing_project_is_not_touched(tmp_path):
    (tmp_path / "params.yaml").write_text("mine")
    with pytest.raises(InputError, match=r"already holds params\.yaml"):
        make_project(tmp_path, {})
    assert (tmp_path / "params.yaml").read_text() == "mine"
