"""Locate photos with a folder written by `pipeline export model`; needs only onnxruntime, NumPy and Pillow.

Run `python locate_onnx.py FOLDER photo.jpg ...`. For each photo it prints the best places: latitude,
longitude, cosine and probability. `pipeline locate` is more accurate: it also compares photos with the stored
exemplars and fuses neighbouring cells, which needs the package.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

TOP = 5
SHORTLIST = 64  # best places over which probabilities are normalised


def preprocess(photo, rules):
    """Return the pixels (1, S, S, 3) that the graph takes; it normalises them itself."""
    if rules.get("crop_mode", "center") != "center":
        sys.exit(f"crop_mode {rules['crop_mode']}: see the steps in localiser.json")
    image = Image.open(photo)
    image.draft(None, (rules["decode_at_least"],) * 2)  # large JPEGs are decoded at a reduced size
    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    side, resize, shorter = rules["image_size"], rules["resize"], min(image.size)
    size = tuple(resize * length // shorter for length in image.size)
    image = image.convert("RGB").resize(size, Image.Resampling[rules["interpolation"].upper()])
    left, top = (round((length - side) / 2) for length in size)
    return np.asarray(image.crop((left, top, left + side, top + side)))[None]


def locate(session, model, photo):
    """Return latitude, longitude, cosine and probability of the best places, best first."""
    names = [output.name for output in session.get_outputs()]
    values = session.run(names, {"pixels": preprocess(photo, model["preprocessing"])})
    scores = {name: value[0] for name, value in zip(names, values, strict=True)}
    # The evidence is the calibrated cosine; a localiser that was not calibrated has none, nor probabilities.
    ranked = scores.get("evidence", scores["cosine"])
    best = np.argsort(-ranked, kind="stable")[:SHORTLIST]
    weights = np.exp(ranked[best] - ranked[best[0]]) * (1.0 if "evidence" in scores else np.nan)
    columns = [np.array(model["places"][axis]) for axis in ("latitude", "longitude")]
    columns += [scores["cosine"]]
    return [
        (*(float(column[place]) for column in columns), float(weight / weights.sum()))
        for place, weight in zip(best[:TOP], weights, strict=False)
    ]


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    description = json.loads((folder / "localiser.json").read_text(encoding="utf-8"))
    graph = onnxruntime.InferenceSession(folder / "localiser.onnx", providers=["CPUExecutionProvider"])
    for name in sys.argv[2:]:
        for latitude, longitude, cosine, share in locate(graph, description, name):
            print(f"{name} {latitude:.7f} {longitude:.7f} cosine {cosine:.4f} probability {share:.4f}")
