"""The JSON file beside an exported graph: what it takes, what it answers, and what each place is."""

from __future__ import annotations

from typing import Any

from stages.images.preprocess import Preprocess
from stages.index.utm_zone import Zone
from stages.models.backbones.registry import licence_of
from stages.models.localiser.localiser import Localiser
from stages.models.onnx_export.convert import INPUT
from stages.models.onnx_export.graph import COSINE, EVIDENCE

FORMAT = 1
_OTHER_CROPS = {
    "squash": "resize to {resize} x {resize} pixels ({interpolation}, antialiased)",
    "border": "resize the longer side to {resize} pixels ({interpolation}, antialiased), in a square of the "
    "mean colour",
}
_CROP = "resize the shorter side to {resize} pixels ({interpolation}, antialiased)"


def describe(localiser: Localiser, preprocess: Preprocess) -> dict[str, Any]:
    """Return the content of the JSON file that follows from the localiser alone."""
    recipe = localiser.recipe
    return {
        "format": FORMAT,
        "input": {"name": INPUT, "type": "uint8", "shape": ["batch", *[preprocess.image_size] * 2, 3]},
        "outputs": _outputs(localiser),
        "preprocessing": {**preprocess.as_dict(), "steps": _steps(preprocess)},
        "backbone": {
            "name": recipe.backbone,
            "weights": recipe.weights,
            "weights_sha256": recipe.weights_id,
            "licence": licence_of(recipe.backbone),
        },
        "zone": localiser.classes.zone,
        "places": _places(localiser),
    }


def _outputs(localiser: Localiser) -> dict[str, str]:
    outputs = {COSINE: "(batch, places): likeness of the photo to each place, -1 to 1"}
    if localiser.calibration is not None:
        outputs[EVIDENCE] = (
            "(batch, places): cosine over the temperature of the place's group; rank places by it, and a "
            "softmax over the best 64 gives probabilities"
        )
    return outputs


def _steps(preprocess: Preprocess) -> list[str]:
    values = preprocess.as_dict()
    side = preprocess.image_size
    return [
        f"a JPEG may be decoded at 1/2, 1/4 or 1/8, if both sides keep {preprocess.decode_at_least} pixels",
        "turn upright by EXIF, convert to RGB; transparent pixels become white",
        "crop the longer side to 32 times the shorter one, if it exceeds that",
        _OTHER_CROPS.get(preprocess.crop_mode, _CROP).format(**values),
        f"cut out the centre square of {side} pixels",
        "normalise: part of the graph, which takes uint8",
    ]


def _places(localiser: Localiser) -> dict[str, list[Any]]:
    """Return columns with one value per place, in the order of the graph's outputs."""
    places, zone = localiser.places, localiser.classes.zone
    columns = {
        "utm_east": places.centres[:, 0].round(2).tolist(),
        "utm_north": places.centres[:, 1].round(2).tolist(),
        "group": places.group.tolist(),
        "images": places.images.tolist(),
    }
    if not zone:
        return columns
    latitude, longitude = Zone.of(zone).degrees(places.centres).round(7).T.tolist()
    return {"latitude": latitude, "longitude": longitude, **columns}
