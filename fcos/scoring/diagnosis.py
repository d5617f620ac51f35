"""Diagnose ground truth and results: suspicious properties, with counts, that do not prevent scoring.

Shapes: I images, D detections, G annotations, K classes.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from fcos.errors import names_of
from fcos.scoring.findings import Finding
from fcos.scoring.matching import Bools, Floats, Matches, ResultTable
from fcos.scoring.numbers import coco_metrics
from fcos.scoring.results import boxes_that_fit
from fcos.scoring.truth import Truth

FEW_OBJECTS = 10
FEW_IMAGES = 50  # below, 95 % intervals covered the true value in 91 to 95 % of simulations (docs/statistics.md)
FEW_GROUPS = 10  # groups of related images
_PIXEL = 1.0  # a box may end this far outside of the image, since toolboxes count pixels in two ways
_NEARLY_ALL = 0.95
_NORMALISED = 1.5  # upper limit of the numbers of normalised boxes


def of_truth(truth: Truth, *, area_from_box: bool = False) -> list[Finding]:
    """Return the findings about the ground truth alone."""
    return [*_repeated_images(truth), *_few_images(truth), *_areas(truth, area_from_box), *_few_objects(truth)]


def of_results(table: ResultTable, matches: Matches, truth: Truth) -> list[Finding]:
    """Return the findings about results on their ground truth.

    Args:
        table: all results, in the order of the file.
        matches: the matches of the results.
    """
    found = [*_without_results(table, truth), *_empty(table), *_outside(table, truth)]
    found += [*_ties_and_copies(table), *_shifted(table, truth), *_other_format(table, truth)]
    return [*found, *_beyond(matches, len(table)), *_lost(matches, truth)]


def _repeated_images(truth: Truth) -> Iterator[Finding]:
    names = Counter(name for name in truth.file_names if name is not None)
    entries, images = sum(names.values()), len(names)
    if images < entries:
        yield Finding(
            "repeated_images",
            entries - images,
            entries,
            f"{entries} image entries are {images} images (by file name): results of one image are scored in parts, "
            "and intervals treat its entries as independent images, so they are too narrow",
        )


def _few_images(truth: Truth) -> Iterator[Finding]:
    count = len(np.unique(truth.objects.image[~truth.objects.crowd]))
    if count < FEW_IMAGES:
        text = f"objects in {count} images only: intervals from fewer than {FEW_IMAGES} are a little too narrow"
        yield Finding("few_images", count, truth.num_images, text)


def _areas(truth: Truth, area_from_box: bool) -> Iterator[Finding]:
    boxes = truth.objects.boxes_xywh
    empty = (truth.areas == 0) & (boxes[:, 2] * boxes[:, 3] > 0)
    if empty.any():
        count, total = int(empty.sum()), len(empty)
        yield Finding(
            "areas_of_zero",
            count,
            total,
            f"{count} of {total} annotations have area 0 but a box with an area: COCO counts them as small. "
            "--area-from-box takes width times height",
        )
    if area_from_box:
        yield Finding("area_from_box", len(boxes), len(boxes), "areas are width times height (--area-from-box)")


def _few_objects(truth: Truth) -> Iterator[Finding]:
    num = len(truth.categories)
    objects = np.bincount(truth.objects.label[~truth.objects.crowd], minlength=num)
    for kind, which, means in (
        (
            "classes_without_objects",
            objects == 0,
            f"have no object: AP is the mean over {int((objects > 0).sum())} of {num} classes",
        ),
        (
            "classes_with_few_objects",
            (objects > 0) & (objects < FEW_OBJECTS),
            f"have fewer than {FEW_OBJECTS} objects: their AP is uncertain, but has the same weight in the mean",
        ),
    ):
        count = int(which.sum())
        if count:
            names = names_of(truth.categories[label]["name"] for label in np.flatnonzero(which).tolist())
            yield Finding(kind, count, num, f"{count} of {num} classes {means} ({names})")


def _without_results(table: ResultTable, truth: Truth) -> Iterator[Finding]:
    seen = np.zeros(truth.num_images, dtype=bool)
    seen[table.image] = True
    count, total = int((~seen).sum()), len(seen)
    if count:
        missed = int((~seen[truth.objects.image] & ~truth.objects.crowd).sum())
        yield Finding(
            "images_without_results",
            count,
            total,
            f"{count} of {total} images have no detection; the {missed} objects in them count as missed",
        )


def _empty(table: ResultTable) -> Iterator[Finding]:
    sides, total = table.boxes_xywh[:, 2:], len(table)
    for kind, which, words in (
        ("negative_sizes", _either(sides < 0), "a negative width or height"),
        ("empty_boxes", _either(sides == 0), "no area"),
    ):
        count = int(which.sum())
        if count:
            yield Finding(kind, count, total, f"{count} of {total} boxes have {words}: they cannot match any object")


def _outside(table: ResultTable, truth: Truth) -> Iterator[Finding]:
    boxes, size = table.boxes_xywh, truth.sizes[table.image]  # (D, 4), (D, 2)
    total = len(boxes)
    if total and truth.objects.boxes_xywh.max(initial=0) > _NORMALISED and np.abs(boxes).max() <= _NORMALISED:
        text = f"all {total} boxes lie within {_NORMALISED:g} pixels of the origin: they look normalised, not in pixels"
        yield Finding("normalised_boxes", total, total, text)
    outside = _either(boxes[:, :2] < -_PIXEL) | ~_within(boxes[:, :2] + boxes[:, 2:], size)
    count = int(outside.sum())
    if count:
        text = f"{count} of {total} boxes end outside of their image{_why(table, size)}"
        yield Finding("boxes_outside", count, total, text)


def _within(ends: Floats, size: Floats) -> Bools:
    """Return (D,): whether both ends are inside of the image; True if its size is unknown."""
    return ~_either(ends > size + _PIXEL)


def _either(of_two: Bools) -> Bools:
    """Return (D,): whether one of the two in each row is true; numpy's `any` over a short axis is five times slower."""
    either: Bools = of_two[:, 0] | of_two[:, 1]
    return either


