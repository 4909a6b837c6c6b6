"""Locate photos with a trained localiser; needs only the localiser's folder and its backbone."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.locate.answer import Answer, answer_of, candidates
from pipeline.locate.backbone import load_backbone_of
from pipeline.locate.features import Features, PhotoCrops, PhotoFeatures
from pipeline.locate.near import Near
from pipeline.locate.photos import Capture, PhotoSource
from pipeline.locate.walk import moments_of, spans_of
from stages.errors import InputError, require
from stages.images.preprocess import MORE_CROPS, USUAL_CROPS
from stages.images.read import UnreadableImage
from stages.models.backbones.backbone import Backbone
from stages.models.localiser.localiser import Localiser
from stages.models.localiser.predict import answer, answer_walks, predict
from stages.models.localiser.walk import LookAt, WalkTimes

__all__ = ["Near", "PhotoLocaliser"]


class PhotoLocaliser:
    """A trained localiser together with its backbone; make one with `load`. Threads may share it."""

    def __init__(self, trained: Localiser, backbone: Backbone, crops: int) -> None:
        self.trained = trained
        self.backbone = backbone
        self.features = PhotoFeatures(trained, backbone, crops)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        weights: str | Path | None = None,
        device: str = "cpu",
        crops: int = USUAL_CROPS,
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
        crops : {1, 3, 5}
            Crops of each photo to average, as `eval.crops`; 1 is faster for photos that are not square.

        Raises
        ------
        InputError
            If there is no localiser, it has no classes, or it was trained on imported features.
        WeightsError
            If the weights are not available, or are not those that it was trained on.
        RecipeMismatch
            If this version preprocesses images differently from the one it was trained with.
        """
        trained = Localiser.load(Path(folder), device).freeze()
        if not len(trained.places):
            raise InputError(f"{folder} has no classes: train it on at least one class")
        require("crops", crops, crops in MORE_CROPS, "1, 3 or 5")
        backbone = load_backbone_of(trained.recipe, folder, weights=weights, device=device)
        return cls(trained, backbone, crops)

    def locate(self, photo: PhotoSource, *, top: int = 5, near: Near | None = None) -> Answer:
        """Return where a photo was taken.

        Parameters
        ----------
        photo : path, bytes, file object, PIL image, array (H, W, 3) or tensor (3, H, W)
            See `PhotoSource`.
        top : int
            Number of places; fewer if the localiser knows fewer.
        near : Near, optional
            A circle in which it was taken; places outside are no answers.

        Raises
        ------
        UnreadableImage
            If it cannot be read as an image.
        InputError
            If it is nothing of that, or no place of the localiser is in the circle.
        """
        crops = self.features.read(photo)
        (features,) = self.features.of([crops])
        return self.answer(crops.capture, features, top=top, near=near)

    def locate_all(
        self, photos: Iterable[PhotoSource], *, top: int = 5, near: Near | None = None
    ) -> Iterator[Answer | UnreadableImage]:
        """Yield an answer per photo, or the error of an unreadable one.

        Photos are read when they are needed, so an iterator may yield millions. On a GPU, 32 at a time pass
        through the backbone.
        """
        for outcome in self._stream(photos):
            if isinstance(outcome, UnreadableImage):
                yield outcome
            else:
                yield self.answer(*outcome, top=top, near=near)

    def locate_together(
        self, photos: Iterable[PhotoSource], *, top: int = 5, near: Near | None = None
    ) -> list[Answer | UnreadableImage]:
        """Return one answer for photos of one spot, after the errors of the unreadable ones.

        The evidence of all readable photos is averaged and weighs as much as that of the square root of
        their number; there is no answer if there are none.
        """
        outcomes, readable, features = self._read_all(photos)
        if readable:
            views = np.stack(features, axis=1).reshape(1, -1, features[0].shape[-1])
            answer = self.answer(readable[0][1], views, top=top, near=near, photos=len(readable))
            together = tuple(capture.path for _, capture in readable)
            outcomes.append(replace(answer, together=together))
        return outcomes

    def locate_walk(
        self,
        photos: Iterable[PhotoSource],
        *,
        speed_m_s: float,
        look_at: LookAt = "whole",
        fps: float | None = None,
        top: int = 5,
        near: Near | None = None,
    ) -> list[Answer | UnreadableImage]:
        """Return an answer per photo, based on all photos of its walk, or the error of an unreadable one.

        The confidence is the share of the evidence near the first place; no answer is withheld. Photos that
        were taken by one camera and lie in one folder are a walk; EXIF times give their order.

        Parameters
        ----------
        photos : iterable of PhotoSource
            As for `locate`; those without a path are in one folder.
        speed_m_s : float
            How fast the photographer moves: 1.4 on foot, about 8 in a car.
        look_at : {"whole", "past"}
            Use all photos of the walk, or only those before each photo.
        fps : float, optional
            The photos are frames of a video in their order, so many a second.
        top : int
            Number of places; fewer if the localiser knows fewer.
        near : Near, optional
            A circle in which all photos were taken.
        """
        outcomes, readable, features = self._read_all(photos)
        if not readable:
            return outcomes
        moments = moments_of([capture for _, capture in readable], fps=fps)
        times = WalkTimes(
            np.array([moment.seconds for moment in moments]),
            [moment.session for moment in moments],
            look_at,
            speed_m_s,
        )
        rows = np.concatenate(features)
        fused = answer_walks(self.trained, rows, times, top=top, prior=self.prior(near))
        spans = spans_of(moments, times.walks, look_at)
        for row, ((number, capture), span) in enumerate(zip(readable, spans, strict=True)):
            places = candidates(
                self.trained, fused.positions[row], fused.mass[row], fused.class_id[row], rows[row]
            )
            answer = answer_of(capture, places, float(fused.confidence[row]), abstained=False)
            outcomes.insert(number, replace(answer, walk=span))
        return outcomes

    def _read_all(
        self, photos: Iterable[PhotoSource]
    ) -> tuple[list[Answer | UnreadableImage], list[tuple[int, Capture]], list[Features]]:
        """Return the errors of unreadable photos; number, EXIF data and features of the others."""
        errors: list[Answer | UnreadableImage] = []
        readable, features = [], []
        for number, outcome in enumerate(self._stream(photos)):
            if isinstance(outcome, UnreadableImage):
                errors.append(outcome)
                continue
            capture, own = outcome
            readable.append((number, capture))
            features.append(own)
        return errors, readable, features

    def _stream(self, photos: Iterable[PhotoSource]) -> Iterator[tuple[Capture, Features] | UnreadableImage]:
        """Yield EXIF data and features of each photo, or its error; a few photos are in memory at a time."""
        waiting = iter(photos)
        while some := list(itertools.islice(waiting, self.features.at_once)):
            outcomes = [self._crops(photo) for photo in some]
            readable = [outcome for outcome in outcomes if isinstance(outcome, PhotoCrops)]
            features = iter(self.features.of(readable) if readable else ())
            for outcome in outcomes:
                if isinstance(outcome, PhotoCrops):
                    yield outcome.capture, next(features)
                else:
                    yield outcome

    def _crops(self, photo: PhotoSource) -> PhotoCrops | UnreadableImage:
        try:
            return self.features.read(photo)
        except UnreadableImage as error:
            return error

    def prior(self, near: Near | None) -> npt.NDArray[np.float64] | None:
        """Return the log weight of each place, (places,); InputError if none can be an answer."""
        if near is None:
            return None
        if self.trained.meta.get("fusion") is None:
            raise InputError(
                f"near {near}: this localiser does not say how to fuse evidence; "
                "run `pipeline train-heads` again"
            )
        return near.log_prior(self.trained.places, self.trained.classes.zone)

    def answer(
        self, capture: Capture, features: Features, *, top: int, near: Near | None, photos: int = 1
    ) -> Answer:
        """Return the answer to a feature (1, F), or to several views (1, V, F) of so many photos."""
        prior = self.prior(near)
        if prior is None and self.trained.meta.get("fusion") is None:
            best = predict(self.trained, features, top=top, score="softmax")
            places = candidates(self.trained, best.positions[0], best.score[0], best.class_id[0], features[0])
            return answer_of(capture, places, math.nan, abstained=False)
        fused = answer(self.trained, features, top=top, prior=prior, photos=photos)
        places = candidates(self.trained, fused.positions[0], fused.mass[0], fused.class_id[0], features[0])
        return answer_of(capture, places, float(fused.confidence[0]), abstained=bool(fused.abstain[0]))
