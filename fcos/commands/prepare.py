"""`fcos prepare`: the data of the study as COCO JSON with a manifest."""

from pathlib import Path
from typing import Any

from fcos.commands.layout import Layout
from fcos.config.data import CocoData, DataConfig, ShapesData, VocData
from fcos.config.section import parse_section, read_params
from fcos.config.study import Name
from fcos.data.sources.assemble import assemble
from fcos.data.sources.coco import read_coco
from fcos.data.sources.description import Source
from fcos.data.sources.download import ARCHIVES, download
from fcos.data.sources.shapes import draw_shapes
from fcos.data.sources.voc import read_voc
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
        clip = not isinstance(config, ShapesData) and config.outside_boxes == "clip"
        source = _source(config, scratch)
        return assemble(source, scratch, clip_outside=clip, validation_fraction=config.validation_fraction)


def _source(config: DataConfig, out_dir: Path) -> Source:
    if isinstance(config, ShapesData):
        return draw_shapes(out_dir, **config.model_dump(exclude={"source", "validation_fraction", "cache"}))
    root = Path(config.root)
    if isinstance(config, VocData):
        lists = {"train": config.train_split, "validation": config.validation_split, "test": config.test_split}
        named = {split: name for split, name in lists.items() if name is not None}
        return read_voc(root, splits=named, classes=config.classes, ignore_difficult=config.difficult == "ignore")
    files = {
        "train": (config.train_annotations, config.train_images),
        "validation": (config.validation_annotations, config.validation_images),
        "test": (config.test_annotations, config.test_images),
    }
    given = {split: (root / a, root / b) for split, (a, b) in files.items() if a is not None and b is not None}
    return read_coco(given, classes=config.classes)


def _have_files(config: VocData | CocoData) -> None:
    root = Path(config.root)
    if config.download:
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
