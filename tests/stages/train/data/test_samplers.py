import numpy as np
import pytest

from stages.train.data.holdout import hold_out
from stages.train.data.samplers import ClassImages, GroupSampler

CLASSES = np.array([2, 0, 1, 0, 2, 2, 5, 2, 0, 2] * 4)  # classes 3 and 4 have no image


def sampler(sampling="class", classes=slice(0, 3), p_aug=None, views=(), seed=(0,), augment=True):
    p_aug = np.zeros(6) if p_aug is None else p_aug
    roster = ClassImages(CLASSES, 6, p_aug, np.array(views, np.int64))
    return GroupSampler(roster, classes, sampling=sampling, augment=augment, seed=seed)


def within(count, n, p):
    """Five standard errors of a binomial."""
    return abs(count - n * p) <= 5 * np.sqrt(n * p * (1 - p)) + 1e-9


@pytest.mark.parametrize("sampling", ["class", "image"])
def test_frequencies_and_coverage(sampling):
    batch = sampler(sampling).draw(1, 30_000)
    assert (CLASSES[batch.images] == batch.image_classes).all()
    assert set(batch.images) == set(np.flatnonzero(CLASSES < 3))
    for c in range(3):
        share = 1 / 3 if sampling == "class" else (c == CLASSES).sum() / (CLASSES < 3).sum()
        mine = batch.images[batch.image_classes == c]
        assert within(len(mine), 30_000, share)
        for image in np.flatnonzero(c == CLASSES):
            assert within((mine == image).sum(), len(mine), 1 / (c == CLASSES).sum())


def test_classes_without_images_are_never_drawn():
    group = sampler(classes=slice(3, 6))
    assert group.classes.tolist() == [5]
    assert set(group.draw(1, 100).image_classes) == {5}
    assert len(sampler(classes=slice(3, 5)).classes) == 0


@pytest.mark.parametrize("sampling", ["class", "image"])
def test_augmentation_has_the_probability_of_the_class(sampling):
    # All of class 0 has views, half of class 1, a tenth of class 2, which is not enough for 0.5.
    views = []
    for c, share in ((0, 1.0), (1, 0.5), (2, 0.1)):
        members = np.flatnonzero(c == CLASSES)
        views += np.repeat(members[: round(share * len(members))], 3).tolist()
    views = np.sort(views)
    batch = sampler(sampling, p_aug=np.array([0.3, 0.4, 0.5, 0, 0, 0]), views=views).draw(1, 40_000)
    for c, expected in ((0, 0.3), (1, 0.4), (2, 0.1)):
        drawn = (batch.image_classes == c).sum()
        assert within((batch.view_classes == c).sum(), drawn, expected)
    assert (CLASSES[views[batch.views]] == batch.view_classes).all()
    assert set(batch.views) == set(range(len(views)))
    assert set(views[batch.views]) <= set(batch.images)


def test_no_views_without_augmentation():
    views = np.flatnonzero(CLASSES == 0)
    assert len(sampler(p_aug=np.ones(6), views=views, augment=False).draw(1, 100).views) == 0
    assert len(sampler(p_aug=np.ones(6)).draw(1, 100).views) == 0


def test_same_seed_same_batches():
    views = np.flatnonzero(CLASSES == 0)
    streams = [sampler(p_aug=np.full(6, 0.5), views=views, seed=seed) for seed in ((1, 2), (1, 2), (1, 3))]
    first, again, other = ([s.draw(step, 50) for step in range(3)] for s in streams)
    for a, b in zip(first, again, strict=True):
        for name in ("images", "image_classes", "views", "view_classes"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert any((a.images != c.images).any() for a, c in zip(first, other, strict=True))


def test_holdout_takes_one_visit_each_of_some_classes():
    random = np.random.default_rng(0)
    classes, visits = random.integers(0, 30, 1000), random.integers(0, 4, 1000)
    classes[:5], visits[:5] = 99, 7  # a class of one visit
    held = hold_out(classes, visits, 100, np.random.default_rng(1))
    assert 100 <= held.sum() <= 125
    for c in np.unique(classes[held]):
        mine = classes == c
        assert held[mine].sum() <= mine.sum() / 2
        assert len(np.unique(visits[mine & held])) == 1
        assert not (mine & ~held & (visits == visits[mine & held][0])).any()
    assert not held[classes == 99].any()
    assert (held == hold_out(classes, visits, 100, np.random.default_rng(1))).all()
    assert not hold_out(classes, visits, 0, random).any()
