"""`fcos detect`: find objects in pictures of one's own."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from fcos.commands.detecting import Detector
from fcos.commands.layout import Layout
from fcos.config.section import DEFAULT_PATH, parse_section, read_params
from fcos.config.study import Name
from fcos.config.test import TestConfig
from fcos.data.pictures import read_picture
from fcos.errors import UserError
from fcos.files import write_json
from fcos.progress import track

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
# Okabe and Ito's palette: told apart by colour-blind eyes too.
COLORS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7")


def detect(paths: Sequence[Path], checkpoint: str, out_dir: Path) -> list[dict[str, Any]]:
    """Draw the boxes of every picture into `out_dir` and write its detections.json; return the detections."""
    pictures = find_pictures(paths)
    detector = load_detector(checkpoint)
    found: list[dict[str, Any]] = []
    for number, path in enumerate(track(pictures, "detect", total=len(pictures), unit="pictures"), start=1):
        picture = read_picture(path)
        records = detector([picture])[0]
        found += [{"image_id": number, "file_name": str(path), **record} for record in records]
        target = out_dir / f"{number:04d}-{path.stem}.png" if len(pictures) > 1 else out_dir / f"{path.stem}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        draw_boxes(picture, records).save(target)
    write_json(out_dir / "detections.json", found)
    return found


def load_detector(checkpoint: str) -> Detector:
    """The detector of a run of the active study, or of a weights file; test settings come from params.yaml if any."""
    params = read_params() if DEFAULT_PATH.exists() else {}
    test = parse_section(params, "test", TestConfig) if "test" in params else None
    if Path(checkpoint).is_file():
        return Detector.from_weights(Path(checkpoint), test)
    if "study" not in params or checkpoint not in params.get("runs", {}):
        expected = f"a file, or one of {', '.join(params.get('runs', {})) or 'no run: there is no params.yaml here'}"
        raise UserError("--checkpoint", "neither a file nor a run", found=checkpoint, expected=expected)
    return Detector.from_weights(Layout(parse_section(params, "study", Name)).weights(checkpoint), test)


def find_pictures(paths: Sequence[Path]) -> list[Path]:
    """The pictures named, and those in the folders named."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
        elif path.is_file():
            found.append(path)
        else:
            raise UserError(path, "no such picture or folder", expected="a picture or a folder of pictures")
    if not found:
        names = ", ".join(map(str, paths))
        raise UserError(names, "no picture in there", expected=f"files with {', '.join(sorted(SUFFIXES))}")
    return found


def draw_boxes(picture: NDArray[np.uint8], records: list[dict[str, Any]]) -> Image.Image:
    """The picture with each record's box, class and score; the best are drawn last, on top."""
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    for record in reversed(records):
        x, y, w, h = record["bbox"]
        color = COLORS[record["category_id"] % len(COLORS)]
        draw.rectangle((x, y, x + w, y + h), outline=color, width=2)
        text = f"{record['category']} {record['score']:.2f}"
        place = draw.textbbox((x + 2, max(0, y - 12)), text)
        draw.rectangle(place, fill=color)
        draw.text((place[0], place[1]), text, fill="black", anchor="lt")
    return image
