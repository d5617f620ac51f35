"""Create small data sets for the tests of the data sources."""

import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from fcos.commands.prepare import prepare, write_data
from fcos.config.data import DataConfig, FilesData
from fcos.config.section import parse_section
from fcos.data.sources.discover import discover
from fcos.errors import UserError

REPO = Path(__file__).resolve().parents[1]
REAL = REPO.parent / "shared" / "data"
STUDY = "pets"
DATA = Path("data") / STUDY
WIDTH, HEIGHT = 60, 40
CATEGORIES = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]  # with a gap, and not from 1
ORIENTATION = 0x0112  # the EXIF tag


def needs_real(name: str) -> pytest.MarkDecorator:
    """Skip the test if the real images are missing."""
    return pytest.mark.skipif(not (REAL / name).is_dir(), reason=f"real data are absent: {REAL / name}")


def pixels(name: str, *, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Return smooth colours (height, width, 3) that depend on `name`, so that other names give other images."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    coarse = Image.fromarray(rng.integers(0, 256, size=(4, 6, 3), dtype=np.uint8))
    return np.array(coarse.resize((width, height), Image.Resampling.BICUBIC))


def save_image(path: Path, *, width: int = WIDTH, height: int = HEIGHT, name: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(name or path.stem, width=width, height=height)).save(path)
    return path


def exif(orientation: int) -> Image.Exif:
    block = Image.Exif()
    block[ORIENTATION] = orientation
    return block


# PASCAL VOC ----------------------------------------------------------------------------------------------------------


def voc_object(name: str, corners: Iterable[object], *, difficult: int = 0) -> str:
    """Return an <object>; `corners` are xmin, ymin, xmax, ymax as in the file, 1-based and inclusive."""
    sides = "".join(
        f"<{tag}>{value}</{tag}>" for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    )
    return f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>{sides}</bndbox></object>"


def voc_xml(objects: Iterable[str], *, size: tuple[object, object] | None = (WIDTH, HEIGHT), folder: str = "") -> str:
    tag = f"<folder>{folder}</folder>" if folder else ""
    extent = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>" if size else ""
    return f"<annotation>{tag}{extent}{''.join(objects)}</annotation>"


def write_voc(root: Path, splits: Mapping[str, Mapping[str, Iterable[str]]]) -> Path:
    """Write a folder in VOC layout; `splits` gives the objects of each image of each split."""
    for split, images in splits.items():
        for stem, objects in images.items():
            save_image(root / "JPEGImages" / f"{stem}.jpg")
            write(root / "Annotations" / f"{stem}.xml", voc_xml(objects))
        write(root / "ImageSets" / "Main" / f"{split}.txt", "".join(f"{stem}\n" for stem in images))
    return root


CAT = voc_object("cat", (11, 6, 40, 30))
DOG = voc_object("dog", (1, 1, WIDTH, HEIGHT))


def small_voc(root: Path = Path("photos"), /, **train: Any) -> Path:
    """Two training images and one for testing; `train` sets the objects of training images."""
    return write_voc(root, {"trainval": {"000001": [CAT], "000002": [DOG], **train}, "test": {"000003": [CAT, DOG]}})


# COCO ----------------------------------------------------------------------------------------------------------------


def coco_image(number: int, **changes: Any) -> dict[str, Any]:
    return {"id": number, "file_name": f"{number:012d}.jpg", "width": WIDTH, "height": HEIGHT, **changes}


def coco_box(number: int, image_id: int, bbox: object = (10, 5, 30, 25), **changes: Any) -> dict[str, Any]:
    return {"id": number, "image_id": image_id, "category_id": 3, "bbox": bbox, "iscrowd": 0, **changes}


def coco_content(images: list[dict[str, Any]], boxes: list[dict[str, Any]]) -> dict[str, Any]:
    return {"images": images, "annotations": boxes, "categories": CATEGORIES}


def write_coco(root: Path, train: Mapping[str, Any], test: Mapping[str, Any]) -> Path:
    """Write COCO's own layout; missing images are drawn."""
    for split, content in (("train2017", train), ("val2017", test)):
        write(root / "annotations" / f"instances_{split}.json", json.dumps(content))
        for image in content["images"]:
            path = root / split / image["file_name"]
            if not path.exists():
                save_image(path, name=f"{split}-{path.name}")
    return root


def small_coco(root: Path = Path("coco"), *, train: Mapping[str, Any] | None = None) -> Path:
    """Two training images (one box each, unless `train` says otherwise) and one for testing."""
    usual = coco_content([coco_image(1), coco_image(2)], [coco_box(1, 1), coco_box(2, 2, category_id=7)])
    return write_coco(root, train or usual, coco_content([coco_image(3)], [coco_box(1, 3)]))


# YOLO ----------------------------------------------------------------------------------------------------------------

YOLO_CAT = "0 0.416667 0.4375 0.5 0.625"  # of 60 x 40 pixels: center 25.00002, 17.5, extent 30 x 25: CAT's box
YOLO_DOG = "1 0.5 0.5 1 1"


def write_yolo(
    root: Path, splits: Mapping[str, Mapping[str, Iterable[str] | None]], place: str = "{part}/{split}"
) -> Path:
    """A YOLO folder; `splits` gives the lines of each image of each split, None: no label file.

    `place`: where a part (images, labels) of a split lies.
    """
    for split, images in splits.items():
        for stem, lines in images.items():
            save_image(root / place.format(part="images", split=split) / f"{stem}.jpg")
            if lines is not None:
                write(root / place.format(part="labels", split=split) / f"{stem}.txt", "".join(f"{x}\n" for x in lines))
    return root


def small_yolo(root: Path = Path("yolo"), /, **train: Any) -> Path:
    """Two training images and one for testing; `train` sets the lines of training images."""
    return write_yolo(root, {"train": {"a": [YOLO_CAT], "b": [YOLO_DOG], **train}, "val": {"c": [YOLO_CAT, YOLO_DOG]}})


# Preparing in the current folder -------------------------------------------------------------------------------------


def run_prepare(**data: Any) -> dict[str, Any]:
    """`fcos prepare` with this `data:` section; returns the manifest as it was written."""
    params = yaml.safe_load((REPO / "studies" / "shapes.yaml").read_text(encoding="utf-8"))
    write(Path("params.yaml"), yaml.safe_dump({**params, "study": STUDY, "data": data}))
    returned = prepare()
    assert returned == read("manifest")
    return dict(returned)


def prepare_as_found(folder: Path, out_dir: Path, **choices: Any) -> dict[str, Any]:
    """Prepare in `out_dir` what `fcos study new` finds in `folder`; `choices` are further keys of `data:`."""
    found = discover(folder).data
    data = {key: value for key, value in found.items() if value is not None or "validation" not in key}
    data |= {"root": str(found["root"]), **choices}
    config: FilesData = parse_section({"data": data}, "data", DataConfig)  # type: ignore[arg-type]
    return dict(write_data(config, out_dir))


def read(name: str) -> dict[str, Any]:
    """Return train, test or manifest of the prepared data."""
    return dict(json.loads((DATA / f"{name}.json").read_text(encoding="utf-8")))


def boxes(split: str = "train") -> list[list[float]]:
    return [annotation["bbox"] for annotation in read(split)["annotations"]]


def assert_refused(*parts: str, **data: Any) -> None:
    """Check that prepare refuses this `data:` with all `parts` in its message and changes no prepared data."""
    write(DATA / "train.json", '{"earlier": true}')
    before = snapshot(Path("data"))
    with pytest.raises(UserError) as refusal:
        run_prepare(**data)
    for part in parts:
        assert part in str(refusal.value)
    assert snapshot(Path("data")) == before


def snapshot(folder: Path) -> dict[str, str]:
    """Return everything below `folder`: the digest of each file, and the sub-folders, hidden ones included."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in sorted(folder.rglob("*"))
    }


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path
