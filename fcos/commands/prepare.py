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
        return assemble(_source(config, scratch), scratch, clip_outside=clip)


def _source(config: DataConfig, out_dir: Path) -> Source:
    if isinstance(config, ShapesData):
        return draw_shapes(out_dir, **config.model_dump(exclude={"source"}))
    root = Path(config.root)
    if isinstance(config, VocData):
        splits = {"train": config.train_split, "test": config.test_split}
        ignore = config.difficult == "ignore"
        return read_voc(root, splits=splits, classes=config.classes, ignore_difficult=ignore)
    return read_coco(
        {
            "train": (root / config.train_annotations, root / config.train_images),
            "test": (root / config.test_annotations, root / config.test_images),
        },
        classes=config.classes,
    )


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
