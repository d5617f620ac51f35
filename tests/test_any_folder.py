"""Any folder is read, or refused with the name of the bad file: random folders and annotations, randomly corrupted.

FCOS_EXAMPLES says how many of each layout (CI: 6,700); they are the same each time.
"""

import io
import json
import os
import struct
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import yaml
from data_helpers import prepare_as_found
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from fcos.data.sources import assemble, together
from fcos.errors import UserError

WIDTH, HEIGHT = 12, 8
FORMATS = {"jpg": "JPEG", "png": "PNG", "bmp": "BMP", "tif": "TIFF"}
SPLITS = ("train", "valid", "test")

TEXTS = [
    "",
    " ",
    "a",
    "0",
    "1",
    "01",
    "-1",
    "1.0",
    "1e3",
    "nan",
    "no",
    "cat",
    "dog",
    "Cat",
    "cat ",
    "a\nb",
    "\u732b",
    "\0",
]
TEXTS += ["../a0.jpg", "/etc/passwd", "C:\\x\\train0.jpg", "http://x/train0.jpg?y", "train0.jpg", "images/train0.jpg"]
BOXES = [(1, 1, 5, 4), (0, 0, 12, 8), (2.5, 1.5, 3, 3), (1, 1, 4, 4), (8, 5, 10, 7), (3, 3, 0, 2)]
LINES = ["0 0.5 0.5 0.5 0.5"] * 20 + [
    "1 0.5 0.5 0.2 0.2",
    "",
    "0 0.5 0.5 nan 1",
    "cat 1 2 3 4",
    "0 0.1 0.1 0.9 0.1 0.5 0.9",
    "0,1,2,3,4",
    "7 1 1 1 1",
]
YOLO_PLACES = [("images/{s}", "labels/{s}"), ("{s}/images", "{s}/labels"), ("{s}", "{s}"), ("", "")]
YAML = {
    "path": "..",
    "roboflow": {},
    "train": "train/images",
    "val": "../valid/images",
    "names": ["cat", "dog"],
    "nc": 2,
}

SCALARS = [None, True, False, *range(-3, 21), 2**31, 2**53, 10**400, -0.5, 0.25, 1e308, *TEXTS]
ENCODINGS = ["utf-8"] * 6 + ["utf-8-sig", "utf-16", "utf-16-le", "latin-1", "gbk"]


