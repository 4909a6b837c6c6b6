"""The model card of a localiser: the README.md that the Hugging Face hub shows, with its front matter."""

from __future__ import annotations

import re
from importlib import resources
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined

from stages.files import printable
from stages.index.utm_zone import Zone
from stages.models.backbones.registry import licence_of
from stages.models.backbones.weights import RANDOM
from stages.models.localiser.localiser import Localiser

Rows = list[tuple[str, object]]
_CONFIDENCE = {
    "mean": "mean confidence, percent",
    "ECE": "expected calibration error, percent",
    "AUROC right": "AUROC, right against wrong answers",
    "AUROC outside": "AUROC, known against unknown places",
    "abstained": "answers withheld, percent",
}


def model_card(localiser: Localiser, details: dict[str, Any], *, address: str, licence: str) -> str:
    """Return the card of a localiser.

    Parameters
    ----------
    localiser
        Its meta, classes and exemplars are described.
    details
        Content of details.json; empty if the localiser was not evaluated.
    address
        What `pipeline pull` takes.
    licence
        Of the localiser, as the hub names it, such as "cc-by-4.0"; "other" if it is not stated.
    """
    template = (resources.files("pipeline.runners") / "model_card.md").read_text(encoding="utf-8")
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    return environment.from_string(template).render(
        licence=licence,
        address=address,
        places=len(localiser.places),
        tables={"Data": _data(localiser), "Cells": _cells(localiser), "Model": _model(localiser)},
        results=_results(details),
        calibration=_calibration(localiser),
        confidence=_confidence(details),
        reveals=_reveals(localiser),
    )


def _data(localiser: Localiser) -> Rows:
    training = localiser.meta["training"]
    rows: Rows = [
        (title, f"{training[name]:,}")
        for name, title in (
            ("images", "training photos"),
            ("held_out", "held out for validation and calibration"),
            ("views", "strongly augmented views of them"),
        )
        if training.get(name) is not None
    ]
    return [*rows, ("area", _area(localiser))]


def _area(localiser: Localiser) -> str:
    """Return the box around all places, rounded to 100 m."""
    centres, zone = localiser.places.centres, localiser.classes.zone
    if not zone or not len(centres):
        return "unknown: positions are metres without a UTM zone"
    latlon = Zone.of(zone).degrees(centres)
    (south, west), (north, east) = latlon.min(axis=0), latlon.max(axis=0)
    return f"latitude {south:.3f} to {north:.3f}, longitude {west:.3f} to {east:.3f} (UTM zone {zone})"


def _cells(localiser: Localiser) -> Rows:
    classes, images = localiser.classes, localiser.places.images
    rows: Rows = [
        ("places that answers name", f"{len(localiser.places):,}"),
        ("classes", f"{len(classes):,}"),
        ("groups of classes", classes.groups),
        ("side of a cell", f"{classes.cell_m:g} m"),
    ]
    if len(images):
        spread = f"{images.min():,} to {images.max():,}, median {np.median(images):g}"
        rows.append(("training photos per place", spread))
    return rows


def _model(localiser: Localiser) -> Rows:
    recipe, meta = localiser.recipe, localiser.meta
    licence = licence_of(recipe.backbone) if recipe.weights == "pretrained" else "unknown"
    weights = "untrained (random)" if recipe.weights == RANDOM else printable(recipe.weights)
    size = f"{recipe.image_size} pixels" if recipe.image_size else "its features were imported"
    return [
        ("backbone", f"`{printable(recipe.backbone)}`, {size}; not included"),
        ("weights of the backbone", f"{weights}, SHA-256 `{recipe.weights_id}`"),
        ("licence of these weights", licence),
        ("features", f"{meta['features']:,} ({', '.join(localiser.inputs)})"),
        ("its last blocks", "frozen" if localiser.tail is None else "trained, included"),
        ("embedding", f"{meta['embedding_dim']:,}"),
        ("head", f"{meta['head']['kind']}, margin {meta['head']['margin']}"),
    ]


def _results(details: dict[str, Any]) -> dict[str, Any] | None:
    """Return what the table of results shows: a row for each block with LR@N."""
    if "classify" not in details:
        return None
    classify = details["classify"]
    tops = [name.removeprefix("LR@") for name in classify if re.fullmatch(r"LR@\d+", name)]
    blocks = {name: block for name, block in details.items() if f"LR@{tops[0]}" in block}
    return {
        **{name: classify.get(name) for name in ("queries", "units", "resampled", "radius_m")},
        **{name: _number(classify.get(name)) for name in ("chance", "ceiling")},
        "tops": tops,
        "intervals": f"LR@{tops[0]} low" in classify,
        "rows": [
            (name, [*(_recall(block, top) for top in tops), f"{_number(block.get('median_error_m'))} m"])
            for name, block in blocks.items()
        ],
    }


def _recall(block: dict[str, Any], top: str) -> str:
    name = f"LR@{top}"
    if f"{name} low" not in block:
        return _number(block[name])
    return f"{_number(block[name])} ({_number(block[f'{name} low'])}-{_number(block[f'{name} high'])})"


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1f}"


def _calibration(localiser: Localiser) -> str:
    stored = localiser.meta.get("calibration") or {}
    if not stored.get("images"):  # too few were held out: the configured numbers are in use
        return ""
    radius_m = localiser.meta.get("fusion", {}).get("radius_m")
    return (
        f"The confidence is the probability that the first answer lies within {radius_m} m, fitted on "
        f"{stored['images']:,} held-out training photos."
    )


def _confidence(details: dict[str, Any]) -> Rows:
    block = details.get("confidence", {})
    return [(title, block[name]) for name, title in _CONFIDENCE.items() if block.get(name) is not None]


def _reveals(localiser: Localiser) -> list[str]:
    lines = [
        "The position of every place where several photos were taken, how many, and so where the "
        "photographers were.",
        "Prototypes and a projection that were fitted to these photos. Whoever has a photo can guess whether "
        "it was among them.",
    ]
    if localiser.exemplars is not None:
        count = len(localiser.exemplars.features()[1])
        lines.append(
            f"Features of {f'{count:,}' if count else 'some'} single photos (exemplars). They tell whether a "
            "given photo is one of them, and a picture resembling the photo can be computed from them."
        )
        if localiser.exemplars.photos is not None:
            return [*lines, "File names and positions of these photos (exemplars.parquet), but no pictures."]
    return [*lines, "No pictures, and no names or times of photos."]
