"""Read ground truth from a folder of images with annotations, in any layout that `fcos study new` reads."""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fcos.config.data import CocoData, DataConfig, GroundTruthData, ShapesData
from fcos.config.section import parse_section
from fcos.data.sources.assemble import assemble
from fcos.data.sources.description import Source
from fcos.data.sources.discover import discover
from fcos.errors import UserError
from fcos.files import read_json
from fcos.study.data import read_source

SPLITS = ("test", "validation", "train")  # by default the first available one is scored
_CORRECTED = {"dropped": "left out, since they have no area or are outside their image", "clipped": "cut at its border"}


@dataclass(frozen=True, kw_only=True)
class FoundTruth:
    """The ground truth of one split of a folder."""

    content: Path | dict[str, Any]  # a COCO file, or what such a file would hold
    split: str
    images: Path  # the folder of its images
    sentence: str  # which split was used
    corrected: list[str]  # sentences on boxes that are not as in the folder


def find_truth(folder: Path, split: str | None, setting: str = "--split") -> FoundTruth:
    """Return the ground truth of one split of `folder`, as the COCO file in it or as converted content.

    Args:
        split: test, validation or train; None: the first of these that is available.
        setting: what names the split, for errors.

    Raises:
        UserError: an unknown layout, no such split, or data that `fcos prepare` would refuse.
    """
    found = discover(folder)
    config: DataConfig = parse_section({"data": {**found.data, "root": str(found.data["root"])}}, "data", DataConfig)  # type: ignore[arg-type]
    assert not isinstance(config, ShapesData | GroundTruthData)
    source = None if isinstance(config, CocoData) else read_source(config)
    named = [name for name in SPLITS if found.data.get(f"{name}_annotations") is not None]
    there = named if source is None else [name for name in SPLITS if name in source.splits]
    chosen = split or there[0]
    if chosen not in there:
        raise UserError(
            f"{setting} {split}", f"no such split in {folder}", found=", ".join(there), expected="one of these"
        )
    others = "".join(f"; also available: {setting} {name}" for name in there if name != chosen)
    sentence = f"ground truth is the {'only' if not others else chosen} split of {folder}, {found.layout}{others}"
    if source is None:
        root = Path(found.data["root"])
        content: Path | dict[str, Any] = root / found.data[f"{chosen}_annotations"]
        images = root / found.data[f"{chosen}_images"]
        corrected: list[str] = []
    else:
        content, corrected = _content(source, chosen)
        images = source.splits[chosen].image_dir
    return FoundTruth(content=content, split=chosen, images=images, sentence=sentence, corrected=corrected)


def _content(source: Source, split: str) -> tuple[dict[str, Any], list[str]]:
    """Return the images and boxes of a split as `fcos prepare` writes them, with the classes of all splits.

    Boxes without area or outside their image are left out, and others clipped; sentences say how many.
    """
    alone = replace(source, splits={"train": source.splits[split]})
    with tempfile.TemporaryDirectory() as temporary:
        manifest = assemble(alone, Path(temporary), clip_outside=True)
        content: dict[str, Any] = read_json(Path(temporary) / "train.json", hint="fcos score")
    counts = {"dropped": len(manifest["dropped"]), "clipped": len(manifest["clipped"])}
    total = len(content["annotations"]) + counts["dropped"]
    return content, [f"{counts[key]} of {total} boxes are {what}" for key, what in _CORRECTED.items() if counts[key]]
