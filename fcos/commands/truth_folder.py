"""Ground truth from a folder of images with annotations, in any layout that `fcos study new` reads."""

import tempfile
from pathlib import Path
from typing import Any

from fcos.commands.prepare import write_data
from fcos.config.data import DataConfig
from fcos.config.section import parse_section
from fcos.data.sources.discover import Discovered, discover
from fcos.data.sources.voc import read_voc
from fcos.errors import UserError
from fcos.files import read_json

SPLITS = ("test", "validation", "train")  # the first that is there is scored
_PARTS = {"coco": ("annotations", "images"), "voc": ("split",), "yolo": ("images", "labels")}


def find_truth(folder: Path, split: str | None) -> tuple[Path | dict[str, Any], str]:
    """Ground truth of one split of `folder`: the COCO file that lies there, or the content of one.

    Args:
        split: test, validation or train; None: the first of these that is there.

    Returns:
        The file or content, and a sentence that says what was taken.

    Raises:
        UserError: no layout that is known, no such split, or what `fcos prepare` would refuse.
    """
    found = discover(folder)
    source = found.data["source"]
    there = [name for name in SPLITS if found.data.get(f"{name}_{_PARTS[source][0]}") is not None]
    if source == "voc" and not there:
        there = ["train"]  # no lists: all of the folder
    chosen = split or there[0]
    if chosen not in there:
        raise UserError(
            f"--split {split}", f"no such split in {folder}", found=", ".join(there), expected="one of these"
        )
    others = "".join(f"; --split {name} is there too" for name in there if name != chosen)
    sentence = f"ground truth is the {'only' if not others else chosen} split of {folder}, {found.layout}{others}"
    if source == "coco":
        return Path(found.data["root"]) / found.data[f"{chosen}_annotations"], sentence
    return _content(found, chosen), sentence


def _content(found: Discovered, split: str) -> dict[str, Any]:
    """The images and boxes of a split as `fcos prepare` writes them, with `split` as the only one."""
    source, data = found.data["source"], dict(found.data)
    parts = _PARTS[source]
    chosen = {f"train_{part}": data[f"{split}_{part}"] for part in parts}
    others = {f"{other}_{part}": None for other in ("validation", "test") for part in parts}
    settings = {"outside_boxes": "clip", "test_fraction": 0.5, **({"difficult": "keep"} if source == "voc" else {})}
    data |= {**chosen, **others, **settings, "root": str(data["root"])}
    if source == "voc":
        data["classes"] = _voc_classes(found)
    config: DataConfig = parse_section({"data": data}, "data", DataConfig)  # type: ignore[arg-type]
    # A study is never without test images; here all images of the split are scored.
    whole = config.model_copy(update={"test_fraction": 0.0})
    with tempfile.TemporaryDirectory() as temporary:
        write_data(whole, Path(temporary))
        content: dict[str, Any] = read_json(Path(temporary) / "train.json", do="fcos score")
    return content


def _voc_classes(found: Discovered) -> list[str]:
    """Those of all splits, as a study numbers them: a class may have no object in the one that is scored."""
    names = {split: found.data.get(f"{split}_split") for split in reversed(SPLITS)}
    splits = {split: name for split, name in names.items() if name is not None or split == "train"}
    source = read_voc(Path(found.data["root"]), splits=splits, classes=None, ignore_difficult=False)
    return [category["name"] for category in source.categories]
