"""Lines of text on the contents of a folder: what was found, what was corrected or left out, and notes."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fcos.authoring.settings import Facts
from fcos.data.sources.found import Discovered
from fcos.study.findings import SHOWN, and_more, assumptions, counted, finding_sentences

MAX_DETECTIONS = 100  # per image, in the studies that are written
FEW_TESTED = 50  # with fewer test images, intervals are too wide to distinguish settings
Lines = list[tuple[str, str]]  # label and text of a line


def found_lines(found: Discovered, manifest: Mapping[str, Any], facts: Facts, most: int) -> Lines:
    """Return the lines on a folder; `most` is the largest number of objects in one image."""
    per_class = Counter[str]()
    for counts in manifest["splits"].values():
        per_class.update(counts["per_class"])
    shown = [f"{name} {count}" for name, count in per_class.most_common(SHOWN)]
    lines = [("found", found.layout)]
    for split, counts in manifest["splits"].items():
        lines.append(("", f"{split}: {counted(counts)}"))
    lines.append(("", f"{len(per_class)} classes: {and_more(shown, len(per_class))}"))
    lines.append(("", f"images: {_sides(facts.image_sizes)} pixels"))
    if len(facts.object_sizes):
        low, middle, high = np.quantile(facts.object_roots, (0.1, 0.5, 0.9))
        sizes = f"half of them below {middle:.0f} pixels, a tenth below {low:.0f}, a tenth above {high:.0f}"
        lines.append(("", f"objects (square root of the area): {sizes}; at most {most} in an image"))
    lines += [("", sentence) for sentence in finding_sentences(manifest)]
    lines += [("not used", sentence) for sentence in found.unused]
    lines += [("note", sentence) for sentence in _notes(manifest, per_class, most)]
    return lines + [("assumed", sentence) for sentence in [*found.assumed, *assumptions(manifest)]]


def _notes(manifest: Mapping[str, Any], per_class: Iterable[str], most: int) -> Iterable[str]:
    train, test = (manifest["splits"][split] for split in ("train", "test"))
    idle = [name for name in per_class if not train["per_class"][name]]
    if idle:
        yield f"classes without training objects: {and_more(idle, len(idle))}"
    if not test["num_objects"]:
        yield "the test split has no objects, so scores are undefined"
    if test["num_images"] < FEW_TESTED:
        count = test["num_images"]
        yield f"{count} test images are few: intervals will be wide, and most differences between settings uncertain"
    if most > MAX_DETECTIONS:
        yield (
            f"an image has {most} objects, more than test.max_detections {MAX_DETECTIONS}: raise it (COCO's AP still "
            "scores only the 100 highest-scoring detections)"
        )
    alike = defaultdict(list)
    for name in per_class:
        alike[name.casefold()].append(name)
    for names in alike.values():
        if len(names) > 1:
            yield f"classes whose names differ in case only: {', '.join(names)}; data.classes can merge them"


def _sides(sizes: NDArray[np.float64]) -> str:
    """Return width x height if all sizes are equal, otherwise the range of both sides."""
    (low_h, low_w), (high_h, high_w) = sizes.min(axis=0), sizes.max(axis=0)
    if (low_h, low_w) == (high_h, high_w):
        return f"all {low_w:.0f} x {low_h:.0f}"
    return f"{low_w:.0f} to {high_w:.0f} wide, {low_h:.0f} to {high_h:.0f} high"
