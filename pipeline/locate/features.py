"""Features of photos for a trained localiser: read each photo, pass many through the backbone at once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pipeline.locate.photos import Capture, PhotoSource, read_photo
from stages.errors import InputError
from stages.images.preprocess import CENTRE, more_crops
from stages.models.backbones.backbone import Backbone
from stages.models.localiser.evidence import join_crops
from stages.models.localiser.localiser import Localiser

Features = npt.NDArray[np.floating[Any]]

_AT_ONCE_ON_A_GPU = 32
"""Photos in a forward pass. On a CPU it is one: EfficientNet-Lite0 gains 3 % with 8 and 12 % with 32."""


@dataclass(frozen=True)
class PhotoCrops:
    """A photo that was read: its EXIF data and the pixels (crops, S, S, 3) for the backbone."""

    capture: Capture
    pixels: npt.NDArray[np.uint8]


class PhotoFeatures:
    """Turns photos into the features that a localiser was trained on; threads may share it."""

    def __init__(self, trained: Localiser, backbone: Backbone, crops: int) -> None:
        self.trained = trained
        self.backbone = backbone
        self.crop_positions = (CENTRE, *more_crops(crops, backbone.preprocess.as_dict()))
        self.at_once = 1 if trained.device.type == "cpu" else _AT_ONCE_ON_A_GPU
        self._process = os.getpid()

    def read(self, photo: PhotoSource, *, name: str | None = None) -> PhotoCrops:
        """Return a photo decoded and cropped; see `read_photo` for the parameters and errors."""
        preprocess = self.backbone.preprocess
        capture, image = read_photo(photo, decode_at_least=preprocess.decode_at_least, name=name)
        positions = self.crop_positions if image.width != image.height else (CENTRE,)
        crops = [replace(preprocess, crop_at=position)(image) for position in positions]
        return PhotoCrops(capture, np.stack(crops))

    def of(self, photos: Sequence[PhotoCrops]) -> list[Features]:
        """Return the features of each photo, (1, F), or (1, V, F) with a tail, from one forward pass."""
        self._adapt_to_fork()
        pixels = np.concatenate([photo.pixels for photo in photos])
        pooled = self.backbone(torch.from_numpy(pixels))
        joined = torch.cat([pooled[name] for name in self.trained.inputs], dim=1)
        features = joined.cpu().numpy().astype(self.trained.recipe.dtype)
        ends = np.cumsum([len(photo.pixels) for photo in photos])
        return [self._joined(own) for own in np.split(features, ends[:-1])]

    def _joined(self, features: Features) -> Features:
        # A square photo has one crop; repeated, it goes together with photos of several.
        repeated = np.resize(features, (len(self.crop_positions), features.shape[1]))
        return join_crops(self.trained, [crop[None] for crop in repeated])

    def _adapt_to_fork(self) -> None:
        """Use one thread in a forked process: the threads of its parent do not exist there."""
        if self._process == os.getpid():
            return
        if self.trained.device.type != "cpu":
            raise InputError(
                f"this localiser was loaded in process {self._process} and uses {self.trained.device}, "
                f"which its fork {os.getpid()} cannot: load it in each process"
            )
        torch.set_num_threads(1)
        self._process = os.getpid()
