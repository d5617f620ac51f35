"""Check a source's description with the checks that all sources share; write each split's JSON and manifest.json."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from fcos.data.images import ORIENTATION, SIXTEEN_BITS, displayed_size, opened
from fcos.data.shards import ToWrite, write_shards
from fcos.data.sources.checks import (
    Sized,
    merge_twins,
    refuse_damaged,
    refuse_strange_boxes,
    state_common,
)
from fcos.data.sources.depth import ALL_BITS, Deep, shared_depth
from fcos.data.sources.description import Damaged, Seen, Source, SourceBox, SourceImage, SourceSplit
from fcos.data.sources.fitting import MOST_PAIRS, Findings, fit, in_pixels, near_duplicates
from fcos.data.sources.together import copies_text, near_copies, shared_groups
from fcos.data.split_files import Objects, Written, shards_file, write_split, write_table
from fcos.errors import UserError
from fcos.files import sha256_bytes, sha256_file, write_json
from fcos.formats import FORMAT
from fcos.progress import track_threads
from fcos.records import Manifest, OfFiles, ShardFiles, SplitCounts

_ENDS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND"}
TRANSPARENT = ("RGBA", "LA", "PA", "La", "RGBa")
TURNED = range(2, 9)  # EXIF orientations that are not upright
SPLITS = ("train", "validation", "test")
COCO_AREAS = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, float("inf"))}


@dataclass(frozen=True, slots=True)
class _File:
    size: tuple[int, int]
    sha256: str
    mode: str
    orientation: int  # as in EXIF; 1 = upright
    deep: Deep | None  # None unless the image has 16 bits


_Images = list[tuple[SourceImage, _File]]


def absolute(folder: Path) -> str:
    """Return the absolute path of a folder."""
    return str(folder.resolve())


def assemble(
    source: Source,
    out_dir: Path,
    *,
    clip_outside: bool,
    leave_out: bool = False,
    validation_fraction: float = 0.0,
    test_fraction: float = 0.0,
    name_of: Callable[[Path], str] = absolute,
    shards: str | None = None,
) -> Manifest:
    """Check the images and boxes of `source`, write four files to `out_dir` and return the manifest.

    validation.json is always written; without a validation split it has no images, and the manifest does not list it.

    Args:
        clip_outside: whether boxes that extend beyond their image are clipped instead of refused.
        leave_out: whether damaged items are left out and listed instead of refused.
        validation_fraction: share of the training images for the validation split, if the source has none.
        test_fraction: share of the training images for the test split, if the source has none; the test images are
            chosen before the validation images.
        name_of: returns the manifest's name for an image folder outside of `out_dir`.
        shards: URL of an object store to which the images are written too (fcos.data.shards).

    Raises:
        UserError: an image is missing, damaged or in two splits; a box is outside of its image; boxes seem to be in
            another format; a class is not in the list; or no training image would be left.
    """
    seen = source.seen
    images = {split: _inspect_all(split, described, seen) for split, described in source.splits.items()}
    image_dirs = {split: described.image_dir for split, described in source.splits.items()}
    sized = [Sized(split, i, _annotated_size(i, file), file.sha256) for split in images for i, file in images[split]]
    for one in sized:
        if one.image.normalised:
            one.image.boxes = one.image.boxes.moved(in_pixels(one.image.boxes.xywh, one.size))
    refuse_strange_boxes(sized, source.box_format, clip=clip_outside)
    twins = merge_twins(sized, seen)
    refuse_damaged(seen.damaged, leave_out=leave_out)
    images = {split: [pair for pair in pairs if id(pair[0]) not in twins] for split, pairs in images.items()}
    for split, pairs in images.items():
        if not pairs:
            raise UserError(image_dirs[split], f"the {split} split has no image", expected="at least one")
    refuse_bad_categories(source.categories, image_dirs["train"])
    bits, deep = shared_depth([file.deep for pairs in images.values() for _, file in pairs if file.deep])
    for split, fraction in (("test", test_fraction), ("validation", validation_fraction)):
        if fraction > 0:
            images["train"], images[split] = _hold_out(split, images["train"], fraction)
            image_dirs[split] = image_dirs["train"]
    _refuse_overlap(images, image_dirs)
    findings = Findings()
    splits: dict[str, SplitCounts] = {}
    for split in SPLITS:
        written = _write(out_dir, split, source.categories, images.get(split, []), findings, bits)
        if split not in images:
            continue
        image_dir = image_dirs[split]
        inside = image_dir.is_relative_to(out_dir)
        place = str(image_dir.relative_to(out_dir)) if inside else name_of(image_dir)
        counts = split_counts(written.objects, source.categories, place, written.digest)
        splits[split] = {**counts, **_of_files(written, images[split], bits)}
        if shards is not None:
            splits[split]["shards"] = _write_shards(shards, out_dir / f"{split}.json", images[split])
    of_splits = {split: [image.group for image, _ in pairs] for split, pairs in images.items()}
    copies = _copies([image for image, _ in images.get("test", [])])
    findings.odd, common = state_common(findings.odd, {split: len(pairs) for split, pairs in images.items()})
    manifest: Manifest = {
        "format": FORMAT,
        "categories": source.categories,
        "splits": splits,
        "dropped": findings.dropped,
        "clipped": findings.clipped,
        "near_duplicates": findings.near_duplicates,
        "near_duplicates_cut": findings.near_duplicates_cut,
        "odd": findings.odd,
        "damaged": [item.entry for item in seen.damaged],
        "counts": {what: count for what, count in seen.counts.items() if count},
        "assumed": _frames([pair for pairs in images.values() for pair in pairs]),
        "near_copies": copies,
        "notes": [*seen.notes, *deep, *common, *shared_groups(of_splits), *copies_text(copies)],
    }
    write_json(out_dir / "manifest.json", manifest)
    return manifest


def _copies(images: list[SourceImage]) -> dict[str, Any] | None:
    """Return the near copies among the test images, or None if there are fewer than two or their groups are known."""
    alone = len(images) < 2 or all(image.group is not None for image in images)
    return None if alone else near_copies([image.path for image in images])


def _inspect_all(split: str, described: SourceSplit, seen: Seen) -> _Images:
    files = track_threads(_try_inspect, described.images, f"check {split}", unit="images")
    inspected = list(zip(described.images, files, strict=True))
    _refuse_repeated(described)
    seen.damaged += [file for _, file in inspected if isinstance(file, Damaged)]
    return [(image, file) for image, file in inspected if isinstance(file, _File)]


def _try_inspect(image: SourceImage) -> _File | Damaged:
    try:
        file = _inspect(image)
        _annotated_size(image, file)
    except UserError as error:
        return error if isinstance(error, Damaged) else Damaged.of(error)
    return file


def _hold_out(split: str, images: _Images, fraction: float) -> tuple[_Images, _Images]:
    """Split off the first `fraction` of the images in the order of their sha256; return the rest and the split.

    The choice does not depend on names, ids or the order of lists. Copies of one image stay together, and so do the
    images of a group, whose place in the order is that of its first image.
    """
    in_order = sorted(images, key=lambda image: image[1].sha256)
    sizes = Counter(map(_together, in_order))  # in the order of their first image
    held_out: set[str] = set()
    left = max(1, round(fraction * len(images)))
    for name, size in sizes.items():
        if left > 0:
            held_out.add(name)
        left -= size
    parts: tuple[_Images, _Images] = ([], [])
    for image in images:
        parts[_together(image) in held_out].append(image)
    if not parts[0]:
        raise UserError(
            f"params.yaml: data.{split}_fraction",
            "leaves no training image; nothing was changed",
            found=f"{fraction} of {len(images)} images",
            expected="at least one different image left to train on",
            hint=f"add training images, or set a smaller data.{split}_fraction",
        )
    return parts


def _together(entry: tuple[SourceImage, _File]) -> str:
    """Return the key of the images that must stay in one split: the group or the sha256."""
    image, file = entry
    return file.sha256 if image.group is None else image.group


def _write(
    out_dir: Path, split: str, categories: list[dict[str, Any]], entries: _Images, findings: Findings, bits: int
) -> Written:
    for image, file in entries:
        size = _annotated_size(image, file)
        findings.odd += [{"split": split, "image": image.file_name, "what": what} for what in _odd(image, file)]
        image.boxes = fit(image, size, split, findings)
        pairs = near_duplicates(image, split)
        findings.near_duplicates += pairs[:MOST_PAIRS]
        findings.near_duplicates_cut += len(pairs) > MOST_PAIRS
    category_id = {category["name"]: category["id"] for category in categories}
    boxes = ((box, image) for image, _ in entries for box in image.boxes)
    return write_split(
        out_dir / f"{split}.json",
        (_image_entry(image, file, _annotated_size(image, file), bits) for image, file in entries),
        categories,
        # ids start at 1, since pycocotools never matches id 0 (cocoapi#507)
        (
            _annotation(number, box, image, category_id[box.category])
            for number, (box, image) in enumerate(boxes, start=1)
        ),
        sum(len(image.boxes) for image, _ in entries),
    )


def _write_shards(url: str, path: Path, entries: _Images) -> ShardFiles:
    images = []
    for image, file in entries:
        assert image.image_id is not None
        images.append(ToWrite(image.image_id, image.file_name, image.path, file.sha256))
    names, places = write_shards(url, images, path.stem)
    write_table(shards_file(path), places)
    return {"url": url, "files": names, "table": sha256_file(shards_file(path))}


def _image_entry(image: SourceImage, file: _File, size: tuple[int, int], bits: int) -> dict[str, Any]:
    height, width = size
    entry = {"id": image.image_id, "file_name": image.file_name, "width": width, "height": height}
    original = {} if image.original_id is None else {"original_id": image.original_id}
    group = {} if image.group is None else {"group": image.group}
    depth = {"bits": bits} if _is_deep(file, bits) else {}
    return {**entry, "sha256": file.sha256, **depth, **original, **group}


def _is_deep(file: _File, bits: int) -> bool:
    return file.mode in SIXTEEN_BITS and bits < ALL_BITS


def _annotation(number: int, box: SourceBox, image: SourceImage, category_id: int) -> dict[str, Any]:
    return {
        "id": number,
        "image_id": image.image_id,
        "category_id": category_id,
        "bbox": box.bbox,
        "area": box.area if box.area is not None else box.bbox[2] * box.bbox[3],
        # pycocotools ignores only boxes with `iscrowd`, so ignored difficult boxes have it too.
        "iscrowd": int(box.ignored),
        **box.extra,
    }


def _inspect(image: SourceImage) -> _File:
    """Read an image's header and digest and check that its end is present; decoding would take ten times as long."""
    try:
        data = image.path.read_bytes()
    except OSError:
        raise UserError(
            image.described_in,
            "names a missing image; nothing was changed",
            found=f"no {image.path}",
            expected="an image for each annotation",
            hint="put the image there, or remove its entry",
        ) from None
    with opened(image.path) as decoded:
        deep = Deep.of(decoded, image.path)  # before EXIF: reading EXIF may decode a PNG, which drops its tiles
        orientation = decoded.getexif().get(ORIENTATION, 1)
        size, mode = displayed_size(decoded), decoded.mode
        end = _ENDS.get(decoded.format or "")
        if end is None or end not in data[-4096:]:  # truncated, a format without end mark, or data after the end
            decoded.load()
    return _File(size, sha256_bytes(data), mode, orientation, deep)


