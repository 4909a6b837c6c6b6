"""From pixels to scores of places, as one module that an exporter can trace."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from stages.models.backbones.backbone import Backbone
from stages.models.localiser.localiser import Localiser
from stages.models.localiser.scoring import place_scores

COSINE, EVIDENCE = "cosine", "evidence"


class LocaliserGraph(nn.Module):
    """Preprocessed pixels in, cosines of all places out, and calibrated evidence if there is any.

    It computes what `stages.models.localiser.predict.predict` ranks by (scores "cosine" and "calibrated"),
    without the exemplars and the fusion of neighbouring cells.
    """

    def __init__(self, localiser: Localiser, backbone: Backbone) -> None:
        super().__init__()
        self.backbone, self.tail, self.projection = backbone, localiser.tail, localiser.projection
        self.inputs, self.pooled_length = localiser.inputs, localiser.pooled_length
        self.stored = getattr(torch, localiser.recipe.dtype)
        self.places = localiser.places
        prototypes = torch.cat([head.prototypes.detach() for head in localiser.heads])
        self.register_buffer("prototypes", functional.normalize(prototypes, dim=1).T.contiguous())
        calibration = localiser.calibration
        self.outputs = (COSINE,) if calibration is None else (COSINE, EVIDENCE)
        if calibration is not None:
            temperatures = np.array(calibration.temperatures)[localiser.places.group]
            self.register_buffer("temperatures", torch.from_numpy(temperatures).float())
        self.requires_grad_(False).eval()

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs of preprocessed pixels (B, S, S, 3) uint8, each (B, places) float32."""
        pooled = self.backbone.compute(pixels)
        features = torch.cat([pooled[name] for name in self.inputs], dim=1).to(self.stored)
        if self.tail is not None:
            features = self.tail(features[:, self.pooled_length :])
        cosines = self.projection(features) @ self.get_buffer("prototypes")
        if self.places.votes is not None:
            parts = [(slice(0, cosines.shape[1]), cosines)]
            cosines = place_scores(self.places.votes, parts, mean=self.places.summed).float()
        if EVIDENCE not in self.outputs:
            return (cosines,)
        return cosines, cosines / self.get_buffer("temperatures")
