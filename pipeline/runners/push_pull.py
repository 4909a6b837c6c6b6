"""A localiser sent to, and fetched from, a folder, object storage or the Hugging Face hub."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cache.storage.paths import LocalPath, StoragePath, storage_path
from pipeline.project.paths import Paths
from pipeline.runners.model_card import model_card
from stages.errors import InputError
from stages.files import new_folder, note_of, open_parquet, read_json, sha256_of
from stages.models.localiser.exemplar_photos import NAME as PHOTOS
from stages.models.localiser.exemplar_photos import SHARED as DIGESTS
from stages.models.localiser.io import FILES, digest_of_folder
from stages.models.localiser.localiser import Localiser

CARD = "README.md"
HUB = "hf://"
_MADE_BY = "pipeline eval"

Facts = list[tuple[str, object]]


def push(paths: Paths, target: str, *, model: Path | None, licence: str, photos: bool) -> Facts:
    """Send a localiser with its card and the digests of its files, and return the lines to print.

    Names and positions of the exemplars' photos are left out unless `photos` is set: no answer needs them.

    Raises
    ------
    InputError
        If there is no sound localiser, or the target exists or cannot be reached; a hub repository may exist.
    StoreError
        If object storage cannot be reached.
    """
    if not re.fullmatch(r"[A-Za-z0-9.-]+", licence):
        raise InputError(f"--licence is {licence!r}: expected an identifier of the hub, such as cc-by-4.0")
    model = model or paths.localiser
    localiser = Localiser.load(model)
    details = _details(paths, model)
    if localiser.exemplars is not None and not photos:
        localiser.exemplars = replace(localiser.exemplars, photos=None)
    named = localiser.exemplars is not None and localiser.exemplars.photos is not None
    files = [*FILES, PHOTOS] if named else FILES
    with _new_target(target) as folder:
        for name in files:
            shutil.copyfile(model / name, folder / name)
        address = target if target.startswith(HUB) else "ADDRESS"
        card = model_card(localiser, details, address=address, licence=licence)
        (folder / CARD).write_text(card, encoding="utf-8")
        # Without the card: people edit theirs on the hub.
        lines = [f"{sha256_of(folder / name)}  {name}\n" for name in files]
        (folder / DIGESTS).write_text("".join(lines), encoding="utf-8")
    results = f"LR@1 {details['classify']['LR@1']:.1f}" if details else f"none: run `{_MADE_BY}`, push again"
    return [("places", len(localiser.places)), ("results in the card", results), ("target", target)]


def pull(paths: Paths, target: str, folder: Path | None) -> Facts:
    """Fetch a localiser into a new folder once all digests are right, and return the lines to print.

    Raises
    ------
    InputError
        If the folder exists, the target cannot be reached, or a file is missing or differs from its digest.
    StoreError
        If object storage cannot be reached.
    """
    folder = folder or paths.localiser
    with new_folder(folder) as partial, _source(target) as source:
        digests = _digests(source, target)
        for name in (*FILES, *({PHOTOS} & digests.keys())):
            content = _content(source, name, target)
            if hashlib.sha256(content).hexdigest() != digests.get(name):
                raise InputError(
                    f"{name} of {target} is damaged or was changed (its SHA-256 is not that in {DIGESTS}): "
                    "push the localiser again"
                )
            (partial / name).write_bytes(content)
        for name in (CARD, DIGESTS):
            (partial / name).write_bytes(_content(source, name, target))
        meta = read_json(partial / "meta.json", made_by="pipeline push")
    return [("classes", meta.get("classes")), ("backbone", meta["recipe"]["backbone"]), ("folder", folder)]


def _details(paths: Paths, model: Path) -> dict[str, Any]:
    """Return the metrics of the project's last evaluation; {} if it was of another localiser."""
    if not (paths.details.exists() and paths.predictions.exists()):
        return {}
    with open_parquet(paths.predictions, made_by=_MADE_BY) as file:
        origin = note_of(file, paths.predictions, made_by=_MADE_BY).get("origin", {})
    expected = sha256_of(paths.details), digest_of_folder(model)
    if (origin.get("details"), origin.get("localiser")) != expected:
        return {}
    return read_json(paths.details, made_by=_MADE_BY)


@contextmanager
def _new_target(target: str) -> Iterator[Path]:
    """Yield an empty folder; if the block succeeds, its files are at the target."""
    if target.startswith(HUB):
        with TemporaryDirectory() as folder:
            yield Path(folder)
            _upload(target, Path(folder))
        return
    place = storage_path(target)
    if isinstance(place, LocalPath):
        with new_folder(Path(place)) as path:
            yield path
        return
    if place.sizes():
        raise InputError(f"{target} exists: delete it, or name another folder")
    with TemporaryDirectory() as folder:
        yield Path(folder)
        files = sorted(Path(folder).iterdir(), key=lambda file: file.name == DIGESTS)
        for file in files:  # the digests last: without them nothing can be pulled
            (place / file.name).write_bytes(file.read_bytes())


@contextmanager
def _source(target: str) -> Iterator[StoragePath]:
    """Yield where a pushed localiser can be read."""
    if not target.startswith(HUB):
        yield storage_path(target)
        return
    with TemporaryDirectory() as folder:
        _download(target, Path(folder))
        yield LocalPath(folder)


def _digests(source: StoragePath, target: str) -> dict[str, str]:
    lines = _content(source, DIGESTS, target).decode("utf-8", "replace").splitlines()
    pairs = (line.split(maxsplit=1) for line in lines)
    return {pair[1]: pair[0] for pair in pairs if len(pair) == 2}


def _content(source: StoragePath, name: str, target: str) -> bytes:
    try:
        return (source / name).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"{target} holds no complete localiser ({name} is missing): expected what `pipeline push` wrote"
        ) from None


def _upload(target: str, folder: Path) -> None:
    """Send a folder to a repository of the hub in one commit; a new repository is private."""
    repository, revision = _repository(target)
    with _hub_errors(target):
        from huggingface_hub import HfApi  # takes half a second to import

        hub = HfApi()
        hub.create_repo(repository, private=True, exist_ok=True)
        hub.upload_folder(
            repo_id=repository,
            folder_path=folder,
            revision=revision,
            delete_patterns=[PHOTOS],  # of an earlier push
            commit_message="Push a localiser",
        )


def _download(target: str, folder: Path) -> None:
    """Fetch the files of one commit from a repository of the hub."""
    repository, revision = _repository(target)
    with _hub_errors(target):
        from huggingface_hub import HfApi

        names = [*FILES, PHOTOS, CARD, DIGESTS]
        HfApi().snapshot_download(repository, revision=revision, local_dir=folder, allow_patterns=names)


def _repository(target: str) -> tuple[str, str | None]:
    """Return repository and revision of an address such as hf://user/name or hf://user/name@v1."""
    match = re.fullmatch(r"hf://([\w.-]+/[\w.-]+)(?:@([\w./-]+))?/?", target)
    if match is None:
        raise InputError(f"{target} is not a repository of the hub: expected hf://user/name")
    return match[1], match[2]


@contextmanager
def _hub_errors(target: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(
            f"{target} cannot be reached ({type(error).__name__}: {reason}): check its name and the network, "
            "and log in with `hf auth login`"
        ) from error