def _annotated_size(image: SourceImage, file: _File) -> tuple[int, int]:
    """Return the (height, width) that the boxes refer to: the annotated size if the image has it in any orientation."""
    if image.size is None or image.size == file.size:
        return file.size
    if file.orientation in (5, 6, 7, 8) and image.size == file.size[::-1]:
        return image.size
    swapped = ": width and height look swapped" if image.size == file.size[::-1] else ""
    raise UserError(
        f"{image.described_in}: {image.file_name}",
        f"has a size that differs from its image's{swapped}",
        found=f"{image.size[1]} x {image.size[0]} pixels",
        expected=f"{file.size[1]} x {file.size[0]} pixels",
        hint="swap the two numbers" if swapped else "fix the annotation: its boxes belong to another image",
    )


def _frames(images: _Images) -> list[str]:
    """Describe the assumed orientation of boxes of images rotated by EXIF, which no annotation format states."""
    turned = [(image, file) for image, file in images if file.orientation in TURNED]
    as_stored = sum(_annotated_size(image, file) != file.size for image, file in turned)
    displayed = len(turned) - as_stored
    sentences = []
    if displayed:
        sentences.append(
            f"{displayed} images are rotated by EXIF; their boxes are assumed to refer to the displayed image. Check a "
            "few: tools that ignore EXIF write boxes for the stored image"
        )
    if as_stored:
        sentences.append(
            f"{as_stored} images are rotated by EXIF; their boxes are assumed to refer to the stored image, "
            "which alone has the annotated size"
        )
    return sentences


