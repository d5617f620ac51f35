"""`fcos prepare`: the data of the study as COCO JSON with a manifest."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fcos.commands.layout import Layout
from fcos.commands.places import fetch, find_places, link_places, name_of_place
from fcos.config.data import CocoData, DataConfig, ShapesData, VocData, YoloData
from fcos.config.section import parse_section, read_params
from fcos.config.study import Name
from fcos.data.sources.assemble import SPLITS, assemble
from fcos.data.sources.coco import read_coco
from fcos.data.sources.description import Source
from fcos.data.sources.shapes import draw_shapes
from fcos.data.sources.voc import read_voc
from fcos.data.sources.yolo import read_yolo
from fcos.files import in_project, whole_dir


def prepare() -> dict[str, Any]:
    """Write data/STUDY/ whole or not at all; return the manifest."""
    params = read_params()
    config: DataConfig = parse_section(params, "data", DataConfig)  # type: ignore[arg-type]
    layout = Layout(parse_section(params, "study", Name))
    fetch(config)

    def name_of(image_dir: Path) -> str:
        return name_of_place(image_dir, find_places(config), layout)

    with whole_dir(layout.data) as scratch:
        manifest = write_data(config, scratch, name_of=name_of)
        link_places(config, layout)
    return manifest


def write_data(
    config: DataConfig, out_dir: Path, *, name_of: Callable[[Path], str] = lambda folder: str(folder.resolve())
) -> dict[str, Any]:
    """Check the images and boxes that `config` describes and write them to `out_dir`; return the manifest.

    Args:
        name_of: what the manifest calls a folder of images outside of `out_dir`, which is read from there.
    """
    if isinstance(config, ShapesData):
        drawn = draw_shapes(out_dir, **config.model_dump(exclude={"source", "validation_fraction", "cache"}))
        return assemble(drawn, out_dir, clip_outside=False, validation_fraction=config.validation_fraction)
    return assemble(
        _read(config),
        out_dir,
        clip_outside=config.outside_boxes == "clip",
        validation_fraction=config.validation_fraction,
        test_fraction=config.test_fraction,
        name_of=name_of,
    )


def _read(config: VocData | CocoData | YoloData) -> Source:
    root = in_project(config.root)
    if isinstance(config, VocData):
        lists = {"train": config.train_split, "validation": config.validation_split, "test": config.test_split}
        named = {split: name for split, name in lists.items() if split == "train" or name is not None}
        return read_voc(root, splits=named, classes=config.classes, ignore_difficult=config.difficult == "ignore")
    if isinstance(config, CocoData):
        return read_coco(_places(config, root, "annotations", "images"), classes=config.classes)
    return read_yolo(_places(config, root, "images", "labels"), classes=config.classes)


def _places(config: CocoData | YoloData, root: Path, *what: str) -> dict[str, tuple[Path, Path]]:
    """Where the two parts of each split lie; the keys of both parts are given together, or neither is."""
    names = {split: [getattr(config, f"{split}_{part}") for part in what] for split in SPLITS}
    return {split: (root / first, root / second) for split, (first, second) in names.items() if first is not None}
