"""The long tail: augmentation probability of each class, and number of cached views of each image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stages.index.hashing import Hashes, uniforms
from stages.partition.config import PartitionConfig


@dataclass(frozen=True)
class LongTail:
    """The split of classes into head, mid and tail (sections 5.1 and 5.2 of the method).

    Attributes
    ----------
    tail_count
        Image count at the tail quantile: classes with at most this many images are tail.
    bucket
        (K,) "head", "mid" or "tail".
    p_aug
        (K,) float32, probability that an image of the class is augmented in a training step.
    """

    tail_count: int
    bucket: npt.NDArray[np.str_]
    p_aug: npt.NDArray[np.float32]


def long_tail(images: npt.NDArray[np.int64], config: PartitionConfig) -> LongTail:
    """Return p_aug(c) = clip(p_max * (tail_count / n_c) ** gamma, p_min, p_max) and the bucket of each class.

    `images` is n_c, the (K,) image count of each class.
    """
    # "lower" picks a count that occurs, so that no class lies on the split.
    quantiles = [config.tail_quantile, config.head_quantile]
    tail_count, head_count = np.quantile(images, quantiles, method="lower").tolist()
    bucket = np.where(images <= tail_count, "tail", np.where(images > head_count, "head", "mid"))
    p_aug = np.clip(config.p_max * (tail_count / images) ** config.gamma, config.p_min, config.p_max)
    return LongTail(int(tail_count), bucket, p_aug.astype(np.float32))


def view_counts(
    labels: npt.NDArray[np.int32],
    hashes: Hashes,
    p_aug: npt.NDArray[np.float32],
    config: PartitionConfig,
    seed: int,
) -> npt.NDArray[np.int16]:
    """Return how many views each image gets: floor(x + u) with x = max_views * p_aug / p_max.

    u is uniform in [0, 1), so that the mean count is x. It is a pure function of
    the image's key and the seed, so that an image keeps its views when the manifest grows.

    Parameters
    ----------
    labels
        (n,) class of each image; -1 for none, which gives no views.
    hashes
        (n,) hashes of their keys.
    p_aug
        (K,) of the classes.
    """
    if config.p_max == 0:
        return np.zeros(len(labels), np.int16)
    expected = np.append(config.max_views * (p_aug.astype(np.float64) / np.float32(config.p_max)), 0.0)
    return np.floor(expected[labels] + uniforms(hashes, seed)).astype(np.int16)
