"""`data`: where the images come from."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from fcos.config.section import Section, Wrong


class _Data(Section):
    # Share of the training images for the validation split, on which settings are chosen; they are not trained on.
    validation_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0
    # Where decoded images are cached; no metric depends on it.
    cache: Literal["auto", "gpu", "ram", "disk", "none"] = "auto"

    @property
    def holds_out(self) -> bool:
        """Whether there is a validation split with images."""
        return self.validation_fraction > 0


class ShapesData(_Data):
    """Images drawn from a seed; nothing is downloaded."""

    source: Literal["shapes"]
    num_train: PositiveInt = 256
    num_test: PositiveInt = 96
    image_size: Annotated[int, Field(ge=32, le=1024)] = 128
    max_objects: PositiveInt = 6
    seed: Annotated[int, Field(ge=0)] = 0


# Class names of the annotations; boxes of classes not listed are left out. `{vehicle: [car, truck]}` merges two.
Classes = list[str | dict[str, list[str]]] | dict[str, list[str]]


class _FilesData(_Data):
    root: str
    classes: Classes | None = None
    outside_boxes: Literal["error", "clip"] = "error"
    # If an image, annotation or line is unusable: stop, or leave it out and list it in manifest.json.
    damaged: Literal["error", "leave-out"] = "error"
    # How to find the group of an image, so that related images stay in one split: a number (of leading characters of
    # the file name), a mark such as _ (the name up to the last one), a key of the images in COCO JSON, or the file
    # name of a table in `root` with the columns image and group.
    groups: Annotated[str, Field(min_length=1)] | None = None
    # Share of the training images for the test split, if the data have none.
    test_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0
    # URL of an object store to which `fcos prepare` writes the images, and from which they are then read.
    shards: Annotated[str, Field(min_length=1)] | None = None


class VocData(_FilesData):
    """A folder with one XML file per image.

    A split is a list of names in `lists` (`train_split: trainval`) or, without a list (`train_split: null`), all files
    of its folders. Folders of the split (`train_annotations`, `train_images`) replace `annotations` and `images`.
    """

    source: Literal["voc"]
    annotations: str = "Annotations"
    images: str = "JPEGImages"
    lists: str = "ImageSets/Main"
    train_split: str | None = "trainval"
    train_annotations: str | None = None
    train_images: str | None = None
    validation_split: str | None = None
    validation_annotations: str | None = None
    validation_images: str | None = None
    test_split: str | None = "test"
    test_annotations: str | None = None
    test_images: str | None = None
    difficult: Literal["keep", "ignore"] = "keep"
    download: Literal["voc2007"] | None = None
    archives: str | None = None

    @property
    def holds_out(self) -> bool:
        return super().holds_out or (self.validation_split or self.validation_annotations) is not None

    @model_validator(mode="after")
    def _splits_differ(self) -> "VocData":
        _archives_of_a_download(self)
        for split in ("train", "validation", "test"):
            pair = {f"{split}_annotations": "a folder of XML files", f"{split}_images": "the folder of their images"}
            _both_or_none(self, pair)
        _one_way_to_hold_out(self, "validation_split" if self.validation_split else "validation_annotations")
        _one_way_to_test(self, "test_annotations" if self.test_annotations and not self.test_split else "test_split")
        if not (self.train_annotations or self.validation_annotations or self.test_annotations):
            _differ(self, ("train_split", "validation_split", "test_split"), "split")
        _differ(self, ("train_annotations", "validation_annotations", "test_annotations"), "folder")
        return self


class CocoData(_FilesData):
    """COCO JSON files with their image folders, all relative to `root`."""

    source: Literal["coco"]
    train_annotations: str = "annotations/instances_train2017.json"
    train_images: str = "train2017"
    validation_annotations: str | None = None
    validation_images: str | None = None
    test_annotations: str | None = "annotations/instances_val2017.json"
    test_images: str | None = "val2017"
    difficult: Literal["keep", "ignore"] = "keep"
    download: Literal["coco2017"] | None = None
    archives: str | None = None

    @property
    def holds_out(self) -> bool:
        return super().holds_out or self.validation_annotations is not None

    @model_validator(mode="after")
    def _splits_differ(self) -> "CocoData":
        _archives_of_a_download(self)
        for split in ("validation", "test"):
            _both_or_none(
                self, {f"{split}_annotations": "a COCO JSON file", f"{split}_images": "the folder of its images"}
            )
        _one_way_to_hold_out(self, "validation_annotations")
        _one_way_to_test(self, "test_annotations")
        _differ(self, ("train_annotations", "validation_annotations", "test_annotations"), "file")
        return self


class YoloData(_FilesData):
    """Image folders with their label folders (one .txt file per image), all relative to `root`.

    `names` are the names of the class numbers 0, 1, ... in the label files (default: `classes`). A split with a list
    (`train_list: train.txt`, one image per line) consists of the listed images of its folder.
    """

    source: Literal["yolo"]
    classes: Annotated[Classes, Field(min_length=1)]
    names: Annotated[list[str], Field(min_length=1)] | None = None
    keypoints: Annotated[list[PositiveInt], Field(min_length=2, max_length=2)] | None = None
    train_list: str | None = None
    validation_list: str | None = None
    test_list: str | None = None
    train_images: str = "images/train"
    train_labels: str = "labels/train"
    validation_images: str | None = None
    validation_labels: str | None = None
    test_images: str | None = "images/val"
    test_labels: str | None = "labels/val"

    @property
    def holds_out(self) -> bool:
        return super().holds_out or self.validation_images is not None

    @model_validator(mode="after")
    def _splits_differ(self) -> "YoloData":
        for split in ("validation", "test"):
            pair = {f"{split}_images": "a folder of images", f"{split}_labels": "the folder of its label files"}
            _both_or_none(self, pair)
        _one_way_to_hold_out(self, "validation_images")
        _one_way_to_test(self, "test_images")
        if not (self.train_list or self.validation_list or self.test_list):
            _differ(self, ("train_images", "validation_images", "test_images"), "folder")
        _differ(self, ("train_list", "validation_list", "test_list"), "list")
        plain = isinstance(self.classes, list) and all(isinstance(name, str) for name in self.classes)
        if self.names is None and not plain:
            raise Wrong("names", "missing key", found="nothing", expected="the names of the numbers 0, 1, ... in order")
        return self


class GroundTruthData(_Data):
    """Objects to score results against, for a study of results: there is a test split only, and nothing is trained.

    Everything is taken as `fcos compare` takes it; images are only shown.
    """

    source: Literal["ground-truth"]
    root: str
    annotations: str  # COCO JSON, or a folder in VOC or YOLO layout; relative to `root`, as `images`
    split: Literal["train", "validation", "test"] | None = None  # of such a folder
    images: str | None = None  # the folder of the images, for the gallery; None: no gallery
    groups: Annotated[str, Field(min_length=1)] | None = None  # as in data of files

    @model_validator(mode="after")
    def _holds_nothing_out(self) -> "GroundTruthData":
        if self.validation_fraction > 0:
            hint = "remove it"
            raise Wrong("validation_fraction", "has no effect", found=self.validation_fraction, expected="0", hint=hint)
        if self.cache != "auto":
            raise Wrong(
                "cache", "has no effect: nothing is trained", found=self.cache, expected="auto", hint="remove it"
            )
        return self


def _archives_of_a_download(data: VocData | CocoData) -> None:
    if data.archives is not None and data.download is None:
        raise Wrong(
            "archives",
            "has no effect without `download`",
            found=data.archives,
            expected="`download` and the folder of its archives",
            hint="add `download`, or remove `archives` and give the unpacked folder: fcos source --at FOLDER",
        )


def _both_or_none(data: _Data, pair: dict[str, str]) -> None:
    for key, other in zip(pair, reversed(pair), strict=True):
        if getattr(data, key) is None and getattr(data, other) is not None:
            raise Wrong(key, "missing key", found="nothing", expected=f"{pair[key]}, since there is `{other}`")


def _one_way_to_hold_out(data: _Data, key: str) -> None:
    if data.validation_fraction > 0 and getattr(data, key) is not None:
        raise Wrong(
            "validation_fraction",
            f"two settings define the validation split: `{key}` is set too",
            found=data.validation_fraction,
            expected=f"validation_fraction or {key}",
            hint="remove one of the two",
        )


def _one_way_to_test(data: _FilesData, key: str) -> None:
    split, fraction = getattr(data, key), data.test_fraction
    if split is not None and fraction > 0:
        raise Wrong(
            "test_fraction",
            f"two settings define the test split: `{key}` is set too",
            found=fraction,
            expected=f"test_fraction or {key}",
            hint=f"set {key}: null, or remove test_fraction",
        )
    if split is None and fraction == 0:
        raise Wrong(key, "there is no test split", found="null", expected=f"a {key}", hint="or set test_fraction: 0.2")


def _differ(data: _Data, keys: tuple[str, ...], what: str) -> None:
    """Check that no two of `keys` have the same value."""
    for number, key in enumerate(keys):
        value = getattr(data, key)
        for earlier in keys[:number]:
            if value is not None and value == getattr(data, earlier):
                raise Wrong(key, "overlapping splits", found=value, expected=f"another {what} than {earlier}")


FilesData = VocData | CocoData | YoloData
DataConfig = Annotated[ShapesData | FilesData | GroundTruthData, Field(discriminator="source")]
