"""Locate photos with a trained localiser; needs only the localiser's folder and its backbone."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import utm

from cache.errors import RecipeMismatch
from cache.recipe import Recipe
from pipeline.locate.answer import Answer, Candidate, distance_on_earth_m
from pipeline.locate.walk import moments_of, spans_of
from stages.errors import InputError, WeightsError
from stages.extract.config import IMPORTED
from stages.images.read import UnreadableImage, read_image
from stages.index.exif import Photo, read_exif
from stages.index.sources.folder import keys_below
from stages.index.utm_zone import Zone
from stages.models.backbones.backbone import Backbone, load_backbone
from stages.models.backbones.card import describe_backbone, recorded_preprocess
from stages.models.backbones.weights import PRETRAINED, RANDOM
from stages.models.localiser.localiser import Localiser
from stages.models.localiser.predict import answer, answer_walks, predict
from stages.models.localiser.walk import LookAt, WalkTimes

Features = npt.NDArray[np.floating[Any]]

__all__ = ["PhotoLocaliser", "photos_of"]


class PhotoLocaliser:
    """A trained localiser together with its backbone; make one with `load`."""

    def __init__(self, trained: Localiser, backbone: Backbone) -> None:
        self.trained = trained
        self.backbone = backbone
        self._process = os.getpid()

    @classmethod
    def load(
        cls, folder: str | Path, *, weights: str | Path | None = None, device: str = "cpu"
    ) -> PhotoLocaliser:
        """Return the localiser in `folder` with its backbone.

        Parameters
        ----------
        folder : str or Path
            Written by `pipeline train-heads`; no other file of the project is needed.
        weights : str or Path, optional
            The backbone's weights; by default the published ones, if the localiser was trained on them.
        device : str
            Such as "cpu" or "cuda".

        Raises
        ------
        InputError
            If there is no localiser, it has no classes, or it was trained on imported features.
        WeightsError
            If the weights are not available, or are not those that it was trained on.
        RecipeMismatch
            If this version preprocesses images differently from the one it was trained with.
        """
        trained = Localiser.load(Path(folder), device)
        if not len(trained.places):
            raise InputError(f"{folder} has no classes: train it on at least one class")
        recipe = trained.recipe
        if recipe.backbone == IMPORTED:
            raise InputError(
                f"{folder} was trained on features imported as {recipe.weights}: locating photos needs the "
                "model that made them. Make features of the photos with that model, import them with "
                f"`pipeline import features --split queries --name {recipe.weights}`, and run `pipeline eval`"
            )
        setting = _setting_of(recipe, weights, folder)
        _require_recipe(recipe, setting, folder)
        backbone = load_backbone(
            recipe.backbone,
            weights=setting,
            image_size=recipe.image_size,
            outputs=tuple(recipe.outputs),
            device=device,
            precision=recipe.precision,
        )
        backbone.preprocess_as(recipe.preprocessing)
        return cls(trained, backbone)

    def locate(self, photo: str | Path, *, top: int = 5) -> Answer:
        """Return where a photo was taken.

        Parameters
        ----------
        photo : str or Path
            An image file.
        top : int
            Number of places; fewer if the localiser knows fewer.

        Raises
        ------
        UnreadableImage
            If the file cannot be read as an image.
        """
        self._adapt_to_fork()
        photo = Path(photo)
        return _answer(photo, *self._places(self._features(photo), top))

    def locate_all(self, photos: Iterable[str | Path], *, top: int = 5) -> Iterator[Answer | UnreadableImage]:
        """Yield an answer per photo, or the error of an unreadable one."""
        for photo in photos:
            try:
                yield self.locate(photo, top=top)
            except UnreadableImage as error:
                yield error

    def locate_walk(
        self,
        photos: Iterable[str | Path],
        *,
        speed_m_s: float,
        look_at: LookAt = "whole",
        fps: float | None = None,
        top: int = 5,
    ) -> list[Answer | UnreadableImage]:
        """Return an answer per photo, based on all photos of its walk, or the error of an unreadable one.

        The confidence is the share of the evidence near the first place; no answer is withheld. Photos that
        were taken by one camera and lie in one folder are a walk; EXIF times give their order.

        Parameters
        ----------
        photos : iterable of str or Path
            Image files.
        speed_m_s : float
            How fast the photographer moves: 1.4 on foot, about 8 in a car.
        look_at : {"whole", "past"}
            Use all photos of the walk, or only those before each photo.
        fps : float, optional
            The photos are frames of a video in their order, so many a second.
        top : int
            Number of places; fewer if the localiser knows fewer.
        """
        self._adapt_to_fork()
        outcomes: list[Answer | UnreadableImage] = []
        readable, features = [], []
        for number, photo in enumerate(map(Path, photos)):
            try:
                features.append(self._features(photo))
                readable.append((number, photo))
            except UnreadableImage as error:
                outcomes.append(error)
        moments = moments_of([photo for _, photo in readable], fps=fps)
        if not moments:
            return outcomes
        times = WalkTimes(
            np.array([moment.seconds for moment in moments]),
            [moment.session for moment in moments],
            look_at,
            speed_m_s,
        )
        fused = answer_walks(self.trained, np.concatenate(features), times, top=top)
        spans = spans_of(moments, times.walks, look_at)
        for row, ((number, photo), span) in enumerate(zip(readable, spans, strict=True)):
            places = self._candidates(fused.positions[row], fused.mass[row], fused.class_id[row])
            confidence = round(float(fused.confidence[row]), 4)
            outcomes.insert(number, replace(_answer(photo, places, confidence, abstained=False), walk=span))
        return outcomes

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

    def _features(self, photo: Path) -> Features:
        """Features (1, F) as in the store; one photo per pass, so that other photos do not change them."""
        preprocess = self.backbone.preprocess
        pixels = preprocess(read_image(photo, decode_at_least=preprocess.decode_at_least))
        pooled = self.backbone(torch.from_numpy(pixels)[None])
        joined = torch.cat([pooled[name] for name in self.trained.inputs], dim=1)
        return joined.cpu().numpy().astype(self.trained.recipe.dtype)

    def _places(self, features: Features, top: int) -> tuple[tuple[Candidate, ...], float | None, bool]:
        """Places, confidence of the first, and whether it is too low."""
        if self.trained.meta.get("fusion") is None:
            best = predict(self.trained, features, top=top, score="softmax")
            positions, scores, class_ids = best.positions[0], best.score[0], best.class_id[0]
            confidence, abstained = math.nan, False
        else:
            fused = answer(self.trained, features, top=top)
            positions, scores, class_ids = fused.positions[0], fused.mass[0], fused.class_id[0]
            confidence, abstained = float(fused.confidence[0]), bool(fused.abstain[0])
        places = self._candidates(positions, scores, class_ids)
        return places, None if math.isnan(confidence) else round(confidence, 4), abstained

    def _candidates(
        self, positions: Features, scores: Features, class_ids: npt.NDArray[np.int64]
    ) -> tuple[Candidate, ...]:
        return tuple(
            self._place(position.tolist(), float(score), int(class_id))
            for position, score, class_id in zip(positions, scores, class_ids, strict=True)
            if class_id >= 0
        )

    def _place(self, position: list[float], score: float, class_id: int) -> Candidate:
        east, north = (round(value, 2) for value in position)
        classes = self.trained.classes
        latitude = longitude = None
        if classes.zone:
            zone = Zone.of(classes.zone)
            degrees = utm.to_latlon(east, north, zone.number, northern=zone.northern, strict=False)
            latitude, longitude = (round(float(value), 7) for value in degrees)
        images = int(self.trained.places.images[class_id])
        return Candidate(latitude, longitude, east, north, classes.zone, round(score, 5), class_id, images)


def _answer(photo: Path, places: tuple[Candidate, ...], confidence: float | None, abstained: bool) -> Answer:
    """Return an answer with the photo's EXIF position and its distance from the first place."""
    exif = _exif_position(photo)
    first, distance_m = places[0], None
    if exif is not None and first.latitude is not None and first.longitude is not None:
        distance_m = round(distance_on_earth_m(exif, (first.latitude, first.longitude)), 1)
    return Answer(photo, places, confidence, abstained, exif, distance_m)


