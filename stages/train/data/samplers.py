"""Which images and views a training step reads: a pure function of seed and step.

Images are numbered 0 .. n-1 among those that may be trained on, views likewise. So the sampler never draws
a bad image, nor a class without good ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class BatchIndices:
    """The images that one step reads and, on top of them, some of their views.

    Attributes
    ----------
    images, image_classes : ndarray of int64, shape (B,)
        Images and their class ids.
    views, view_classes : ndarray of int64, shape (A,)
        Views and their class ids; the original of each view is in the batch.
    sampled_classes : ndarray of int64, shape (C,), or None
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
    sampled_classes: Indices | None
    originals: Indices
    mixture: npt.NDArray[np.float32] | None
    noise_seed: int

    @property
    def classes(self) -> Indices:
        """Class ids of the images, then of the views, shape (B + A,)."""
        return np.concatenate([self.image_classes, self.view_classes])


class ClassImages:
    """The images of every class and the views of every image.

    Parameters
    ----------
    image_classes : ndarray of int, shape (n,) or (n, P)
        Class id of each image, in each of P partitions if there are several; -1 for none.
    class_count : int
        Number of classes; some may have no image here.
    p_aug : ndarray of float, shape (class_count,)
        Probability that an image of each class is augmented (method, section 5).
    view_images : ndarray of int, shape (V,)
        Image of each view, ascending.
    """

    def __init__(
        self,
        image_classes: npt.NDArray[np.integer],
        class_count: int,
        p_aug: npt.NDArray[np.floating],
        view_images: npt.NDArray[np.integer],
    ) -> None:
        images = len(image_classes)
        # Partition after partition, each a list of all images; images of no class sort first and are cut off.
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
        # Only images with views can be augmented: they are drawn more often, to make up for the others.
        self.p_view = np.minimum(1.0, np.divide(p_aug, share, out=np.zeros(class_count), where=share > 0))

    def drawable(self, classes: slice) -> Indices:
        """Return the class ids of a group that have at least one image."""
        ids = np.arange(classes.start, classes.stop)
        return ids[self.ends[ids] > self.starts[ids]]


class GroupSampler:
    """The batches of one group, a pure function of seed and step: a run resumes at any step without a replay.

    `classes` are the group's class ids; `sampling`, `class_sampling` and `mix_views` are those of
    params.yaml, and `augment` lets views join the batch. The seed is that of the run and the group's number.
    """

    def __init__(
        self,
        class_images: ClassImages,
        classes: slice,
        *,
        sampling: Literal["class", "image"],
        augment: bool,
        class_sampling: float = 1.0,
        mix_views: bool = False,
        seed: tuple[int, ...],
    ) -> None:
        self.class_images = class_images
        self.sampling = sampling
        self.augment = augment
        self.class_sampling = class_sampling
        self.mix_views = mix_views
        self.group_classes = classes
        self.classes = class_images.drawable(classes)
        self.seed = seed

    @property
    def images(self) -> int:
        """How many images there are to draw from."""
        return int(self.class_images.counts[self.classes].sum())

    def draw(self, step: int, size: int) -> BatchIndices:
        """Return the batch of a step: `size` images and the views that join them."""
        lists, random = self.class_images, np.random.default_rng([*self.seed, step])
        if self.sampling == "class":
            drawn = self.classes[random.integers(len(self.classes), size=size)]
            places = random.integers(lists.starts[drawn], lists.ends[drawn])
        else:
            first, last = lists.starts[self.classes[0]], lists.ends[self.classes[-1]]
            places = random.integers(first, last, size=size)
            drawn = np.searchsorted(lists.ends, places, side="right")
        images = lists.order[places]
        chosen = self._augmented(images, drawn, random) if self.augment else np.zeros(0, np.int64)
        offsets = random.integers(lists.view_counts[images[chosen]]) if len(chosen) else chosen
        views = lists.view_starts[images[chosen]] + offsets
        sampled = self._sampled(drawn, random)
        # Drawn last, so that switching it on changes nothing drawn before.
        mixture = random.random(len(chosen), np.float32) if self.mix_views else None
        noise_seed = int(random.integers(1 << 32))
        return BatchIndices(images, drawn, views, drawn[chosen], sampled, chosen, mixture, noise_seed)

    def _sampled(self, drawn: Indices, random: np.random.Generator) -> Indices | None:
        """Return the classes drawn and a random share of all others; None for all."""
        if self.class_sampling == 1:
            return None
        first = self.group_classes.start
        chosen = random.random(self.group_classes.stop - first, np.float32) < self.class_sampling
        chosen[drawn - first] = True
        sampled: Indices = first + np.flatnonzero(chosen)
        return sampled

    def _augmented(self, images: Indices, classes: Indices, random: np.random.Generator) -> Indices:
        """Return the places in the batch of images that are augmented."""
        lot = random.random(len(images))
        return np.flatnonzero(
            (lot < self.class_images.p_view[classes]) & (self.class_images.view_counts[images] > 0)
        )
