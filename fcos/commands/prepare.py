"""`fcos prepare`: the data of the study as COCO JSON with a manifest."""

from pathlib import Path
from typing import Any

from fcos.commands.layout import Layout
from fcos.config.data import CocoData, DataConfig, ShapesData, VocData, YoloData
from fcos.config.section import parse_section, read_params
from fcos.config.study import Name
from fcos.data.sources.assemble import SPLITS, assemble
from fcos.data.sources.coco import read_coco
from fcos.data.sources.description import Source
from fcos.data.sources.download import ARCHIVES, download
from fcos.data.sources.shapes import draw_shapes
from fcos.data.sources.voc import read_voc
from fcos.data.sources.yolo import read_yolo
from fcos.errors import UserError
from fcos.files import whole_dir


def prepare() -> dict[str, Any]:
    """Write data/STUDY/ whole or not at all; return the manifest."""
    params = read_params()
    config: DataConfig = parse_section(params, "data", DataConfig)  # type: ignore[arg-type]
    out_dir = Layout(parse_section(params, "study", Name)).data
    if not isinstance(config, ShapesData):
        _have_files(config)
    with whole_dir(out_dir) as scratch:
        return write_data(config, scratch)


def write_data(config: DataConfig, out_dir: Path) -> dict[str, Any]:
    """Check the pictures and boxes that `config` describes and write them to `out_dir`; return the manifest."""
    if isinstance(config, ShapesData):
        drawn = draw_shapes(out_dir, **config.model_dump(exclude={"source", "validation_fraction", "cache"}))
        return assemble(drawn, out_dir, clip_outside=False, validation_fraction=config.validation_fraction)
    return assemble(
        _read(config),
        out_dir,
        clip_outside=config.outside_boxes == "clip",
        validation_fraction=config.validation_fraction,
        test_fraction=config.test_fraction,
    )


def _read(config: VocData | CocoData | YoloData) -> Source:
    root = Path(config.root)
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


def _have_files(config: VocData | CocoData | YoloData) -> None:
    root = Path(config.root)
    if not isinstance(config, YoloData) and config.download:
        wanted = "VOCdevkit/VOC2007/JPEGImages" if config.download == "voc2007" else "annotations"
        if not (root / wanted).is_dir() or (root / ".downloads").is_dir():
            download(ARCHIVES[config.download], root)
    elif not root.is_dir():
        raise UserError(
            "params.yaml: data.root",
            "no such folder; nothing was changed",
            found=config.root,
            expected="the folder of the pictures and annotations",
            do="correct data.root, or put the data there",
        )
