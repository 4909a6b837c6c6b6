"""Features of drawn pictures that show no city: training learns from them which photos to reject.

They are noise, flat colours and gradients, the project's own photos cut in squares and shuffled, and streets
of a toy city with a seed of its own. All are drawn from fixed seeds, so no picture has to be shipped and any
backbone can be used. They go through the backbone once, after the database, and are kept beside its store in
one small file.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
from PIL import Image

from cache.recipe import Recipe
from cache.storage.paths import StoragePath
from stages.extract.config import ExtractConfig
from stages.extract.plan import describe, recipe_for
from stages.images.read import UnreadableImage
from stages.index.manifest import Manifest
from stages.index.packs.reader import ImageSource
from stages.models.backbones.spec import pooled_among
from stages.toycity.config import CityConfig
from stages.toycity.draw import Renderer
from stages.toycity.streets import plan_city, plan_shots

LEAST_PHOTOS = 200
"""A smaller project draws none: its photos alone tell the city from other pictures well enough."""
PICTURES = 48
"""Pictures of each kind."""
_SIDE = 256
_CITY = CityConfig(images=300, queries=1, seed=20_001, image_px=_SIDE, outside_share=0.0)
_GRIDS = (4, 8, 16)
"""Squares along each side of a shuffled photo: with two, a photo still shows its place."""
_GRAINS = (1, 2, 4, 8, 16, 32)
"""Sides of the pixels of noise."""
_BATCH = 16

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Elsewhere:
    """Pooled features of drawn pictures.

    Attributes
    ----------
    features : dict of str to ndarray, each of shape (E, F)
        By output of the backbone.
    kinds : ndarray of str, shape (E,)
        "noise", "plain", "shuffled" or "toy city".
    """

    features: dict[str, npt.NDArray[np.floating]]
    kinds: npt.NDArray[np.str_]

    @classmethod
    def load(cls, path: StoragePath, recipe: Recipe) -> Elsewhere | None:
        """Return the features at `path`; None if there are none, or only those of another recipe."""
        try:
            with np.load(io.BytesIO(path.read_bytes())) as stored:
                if str(stored["recipe"]) != recipe.id:
                    return None
                outputs = pooled_among(recipe.outputs)
                return cls({name: stored[f"output {name}"] for name in outputs}, stored["kinds"])
        except (FileNotFoundError, KeyError, ValueError, EOFError, BadZipFile):
            return None


def extract_elsewhere(config: ExtractConfig, manifest: Manifest, path: StoragePath, device: str) -> None:
    """Draw the pictures and write their features to `path`, unless they are there or the project is small."""
    card = describe(config)
    recipe = recipe_for(config, None, 0, card)
    if manifest.rows < LEAST_PHOTOS or Elsewhere.load(path, recipe) is not None:
        return
    import torch  # slow to import: most runs return above

    from stages.devices import resolve_device
    from stages.models.backbones.backbone import load_backbone

    drawn = list(draw_elsewhere(manifest))
    backbone = load_backbone(
        config.backbone,
        weights=config.weights,
        image_size=config.image_size,
        outputs=config.stored,
        device=resolve_device(device).split(",")[0],
        precision=config.precision,
    )
    arrays: dict[str, list[npt.NDArray[np.floating]]] = {name: [] for name in pooled_among(recipe.outputs)}
    for start in range(0, len(drawn), _BATCH):
        pixels = [card.preprocess(Image.fromarray(picture)) for _, picture in drawn[start : start + _BATCH]]
        computed = backbone(torch.from_numpy(np.stack(pixels)))
        for name, parts in arrays.items():
            parts.append(computed[name].float().cpu().numpy().astype(config.dtype))
    content = io.BytesIO()
    outputs = {f"output {name}": np.concatenate(parts) for name, parts in arrays.items()}
    np.savez(content, recipe=recipe.id, kinds=[kind for kind, _ in drawn], **outputs)  # type: ignore[arg-type]
    path.write_atomic(content.getvalue())


def draw_elsewhere(manifest: Manifest) -> Iterator[tuple[str, Pixels]]:
    """Yield the kind and the pixels (S, S, 3) of each picture."""
    random = np.random.default_rng(0)
    for number in range(PICTURES):
        yield "noise", _noise(random, _GRAINS[number % len(_GRAINS)], number)
        yield "plain", _plain(random, flat=number % 2 == 0)
    source = ImageSource(manifest)
    for number, row in enumerate(np.linspace(0, manifest.rows - 1, PICTURES).astype(int).tolist()):
        try:
            photo = source.read(source.locations(row, row + 1)[0], decode_at_least=_SIDE)
        except UnreadableImage:
            continue
        yield "shuffled", _shuffled(random, photo, _GRIDS[number % len(_GRIDS)])
    city = plan_city(_CITY.images, _CITY.seed)
    renderer, shots = Renderer(city, _SIDE), plan_shots(city, _CITY)
    for number in np.linspace(0, len(shots) - 1, PICTURES).astype(int).tolist():
        yield "toy city", np.array(Image.open(io.BytesIO(renderer.photo(shots[number]))).convert("RGB"))


def _noise(random: np.random.Generator, grain: int, number: int) -> Pixels:
    """Return even or Gaussian noise, in colour or grey."""
    shape = (_SIDE // grain, _SIDE // grain, 1 if number // len(_GRAINS) % 2 else 3)
    if number // (2 * len(_GRAINS)) % 2:
        values = random.normal(random.uniform(60, 200), random.uniform(10, 60), shape).clip(0, 255)
    else:
        values = random.uniform(0, 256, shape)
    coarse = np.broadcast_to(values.astype(np.uint8), (*shape[:2], 3))
    return np.asarray(coarse.repeat(grain, axis=0).repeat(grain, axis=1))


def _plain(random: np.random.Generator, *, flat: bool) -> Pixels:
    """Return one colour, or a gradient between two in any direction."""
    first, second = random.uniform(0, 256, (2, 3))
    turn = random.uniform(0, 2 * np.pi)
    y, x = np.mgrid[0:_SIDE, 0:_SIDE] / _SIDE - 0.5
    share = np.zeros_like(x) if flat else (x * np.cos(turn) + y * np.sin(turn)) / 1.5 + 0.5
    return np.asarray((first + (second - first) * share[:, :, None]).astype(np.uint8))


def _shuffled(random: np.random.Generator, photo: Image.Image, grid: int) -> Pixels:
    """Return a photo cut into squares in random order."""
    side = _SIDE // grid
    pixels = np.array(photo.resize((_SIDE, _SIDE))).reshape(grid, side, grid, side, 3)
    squares = pixels.swapaxes(1, 2).reshape(grid * grid, side, side, 3)
    squares = squares[random.permutation(grid * grid)].reshape(grid, grid, side, side, 3)
    return np.asarray(squares.swapaxes(1, 2).reshape(_SIDE, _SIDE, 3))
