"""Thumbnails of uploads; names that clients chose never reach the disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from pipeline.serve.uploads import Upload
from stages.eval.report.gallery import Album
from stages.images.read import decode_image


class UploadAlbum(Album):
    """The photos of a request."""

    def __init__(self, uploads: Sequence[Upload], longest_px: int, budget_bytes: int) -> None:
        super().__init__(longest_px, budget_bytes)
        self._uploads = {upload.path: upload for upload in uploads}

    def read(self, path: Path) -> Image.Image:
        """Return an upload; UnreadableImage if it cannot be read."""
        upload = self._uploads.get(path)
        return decode_image(upload.content if upload else b"", path, decode_at_least=self.longest_px)