def _odd(image: SourceImage, file: _File) -> Iterable[str]:
    yield from image.odd
    if file.orientation in TURNED:
        yield "rotated by EXIF"
    if file.mode != "RGB":
        yield f"colour mode {file.mode}" + (", transparency is left out" if file.mode in TRANSPARENT else "")


def refuse_bad_categories(categories: list[dict[str, Any]], where: Path) -> None:
    """Raise UserError if there is no class, or an id or a name twice."""
    if not categories:
        raise UserError(where, "there is no class", found="no box with a name", expected="at least one class")
    for key in ("id", "name"):
        counts = Counter(category[key] for category in categories)
        repeated = [value for value, count in counts.items() if count > 1]
        if repeated:
            raise UserError(where, f"duplicate class {key}", found=repeated, expected="each class once")


def _refuse_repeated(described: SourceSplit) -> None:
    counts = Counter(image.image_id for image in described.images)
    repeated = [image_id for image_id, count in counts.items() if count > 1]
    if repeated:
        raise UserError(
            described.images[0].described_in, "duplicate image id", found=repeated[:5], expected="each id once"
        )


def _refuse_overlap(images: dict[str, _Images], image_dirs: dict[str, Path]) -> None:
    """Raise a UserError if an image is in two splits by id, name or content."""
    keys: dict[str, Callable[[SourceImage, _File], Any]] = {
        "image id": lambda image, _: image.image_id,
        "file name": lambda image, _: image.file_name,
        "content": lambda _, file: file.sha256,
    }
    for first, second in combinations(image_dirs, 2):
        for what, key in keys.items():
            if what == "file name" and image_dirs[first] != image_dirs[second]:
                continue
            seen = {key(image, file): image.file_name for image, file in reversed(images[first])}
            shared = [
                (image.file_name, seen[key(image, file)]) for image, file in images[second] if key(image, file) in seen
            ]
            if shared:
                raise UserError(
                    image_dirs[second] / shared[0][0],
                    f"the same image is in both splits (same {what}); nothing was changed",
                    found=f"{len(shared)}, first: {second} {shared[0][0]} = {first} {shared[0][1]}",
                    expected="splits without a common image: scores on training images mean nothing",
                    hint="remove them from one split; if only the ids are equal, renumber the images",
                )


def split_counts(objects: Objects, categories: list[dict[str, Any]], image_dir: str | None, digest: str) -> SplitCounts:
    """Return the entry of a split in manifest.json."""
    counted = ~objects.crowd
    of_image, areas = np.diff(objects.first), objects.areas[counted]
    per_class = np.bincount(objects.label[counted], minlength=len(categories)).tolist()
    return {
        "image_dir": image_dir,
        "num_images": len(of_image),
        "num_objects": int(counted.sum()),
        "num_ignored": int(objects.crowd.sum()),
        "num_empty_images": int((of_image == 0).sum()),
        "per_class": {category["name"]: count for category, count in zip(categories, per_class, strict=True)},
        "per_size": {name: int(((low <= areas) & (areas < high)).sum()) for name, (low, high) in COCO_AREAS.items()},
        "digest": digest,
    }


def _of_files(written: Written, images: _Images, bits: int) -> OfFiles:
    deep = any(_is_deep(file, bits) for _, file in images)
    return {"sha256": written.sha256, **({"bits": bits} if deep else {})}