def _why(table: ResultTable, size: Floats) -> str:
    """Return a remark if nearly all boxes fit as x1, y1, x2, y2: for xywh boxes, the width seldom exceeds x."""
    boxes, total = table.boxes_xywh, len(table)
    fits = int((_within(boxes[:, 2:], size) & ~_either(boxes[:, 2:] < boxes[:, :2])).sum())
    if fits < _NEARLY_ALL * total:
        return ""
    many = "all" if fits == total else f"{fits}"
    return f"; read as corners (x1, y1, x2, y2) {many} would fit: COCO expects x, y, width, height"


def _other_format(table: ResultTable, truth: Truth) -> Iterator[Finding]:
    """Find boxes that fit more objects if read as corners or with centers than if read as COCO's xywh."""
    (as_is,), judged = boxes_that_fit(table, truth)
    if 2 * as_is >= judged:
        return  # no other format can fit twice as many
    boxes = table.boxes_xywh
    corner, sides = boxes[:, :2], boxes[:, 2:]
    for name, other in (
        ("corners (x1, y1, x2, y2)", np.concatenate((corner, sides - corner), axis=1)),
        ("centres (cx, cy, width, height)", np.concatenate((corner - sides / 2, sides), axis=1)),
    ):
        (fits,), _ = boxes_that_fit(replace(table, boxes_xywh=other), truth)
        if fits > 2 * as_is and 4 * fits > judged:
            text = f"boxes fit better read as {name}: {fits} of {judged} then lie on an object, {as_is} as they are"
            yield Finding("box_format", fits, judged, text)


def _ties_and_copies(table: ResultTable) -> Iterator[Finding]:
    ordered, total = np.sort(table.score), len(table)
    same = ordered[1:] == ordered[:-1]
    tied = np.isin(table.score, np.unique(ordered[1:][same])) if same.any() else np.zeros(total, dtype=bool)
    copies = _count_copies(table[tied])
    if copies:
        yield Finding(
            "exact_copies",
            copies,
            total,
            f"{copies} of {total} detections are exact copies of another (image, class, box and score): "
            "each copy is a false positive",
        )
    count = int(tied.sum())
    if 2 * count > total:
        different = total - int(same.sum())
        yield Finding(
            "tied_scores",
            count,
            total,
            f"{count} of {total} detections share their score with another ({different} different scores): "
            "their order in the file decides the ranking, and affects AP",
        )


def _count_copies(table: ResultTable) -> int:
    rows = np.column_stack((table.image, table.label, table.score, table.boxes_xywh))
    rows = rows[np.lexsort(rows.T)]
    return int((rows[1:] == rows[:-1]).all(axis=1).sum())


def _shifted(table: ResultTable, truth: Truth) -> Iterator[Finding]:
    """Find class numbers with an offset: the boxes then fit the objects of the neighbouring class."""
    (as_is, up, down), judged = boxes_that_fit(table, truth, (0, 1, -1))
    for shift, fits in ((1, up), (-1, down)):
        if fits > 2 * as_is and 4 * fits > judged:
            yield Finding(
                "shifted_classes",
                fits,
                judged,
                f"classes fit better shifted by {shift:+d}: {fits} of {judged} boxes then lie on an object of their "
                f"class, {as_is} as they are",
            )


def _beyond(matches: Matches, total: int) -> Iterator[Finding]:
    limit, truth = matches.protocol.max_detections, matches.truth
    count = matches.num_beyond
    if count:
        yield Finding(
            "detections_beyond_the_limit",
            count,
            total,
            f"{count} of {total} detections are not scored: only the {limit} highest-scoring of an image and class "
            "are (--max-detections)",
        )
    objects = np.bincount((truth.label * truth.num_images + truth.image)[~truth.crowd], minlength=1)
    lost = int(np.maximum(objects - limit, 0).sum())
    if lost:
        yield Finding(
            "objects_beyond_the_limit",
            lost,
            int(objects.sum()),
            f"{lost} of {int(objects.sum())} objects cannot be found: an image has up to {int(objects.max())} of a "
            f"class, but only {limit} detections are scored (--max-detections)",
        )


def _lost(matches: Matches, truth: Truth) -> Iterator[Finding]:
    """Report the AP that COCOeval would give: it never matches the annotation with id 0, so its detection is wrong."""
    if truth.zero is None:
        return
    kept = (matches.gt != truth.zero) | matches.is_ignored
    columns = {name: getattr(matches, name)[kept] for name in ("detection", "area", "threshold", "gt")}
    theirs, ours = (coco_metrics(m, truth)["metrics"]["AP"] for m in (replace(matches, **columns), matches))
    said = "" if theirs is None else f": its AP would be {100 * theirs:.2f} instead of {100 * ours:.2f}"
    yield Finding(
        "annotation_id_0",
        1,
        len(truth.areas),
        f"the annotation with id 0 is scored like any other; pycocotools never matches it (cocoapi#507){said}",
    )
