"""What a training step reads, decided without reading anything: pure numpy and seeded.

Images are numbered 0 .. n-1 among the images that may be trained on; views
likewise. The sampler never meets a masked image, and a class none of whose
images may be trained on is never drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class BatchIndices:
    """What one step reads: the images drawn and, on top of them, some of their views.

    Attributes
    ----------
    images, image_classes : ndarray of int64, shape (B,)
        Images and their class ids.
    views, view_classes : ndarray of int64, shape (A,)
        Views and their class ids; the originals of all of them are in the batch.
    faced : ndarray of int64, shape (C,), or None
        Class ids that the softmax runs over, ascending, the batch's own among
        them; None for all of the group.
    originals : ndarray of int64, shape (A,)
        Place in the batch of each view's original.
    mixture : ndarray of float32, shape (A,), or None
        Share of the original in each view's feature; None for views as they are.
    noise_seed : int
        Of the noise on the features.
    """

    images: Indices
    image_classes: Indices
    views: Indices
    view_classes: Indices
    faced: Indices | None
    originals: Indices
    mixture: npt.NDArray[np.float32] | None
    noise_seed: int


class ClassImages:
    """The images of every class and the views of every image.

    Parameters
    ----------
    image_classes : ndarray of int, shape (n,) or (n, P)
        Class id of each image; in each of P partitions where there are several, -1 for none.
    class_count : int
        K, classes there are; some may have no image here.
    p_aug : ndarray of float, shape (K,)
        Probability that an image of each class is augmented (method, section 5).
    view_images : ndarray of int, shape (V,)
        Image that each view belongs to, ascending.
    """

    def __init__(
        self,
        image_classes: npt.NDArray[np.integer],
        class_count: int,
        p_aug: npt.NDArray[np.floating],
        view_images: npt.NDArray[np.integer],
    ) -> None:
        images = len(image_classes)
        # One partition after the other, each a list of all images; those of no class come first and go.
        entries = image_classes.T.ravel()
        order = np.argsort(entries, kind="stable")[np.count_nonzero(entries < 0) :]
        self.order: Indices = order if image_classes.ndim == 1 else order % images
        self.counts: Indices = np.bincount(entries[entries >= 0], minlength=class_count)
        self.ends: Indices = np.cumsum(self.counts)
        self.starts: Indices = self.ends - self.counts
        self.view_counts: Indices = np.bincount(view_images, minlength=images)
        self.view_starts: Indices = np.cumsum(self.view_counts) - self.view_counts
        viewed = image_classes[self.view_counts > 0]
        seen = np.bincount(viewed[viewed >= 0], minlength=class_count)
        share = seen / np.maximum(self.counts, 1)
        # Only images that have views can be augmented: they are, more often, on behalf of the others.
        self.p_view = np.minimum(1.0, np.divide(p_aug, share, out=np.zeros(class_count), where=share > 0))

    def drawable(self, classes: slice) -> Indices:
        """Class ids of a group that have at least one image."""
        ids = np.arange(classes.start, classes.stop)
        return ids[self.ends[ids] > self.starts[ids]]


class GroupSampler:
    """The batches of one group: a pure function of the seed and the step.

    So a run can be taken up at any step without replaying those before it.

    Parameters
    ----------
    roster : ClassImages
        Images and views.
    classes : slice
        Class ids of the group.
    sampling : {"class", "image"}
        What is equally likely: each of the group's classes, or each of its images (4.17).
    augment : bool
        Whether views join the batch.
    class_sampling : float
        Share of the other classes that the softmax runs over.
    mix_views : bool
        Whether a view joins as a random mixture of itself and its original.
    seed : tuple of int
        The run's seed and the group's number.
    """

    def __init__(
        self,
        roster: ClassImages,
        classes: slice,
        *,
        sampling: Literal["class", "image"],
        augment: bool,
        class_sampling: float = 1.0,
        mix_views: bool = False,
        seed: tuple[int, ...],
    ) -> None:
        self.roster = roster
        self.sampling = sampling
        self.augment = augment
        self.class_sampling = class_sampling
        self.mix_views = mix_views
        self.group_classes = classes
        self.classes = roster.drawable(classes)
        self.seed = seed

    @property
    def images(self) -> int:
        """How many images there are to draw from."""
        return int(self.roster.counts[self.classes].sum())

    def draw(self, step: int, size: int) -> BatchIndices:
        """Return the batch of a step: `size` images and the views that join them."""
        roster, random = self.roster, np.random.default_rng([*self.seed, step])
        if self.sampling == "class":
            drawn = self.classes[random.integers(len(self.classes), size=size)]
            places = random.integers(roster.starts[drawn], roster.ends[drawn])
        else:
            first, last = roster.starts[self.classes[0]], roster.ends[self.classes[-1]]
            places = random.integers(first, last, size=size)
            drawn = np.searchsorted(roster.ends, places, side="right")
        images = roster.order[places]
        chosen = self._augmented(images, drawn, random) if self.augment else np.zeros(0, np.int64)
        offsets = random.integers(roster.view_counts[images[chosen]]) if len(chosen) else chosen
        views = roster.view_starts[images[chosen]] + offsets
        faced = self._faced(drawn, random)
        # Drawn last, so that nothing before it depends on whether it is wanted.
        mixture = random.random(len(chosen), np.float32) if self.mix_views else None
        noise_seed = int(random.integers(1 << 32))
        return BatchIndices(images, drawn, views, drawn[chosen], faced, chosen, mixture, noise_seed)

    def _faced(self, drawn: Indices, random: np.random.Generator) -> Indices | None:
        """Classes drawn, and of all others a random share."""
        if self.class_sampling == 1:
            return None
        first = self.group_classes.start
        chosen = random.random(self.group_classes.stop - first, np.float32) < self.class_sampling
        chosen[drawn - first] = True
        faced: Indices = first + np.flatnonzero(chosen)
        return faced

    def _augmented(self, images: Indices, classes: Indices, random: np.random.Generator) -> Indices:
        """Places in the batch whose image is augmented."""
        lot = random.random(len(images))
        return np.flatnonzero((lot < self.roster.p_view[classes]) & (self.roster.view_counts[images] > 0))