def photos_of(paths: Iterable[Path]) -> list[Path]:
    """Return the photos of paths: files as they are, folders as all images below them.

    Raises
    ------
    InputError
        If a folder holds no image.
    """
    photos: list[Path] = []
    for path in paths:
        if not path.is_dir():
            photos.append(path)
            continue
        below = [path / key for key in keys_below(path)]
        if not below:
            raise InputError(f"{path} holds no images: name a folder that contains photos")
        photos += below
    return photos


def _setting_of(recipe: Recipe, weights: str | Path | None, folder: str | Path) -> str:
    if weights is not None:
        return str(weights)
    if recipe.weights in (PRETRAINED, RANDOM):
        return recipe.weights
    raise WeightsError(
        f"{folder} was trained on features of the weights file {recipe.weights!r}: "
        "name that file with --weights FILE"
    )


def _require_recipe(recipe: Recipe, setting: str, folder: str | Path) -> None:
    """Reject other weights or another preprocessing before the backbone is loaded."""
    card = describe_backbone(
        recipe.backbone,
        weights=setting,
        image_size=recipe.image_size,
        outputs=tuple(recipe.outputs),
    )
    card = replace(card, preprocess=recorded_preprocess(card, recipe.preprocessing))
    if card.weights_id != recipe.weights_id:
        raise WeightsError(
            f"{setting!r} are not the weights that {folder} was trained on "
            f"(SHA-256 {card.weights_id[:12]}... instead of {recipe.weights_id[:12]}..., "
            f"setting {recipe.weights!r}): "
            "name the right file with --weights FILE"
        )
    # Here Pillow decodes the photos, whichever decoder read the training images.
    preprocessing = {**recipe.preprocessing, **card.preprocessing}
    current = replace(recipe, preprocessing=preprocessing, outputs=card.outputs)
    differences = current.differences(recipe)
    if differences:
        raise RecipeMismatch(
            f"{folder} was trained with another version of placecache ({'; '.join(differences)}): "
            "run `pipeline extract` and `pipeline train-heads` again"
        )


def _exif_position(photo: Path) -> tuple[float, float] | None:
    exif = read_exif(photo)
    return (exif.latitude, exif.longitude) if isinstance(exif, Photo) else None
