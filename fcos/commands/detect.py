"""`fcos detect`: detect objects in images of the user."""

import glob
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fcos.data.images import read_image
from fcos.errors import UserError
from fcos.files import write_json
from fcos.inference.detector import Detector, Weights
from fcos.inference.drawing import draw_boxes
from fcos.progress import track

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
Record = dict[str, Any]


def detect(
    paths: Sequence[Path],
    checkpoint: str,
    out_dir: Path,
    *,
    score: float | None = None,
    nms: float | None = None,
    images: bool = True,
) -> list[Record]:
    """Write the detections in all images, and the images with their boxes, to `out_dir`; return the detections.

    If an image cannot be read, the others are still processed and written before UserError names it. Ctrl-C keeps
    finished work.

    Args:
        score: lowest score that is drawn and written; nms: IoU threshold of NMS. None: as in params.yaml.
        images: whether images are drawn; otherwise only detections.json is written.

    Returns:
        COCO-style records with the path of the image as `file_name`; `image_id` counts the images from 1.
    """
    found_images = find_images(paths, out_dir)
    targets = _targets(found_images, out_dir) if images else {}
    detector = Detector(Weights.find(checkpoint).with_test(score_threshold=score, nms_iou_threshold=nms))
    records: list[Record] = []
    unread: list[UserError] = []
    numbered = enumerate(track(found_images, "detect", total=len(found_images), unit="images"), start=1)
    try:
        for image_id, path in numbered:
            try:
                image = read_image(path, bits=detector.bits)
            except UserError as error:
                unread.append(error)
                continue
            of_image = detector([image])[0]
            if images:
                targets[path].parent.mkdir(parents=True, exist_ok=True)
                draw_boxes(image, of_image).save(targets[path])
            records += [{"image_id": image_id, "file_name": str(path), **record} for record in of_image]
    finally:
        write_json(out_dir / "detections.json", records)
    if unread:
        done = f"; the others are done, see {out_dir}/" if len(unread) < len(found_images) else ""
        raise UserError(
            "PATHS",
            f"{len(unread)} of {len(found_images)} images cannot be read{done}\n" + "\n".join(map(str, unread)),
        )
    return records


def find_images(paths: Sequence[Path], out_dir: Path | None = None) -> list[Path]:
    """Return the images in `paths` (files, patterns and folders), each once and in natural order within each path.

    Images in `out_dir` are left out unless a path has no others. Raises UserError if a path does not exist or if no
    image is found.
    """
    found = [image for path in paths for image in _images_of(path, out_dir)]
    if not found:
        names = ", ".join(map(str, paths))
        raise UserError(names, "contains no image", expected=f"files with {', '.join(sorted(SUFFIXES))}")
    return list(dict.fromkeys(found))


def _images_of(path: Path, out_dir: Path | None) -> list[Path]:
    if path.is_file():
        return [path]
    inside = list(path.rglob("*")) if path.is_dir() else [Path(match) for match in _matches(path)]
    images = [p for p in inside if p.suffix.lower() in SUFFIXES and not p.name.startswith(".") and p.is_file()]
    drawn = None if out_dir is None else out_dir.resolve()
    return sorted([p for p in images if p.resolve().parent != drawn] or images, key=natural_key)


def _matches(pattern: Path) -> list[str]:
    """Return the paths that a pattern such as `photos/**/*.jpg` matches, at least one."""
    matches = glob.glob(str(pattern), recursive=True)  # noqa: PTH207 (absolute ones too)
    if not matches:
        expected = "an image, a folder of images, or a pattern such as 'photos/*.jpg'"
        raise UserError(pattern, "no such image or folder", expected=expected)
    return matches


def natural_key(path: Path) -> list[list[str | int]]:
    """Return a sort key that compares digits in names as numbers: frame2 before frame10."""
    return [
        [int(piece) if piece.isdecimal() else piece.lower() for piece in re.split(r"(\d+)", part)]
        for part in path.parts
    ]


def _targets(images: Sequence[Path], out_dir: Path) -> dict[Path, Path]:
    """Return the output file of each image, numbered so that equal names from different folders do not collide."""
    numbers = (f"{number:04d}-" if len(images) > 1 else "" for number in range(1, len(images) + 1))
    targets = {path: out_dir / f"{number}{path.stem}.png" for number, path in zip(numbers, images, strict=True)}
    own = {path.resolve() for path in images}
    for target in targets.values():
        if target.resolve() in own:
            raise UserError("--out", "an input image would be overwritten", found=target, expected="another folder")
    return targets
