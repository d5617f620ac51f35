"""Read and check the source of a study's data and write it as COCO JSON with a manifest."""

from collections.abc import Callable
from pathlib import Path

from fcos.config.data import CocoData, FilesData, ShapesData, VocData, YoloData
from fcos.data.groups import Member, group_names, names_table
from fcos.data.sources.assemble import SPLITS, absolute, assemble
from fcos.data.sources.classes import chosen
from fcos.data.sources.coco import read_coco
from fcos.data.sources.description import Source
from fcos.data.sources.shapes import draw_shapes
from fcos.data.sources.voc import VocSplit, find_voc_folder, read_voc
from fcos.data.sources.yolo import YoloSplit, read_yolo
from fcos.files import in_project
from fcos.records import Manifest


def write_data(
    config: ShapesData | FilesData,
    out_dir: Path,
    *,
    name_of: Callable[[Path], str] = absolute,
    shards: str | None = None,
) -> Manifest:
    """Check the images and boxes that `config` describes, write them to `out_dir` and return the manifest.

    Args:
        name_of: returns the manifest's name for an image folder outside of `out_dir`; its images are not copied.
        shards: URL of an object store to which the images are written too; they are then read there.
    """
    if isinstance(config, ShapesData):
        drawn = draw_shapes(out_dir, **config.model_dump(exclude={"source", "validation_fraction", "cache"}))
        return assemble(drawn, out_dir, clip_outside=False, validation_fraction=config.validation_fraction)
    source = read_source(config)
    if config.groups is not None:
        _set_groups(source, config.groups, in_project(config.root))
    source.seen.counts["folders or files of data that are links out of data.root, followed"] += _num_leaving(config)
    return assemble(
        source,
        out_dir,
        clip_outside=config.outside_boxes == "clip",
        leave_out=config.damaged == "leave-out",
        validation_fraction=config.validation_fraction,
        test_fraction=config.test_fraction,
        name_of=name_of,
        shards=shards,
    )


def read_source(config: FilesData) -> Source:
    """Return the content of the annotation files; no image is opened."""
    root = in_project(config.root)
    classes = None if config.classes is None else chosen(config.classes)
    if isinstance(config, VocData):
        return read_voc(_voc_splits(config, root), classes=classes, ignore_difficult=config.difficult == "ignore")
    if isinstance(config, CocoData):
        places = _places(config, root, "annotations", "images")
        return read_coco(places, classes=classes, ignore_difficult=config.difficult == "ignore")
    splits = {
        split: YoloSplit(images, labels, root / listed if (listed := getattr(config, f"{split}_list")) else None)
        for split, (images, labels) in _places(config, root, "images", "labels").items()
    }
    if config.names is None:
        return read_yolo(splits, names=list(classes or ()), keypoints=config.keypoints)
    return read_yolo(splits, names=config.names, classes=classes, keypoints=config.keypoints)


def _set_groups(source: Source, by: str, root: Path) -> None:
    """Set the group of each image of all splits."""
    images = [image for split in source.splits.values() for image in split.images]
    members = [Member(image.original_id, image.file_name, image.record) for image in images]
    table = root / by if names_table(by) else None
    for image, name in zip(images, group_names(by, members, "params.yaml: data.groups", table), strict=True):
        image.group = name


def _num_leaving(config: FilesData) -> int:
    """Return how many of the folders and files that `config` names are outside of the root because of links."""
    root = folder = in_project(config.root)
    if isinstance(config, VocData):
        folder = find_voc_folder(root, config.train_annotations or config.annotations)
    kinds = ("annotations", "images", "labels", "list")
    keys = ["annotations", "images", "lists", *(f"{split}_{kind}" for split in SPLITS for kind in kinds)]
    places = {folder / name for key in keys if (name := getattr(config, key, None)) is not None}
    return sum(not place.resolve().is_relative_to(root.resolve()) for place in places)


def _voc_splits(config: VocData, root: Path) -> dict[str, VocSplit]:
    """Return the available splits: training always, the others if their list or folders are given."""
    folder = find_voc_folder(root, config.train_annotations or config.annotations)
    splits = {}
    for split in SPLITS:
        listed, annotations, images = (getattr(config, f"{split}_{key}") for key in ("split", "annotations", "images"))
        if split == "train" or (listed or annotations) is not None:
            list_path = folder / config.lists / f"{listed}.txt" if listed is not None else None
            own = (folder / (annotations or config.annotations), folder / (images or config.images))
            splits[split] = VocSplit(*own, list_path)
    return splits


def _places(config: CocoData | YoloData, root: Path, *what: str) -> dict[str, tuple[Path, Path]]:
    """Return the paths of the two parts of each split; either both keys are given or neither."""
    names = {split: [getattr(config, f"{split}_{part}") for part in what] for split in SPLITS}
    return {split: (root / first, root / second) for split, (first, second) in names.items() if first is not None}
