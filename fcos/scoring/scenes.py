"""Find test images of one scene, such as frames of a film, from their annotated objects.

Two images show one scene if their objects coincide one by one: as many of each class, and for each object one in the
other image whose four edges are within 2 % of the image's width and height. Neighbouring frames, small crops, resized
and re-encoded copies move all edges by about the same share of the image, whatever the size of the object. An IoU would
refuse small objects that move by a few pixels, and accept large ones that lie elsewhere.

One or two objects may coincide by chance: on one road, nearly 1 % of the pairs of single cars do. Images with fewer
than three objects are therefore compared only if other images show that the test set is made of scenes, and must agree
more closely. Images without objects, or without a size in pixels, are not compared.

Shapes: I images, G annotations, P pairs of images.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fcos.data.coco import CocoSplit
from fcos.scoring.bootstrap import numbered
from fcos.scoring.matching import Bools, Floats, GroundTruth, Ints

ENOUGH_OBJECTS = 3
# The share of the width or height by which an edge may differ, in images with 1, 2, or more objects.
MOST = np.array([0.005, 0.01, 0.02])
# The test set is made of scenes if more than these shares of the images with enough objects, and of all, are in one.
_MADE_OF_SCENES, _EVIDENCE = 0.5, 0.1
_APART = 10.0  # a distance that no two boxes have, in image sides
_ROUNDED = 1.001  # tolerance of means, for rounding
_BLOCK = 2_000_000  # pairs of objects that are compared at once


@dataclass(frozen=True)
class Scenes:
    """The scenes of a test set. An image that resembles no other is a scene of its own."""

    of_image: Ints  # (I,) numbers from 0

    @property
    def shared(self) -> Ints:
        """The number of images of each scene that has several."""
        counts: Ints = np.bincount(self.of_image)
        return counts[counts > 1]

    def sentence(self, otherwise: str) -> str:
        """Return what was found and how it is resampled; `otherwise` says what to set for another way."""
        shared = self.shared
        scenes = "1 scene" if len(shared) == 1 else f"{len(shared)} scenes"
        return (
            f"{shared.sum()} of {len(self.of_image)} images show {scenes} (their annotated objects coincide): the "
            f"bootstrap resamples a scene as a whole; {otherwise}"
        )


def groups_of(split: CocoSplit) -> Ints | None:
    """Return the group of each image of a prepared split: by `data.groups`, or else its scene; None without any."""
    if split.groups is not None:
        return numbered(split.groups)
    scenes = scenes_of(split)
    return None if scenes is None else scenes.of_image


def scenes_of(split: CocoSplit) -> Scenes | None:
    """Return the scenes of a prepared split; None if every image is a scene of its own."""
    images = sorted(split.images, key=lambda image: image["id"])
    sizes = np.array([(image["width"], image["height"]) for image in images], dtype=float).reshape(-1, 2)
    return find_scenes(GroundTruth.of(split), sizes)


def find_scenes(truth: GroundTruth, sizes: Floats) -> Scenes | None:
    """Return the scenes of the images; None if every image is a scene of its own.

    Args:
        sizes: (I, 2) width and height in pixels, NaN if unknown.
    """
    objects = _Objects.of(truth, sizes)
    scene = np.arange(truth.num_images)  # the lowest number of an image of the same scene
    enough = objects.comparable & (objects.count >= ENOUGH_OBJECTS)
    _join_images(scene, objects, np.flatnonzero(enough))
    together = (np.bincount(scene, minlength=1)[scene] > 1).sum()
    if together > max(_MADE_OF_SCENES * enough.sum(), _EVIDENCE * objects.comparable.sum()):
        _join_images(scene, objects, np.flatnonzero(objects.comparable & ~enough))
    scenes, number = np.unique(scene, return_inverse=True)
    return None if len(scenes) == truth.num_images else Scenes(number.reshape(-1))


@dataclass(frozen=True)
class _Objects:
    """All annotated objects, ordered by image."""

    edges: Floats  # (5, G): x1, y1, x2, y2 as shares of the image's sides, and the class as a distance
    first: Ints  # (I,) place of an image's first object
    count: Ints  # (I,)
    kind: Ints  # (I,) equal for images with as many objects of each class
    comparable: Bools  # (I,) whether an image has a size and objects

    @staticmethod
    def of(truth: GroundTruth, sizes: Floats) -> "_Objects":
        order = np.argsort(truth.image, kind="stable")
        image, boxes = truth.image[order], truth.boxes_xywh[order].T
        width, height = sizes[image].T
        label = 2 * truth.label[order] + truth.crowd[order]
        left, top = boxes[0] / width, boxes[1] / height
        edges = np.stack((left, top, left + boxes[2] / width, top + boxes[3] / height, _APART * label))
        count = np.bincount(image, minlength=len(sizes))
        # Sums of large random numbers, one for each class, differ unless the counts are the same.
        signature = np.zeros(len(sizes), dtype=np.int64)
        np.add.at(signature, image, np.random.default_rng(0).integers(2**62, size=label.max(initial=0) + 1)[label])
        kind = np.unique(signature, return_inverse=True)[1].reshape(-1)
        comparable = (count > 0) & ~np.isnan(sizes).any(axis=1)
        return _Objects(edges, np.cumsum(count) - count, count, kind, comparable)

    @property
    def most(self) -> Floats:
        """The largest difference of edges (I,)."""
        return MOST[np.clip(self.count, 1, len(MOST)) - 1]

    def likely(self, images: Ints) -> Iterator[tuple[Ints, Ints]]:
        """Yield pairs of `images` of one kind whose mean edges are close enough, each pair once."""
        means = self._means(images)
        by_kind = _APART * self.kind[images] + means[0].clip(-1, 2)
        order = np.argsort(by_kind, kind="stable")
        images, means, by_kind = images[order], means[:, order], by_kind[order]
        most = _ROUNDED * self.most[images]
        end = np.searchsorted(by_kind, by_kind + most, side="right")
        place, step = np.arange(len(images)), 1
        while len(place := place[place + step < end[place]]):
            near = (np.abs(means[:, place] - means[:, place + step]) < most[place]).all(axis=0)
            yield images[place[near]], images[place[near] + step]
            step += 1

    def _means(self, images: Ints) -> Floats:
        """Return the mean edges (4, P) of the objects of each image."""
        image = np.repeat(np.arange(len(self.count)), self.count)
        sums = np.stack([np.bincount(image, edge, minlength=len(self.count)) for edge in self.edges[:4]])
        means: Floats = sums[:, images] / self.count[images]
        return means

    def coinciding(self, first: Ints, second: Ints) -> tuple[Ints, Ints]:
        """Return the pairs of images in which each object has one of its class at its place in the other image."""
        block = np.cumsum(self.count[first] ** 2) // _BLOCK
        parts = np.flatnonzero(np.diff(block)) + 1
        pairs = zip(np.split(first, parts), np.split(second, parts), strict=True)
        same = np.concatenate([self._coincide(*pair) for pair in pairs])
        return first[same], second[same]

    def _coincide(self, first: Ints, second: Ints) -> Bools:
        count = self.count[first]
        start = np.cumsum(count) - count
        pair = np.repeat(np.arange(len(first)), count**2)
        place = np.arange(len(pair)) - np.repeat(np.cumsum(count**2) - count**2, count**2)
        row, column = np.divmod(place, count[pair])
        one, other = self.first[first][pair] + row, self.first[second][pair] + column
        most, close = self.most[first][pair], np.ones(len(pair), dtype=bool)
        for edge in self.edges:
            close &= np.abs(edge[one] - edge[other]) <= most
        hit = [np.bincount((start[pair] + of)[close], minlength=count.sum()) > 0 for of in (row, column)]
        missed = np.bincount(np.repeat(np.arange(len(first)), count), ~(hit[0] & hit[1]), minlength=len(first))
        found: Bools = missed == 0
        return found


def _join_images(scene: Ints, objects: _Objects, images: Ints) -> None:
    """Join, in place, the scenes of those of `images` whose objects coincide."""
    for first, second in objects.likely(images):
        apart = scene[first] != scene[second]
        if apart.any():
            _join(scene, *objects.coinciding(first[apart], second[apart]))


def _join(scene: Ints, first: Ints, second: Ints) -> None:
    """Join, in place, the scenes of pairs of images."""
    for one, other in zip(first.tolist(), second.tolist(), strict=True):
        low, high = sorted((scene[one], scene[other]))
        if low != high:
            scene[scene == high] = low