class Dice:
    """Choices and values from few random bytes: hypothesis's own draws of them take longer than reading the folder."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.left: list[int] = []

    def pick(self, options: Sequence[Any]) -> Any:
        return options[self.byte() % len(options)]

    def byte(self) -> int:
        if not self.left:
            self.left = list(self.draw(st.binary(min_size=64, max_size=64)))
        return self.left.pop()

    def raw(self, count: int) -> bytes:
        return bytes(self.byte() for _ in range(count))

    def value(self, depth: int = 2) -> Any:
        """Return any value that JSON or YAML can hold, also any float."""
        kind = self.pick(range(8))
        if kind == 0:
            return struct.unpack("<d", self.raw(8))[0]
        if depth and kind == 1:
            return [self.value(depth - 1) for _ in range(self.pick(range(6)))]
        if depth and kind == 2:
            return {self.pick(TEXTS): self.value(depth - 1) for _ in range(self.pick(range(4)))}
        return self.pick(SCALARS)


def image(seed: int, kind: str) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, FORMATS[kind])
    return stream.getvalue()


IMAGES = {(seed, kind): image(seed, kind) for seed in range(12) for kind in FORMATS}


def encoded(content: str, encoding: str) -> bytes:
    return content.encode(encoding, errors="replace")


def spoilt(dice: Dice, value: Any) -> Any:
    """Return `value` with one nested value replaced or removed."""
    if not isinstance(value, dict | list) or not value or dice.pick(range(6)) == 0:
        return dice.value()
    copy = value.copy()
    key = dice.pick(sorted(copy) if isinstance(copy, dict) else range(len(copy)))
    if dice.pick(range(8)) == 0:
        del copy[key]
    else:
        copy[key] = spoilt(dice, copy[key])
    return copy


def maybe_spoilt(dice: Dice, value: Any) -> Any:
    for _ in range(dice.pick([0, 0, 0, 1, 2])):
        value = spoilt(dice, value)
    return value


def images_of(dice: Dice) -> list[tuple[str, str, bytes]]:
    """Return (split, name, content) of a few images."""
    splits = dice.pick([("train",), ("train", "valid"), SPLITS, SPLITS, ("day", "night")])
    kind = dice.pick(["jpg"] * 5 + list(FORMATS))
    count = dice.pick(range(1, 4))
    fresh = dice.pick(range(10)) > 0  # otherwise copies
    return [
        (split, f"{split}{i}.{kind}", IMAGES[(3 * number + i) if fresh else i, kind])
        for number, split in enumerate(splits)
        for i in range(count)
    ]


def coco(dice: Dice) -> dict[str, bytes]:
    files, contents = {}, {}
    below = dice.pick(["", "images/"])
    for split, name, content in images_of(dice):
        files[f"{below}{split}/{name}"] = content
        one = contents.setdefault(split, {"images": [], "annotations": [], "categories": [{"id": 1, "name": "cat"}]})
        number = len(one["images"])
        one["images"].append({"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT})
        box = list(dice.pick(BOXES))
        entry = {"id": number, "image_id": number, "category_id": 1, "bbox": box, "area": 20, "iscrowd": 0}
        one["annotations"].append(entry)
    beside = dice.pick((False, True))
    for split, content in contents.items():
        name = f"{below}{split}/_annotations.coco.json" if beside else f"annotations/instances_{split}.json"
        files[name] = encoded(json.dumps(maybe_spoilt(dice, content), ensure_ascii=False), dice.pick(ENCODINGS))
    return files


def voc(dice: Dice) -> dict[str, bytes]:
    files, lists = {}, {}
    place = dice.pick([("Annotations", "JPEGImages"), ("annotations", "images"), ("{s}", "{s}")])
    for split, name, content in images_of(dice):
        labels, images = (part.replace("{s}", split) for part in place)
        stem = name.rpartition(".")[0]
        files[f"{images}/{name}"] = content
        files[f"{labels}/{stem}.xml"] = encoded(voc_xml(dice, name), dice.pick(ENCODINGS))
        lists.setdefault(split, []).append(dice.pick([stem] * 6 + [name, stem + " 1", "gone"]))
    if dice.pick((False, True)):
        for split, names in lists.items():
            files[f"ImageSets/Main/{split}.txt"] = encoded("\n".join(names), dice.pick(ENCODINGS))
    return files


def voc_xml(dice: Dice, name: str) -> str:
    corners = dice.pick([(2, 2, 7, 6), (0, 0, 9, 9)])
    sides = dict(zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True))
    value = {"filename": name, "size": {"width": WIDTH, "height": HEIGHT}, "object": {"name": "cat", "bndbox": sides}}
    value["object"]["difficult"] = dice.pick([0, "0", "true", "Unspecified", "x"])
    head = dice.pick(["", "", "<?xml version='1.0' encoding='gbk'?>", "<?xml version='1.0'?>", "<?xml"])
    root = dice.pick(["annotation"] * 6 + ["Annotation", "svg", "n:annotation"])
    return f"{head}<{root} xmlns:n='n'>{_tags(maybe_spoilt(dice, value))}</{root}>"


def _tags(value: Any) -> str:
    if isinstance(value, dict):
        return "".join(f"<{key}>{_tags(inner)}</{key}>" for key, inner in value.items())
    return "".join(map(_tags, value)) if isinstance(value, list) else str(value)[:50]


def yolo(dice: Dice) -> dict[str, bytes]:
    files = {}
    place = dice.pick(YOLO_PLACES)
    for split, name, content in images_of(dice):
        images, labels = (f"{part.replace('{s}', split)}/".lstrip("/") for part in place)
        files[f"{images}{name}"] = content
        content_lines = "\n".join(dice.pick(LINES) for _ in range(dice.pick((1, 2, 3))))
        files[f"{labels}{name.rpartition('.')[0]}.txt"] = encoded(content_lines, dice.pick(ENCODINGS))
    if dice.pick((False, True)):
        described = yaml.safe_dump(maybe_spoilt(dice, YAML), allow_unicode=True)
        files["data.yaml"] = encoded(described, dice.pick(ENCODINGS))
    names = dice.pick(["cat\ndog\n"] * 6 + ["cat\n\ndog", "dog\ncat", "", None])
    if names is not None:
        files["classes.txt"] = encoded(names, dice.pick(ENCODINGS))
    return files


@st.composite
def folders(draw: st.DrawFn, layout: Callable[[Dice], dict[str, bytes]]) -> dict[str, bytes | str]:
    """Return files by name; a text instead of bytes means a link to that place or a FIFO."""
    dice = Dice(draw)
    files: dict[str, bytes | str] = dict(layout(dice))
    for _ in range(dice.pick([0, 0, 1, 2])):
        name = dice.pick(sorted(files))
        what = dice.pick(range(6))
        if what == 0:
            del files[name]
        elif what == 1:
            files[f"{dice.pick(['', 'backup/', 'mine/', 'train/'])}x_{Path(name).name}"] = files.pop(name)
        elif what == 2 and isinstance(files[name], bytes):
            files[name] = files[name][: dice.pick(range(61))]
        elif what == 3:
            files[name] = dice.raw(dice.pick(range(21)))
        elif what == 4:
            other = dice.pick(["README.txt", "notes.json", "train.txt", "val.txt", "obj.data", "o.names"])
            files[other] = dice.pick([b"", b"[1]", b"{", b"train0.jpg\n", b"train = train.txt", b"cat\n"])
        else:
            files[f"link_{dice.pick(range(2))}"] = dice.pick([".", "..", "nowhere", "train", "FIFO"])
        if not files:
            break
    return files


def write(root: Path, files: dict[str, bytes | str]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content == "FIFO":
            os.mkfifo(path)
        elif isinstance(content, str):
            path.symlink_to(content)
        else:
            path.write_bytes(content)


def check(out: Path, manifest: dict[str, Any]) -> None:
    """Check that the output can be trained on and scored."""
    ids: set[int] = set()
    for split in manifest["splits"]:
        content = json.loads((out / f"{split}.json").read_text())
        sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
        assert len(sizes) == len(content["images"]) > 0 and not ids & sizes.keys()
        ids |= sizes.keys()
        assert all(isinstance(image_id, int) and image_id >= 0 for image_id in sizes)
        classes = {category["id"] for category in content["categories"]}
        assert all(isinstance(category_id, int) and category_id > 0 for category_id in classes)
        for annotation in content["annotations"]:
            (x, y, w, h), (width, height) = annotation["bbox"], sizes[annotation["image_id"]]
            assert min(x, y) >= 0 < min(w, h) and x + w <= width + 1e-6 and y + h <= height + 1e-6
            assert annotation["category_id"] in classes and annotation["iscrowd"] in (0, 1) and annotation["area"] > 0


def silent(module: Any) -> Any:
    return mock.patch.object(module, "track_threads", lambda function, items, *_, **__: [*map(function, items)])


def read_or_refuse(files: dict[str, bytes | str], **choices: str) -> str:
    """Return `read`, or check that the message names a file of the folder or a key of the section `data`."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as scratch:
        root, out = Path(scratch) / "set", Path(scratch) / "out"
        root.mkdir()
        out.mkdir()
        write(root, files)
        try:
            with silent(assemble), silent(together):
                check(out, prepare_as_found(root, out, **choices))
        except UserError as error:
            message = str(error)
            assert str(root) in message or "data." in message, message
            return message
    return "read"


LAYOUTS = {"coco": coco, "voc": voc, "yolo": yolo}
EXAMPLES = int(os.environ.get("FCOS_EXAMPLES", "700"))


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_any_folder_is_read_or_refused(layout: str) -> None:
    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    @given(folders(LAYOUTS[layout]), st.sampled_from(["error", "leave-out"]), st.sampled_from(["error", "clip"]))
    def any_folder(files: dict[str, bytes | str], damaged: str, outside_boxes: str) -> None:
        read_or_refuse(files, damaged=damaged, outside_boxes=outside_boxes)

    any_folder()
