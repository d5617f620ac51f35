"""`fcos detect`: find objects in pictures of one's own."""

import glob
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fcos.data.pictures import read_picture
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
    pictures: bool = True,
) -> list[Record]:
    """Write what is found in every picture to `out_dir`, and the pictures with boxes drawn; return the detections.

    A picture that cannot be read stops nothing: the others are done and written, then a UserError names it. Ctrl-C
    keeps what is done.

    Args:
        score: lowest score that is drawn and written; nms: IoU of NMS. None: as in params.yaml.
        pictures: draw, or write detections.json alone.

    Returns:
        COCO-style records with the path of the picture as `file_name`; `image_id` counts the pictures from 1.
    """
    found_pictures = find_pictures(paths, out_dir)
    targets = _targets(found_pictures, out_dir) if pictures else {}
    detector = Detector(Weights.find(checkpoint).with_test(score_threshold=score, nms_iou_threshold=nms))
    records: list[Record] = []
    unread: list[UserError] = []
    numbered = enumerate(track(found_pictures, "detect", total=len(found_pictures), unit="pictures"), start=1)
    try:
        for image_id, path in numbered:
            try:
                picture = read_picture(path, bits=detector.bits)
            except UserError as error:
                unread.append(error)
                continue
            of_picture = detector([picture])[0]
            if pictures:
                targets[path].parent.mkdir(parents=True, exist_ok=True)
                draw_boxes(picture, of_picture).save(targets[path])
            records += [{"image_id": image_id, "file_name": str(path), **record} for record in of_picture]
    finally:
        write_json(out_dir / "detections.json", records)
    if unread:
        done = f"; the others are done, see {out_dir}/" if len(unread) < len(found_pictures) else ""
        raise UserError(
            "PATHS",
            f"{len(unread)} of {len(found_pictures)} pictures cannot be read{done}\n" + "\n".join(map(str, unread)),
        )
    return records


def find_pictures(paths: Sequence[Path], out_dir: Path | None = None) -> list[Path]:
    """The pictures named, those that patterns match and those in folders, in natural order within each.

    Each once; what lies in `out_dir` is not found again, unless there is nothing else.
    Raises UserError where a path leads to nothing.
    """
    found = [picture for path in paths for picture in _pictures_of(path, out_dir)]
    if not found:
        names = ", ".join(map(str, paths))
        raise UserError(names, "contains no image", expected=f"files with {', '.join(sorted(SUFFIXES))}")
    return list(dict.fromkeys(found))


def _pictures_of(path: Path, out_dir: Path | None) -> list[Path]:
    if path.is_file():
        return [path]
    inside = list(path.rglob("*")) if path.is_dir() else [Path(match) for match in _matches(path)]
    pictures = [p for p in inside if p.suffix.lower() in SUFFIXES and not p.name.startswith(".") and p.is_file()]
    drawn = None if out_dir is None else out_dir.resolve()
    return sorted([p for p in pictures if p.resolve().parent != drawn] or pictures, key=natural_key)


def _matches(pattern: Path) -> list[str]:
    """What a pattern such as `photos/**/*.jpg` matches, at least one path."""
    matches = glob.glob(str(pattern), recursive=True)  # noqa: PTH207 (absolute ones too)
    if not matches:
        expected = "a picture, a folder of pictures, or a pattern such as 'photos/*.jpg'"
        raise UserError(pattern, "no such picture or folder", expected=expected)
    return matches


def natural_key(path: Path) -> list[list[str | int]]:
    """Sorts numbers in names as numbers: frame2 before frame10."""
    return [
        [int(piece) if piece.isdecimal() else piece.lower() for piece in re.split(r"(\d+)", part)]
        for part in path.parts
    ]


def _targets(pictures: Sequence[Path], out_dir: Path) -> dict[Path, Path]:
    """Where each picture is drawn to: numbered, so that equal names from other folders stay apart."""
    numbers = (f"{number:04d}-" if len(pictures) > 1 else "" for number in range(1, len(pictures) + 1))
    targets = {path: out_dir / f"{number}{path.stem}.png" for number, path in zip(numbers, pictures, strict=True)}
    own = {path.resolve() for path in pictures}
    for target in targets.values():
        if target.resolve() in own:
            raise UserError("--out", "a picture of yours would be overwritten", found=target, expected="another folder")
    return targets
