"""`data`: where the pictures come from."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from fcos.config.section import Section, Wrong


class ShapesData(Section):
    """Pictures drawn from a seed: nothing to download."""

    source: Literal["shapes"]
    num_train: PositiveInt = 256
    num_test: PositiveInt = 96
    image_size: Annotated[int, Field(ge=32, le=1024)] = 128
    max_objects: PositiveInt = 6
    seed: Annotated[int, Field(ge=0)] = 0


class _FilesData(Section):
    root: str
    classes: list[str] | None = None
    outside_boxes: Literal["error", "clip"] = "error"


class VocData(_FilesData):
    """A folder with Annotations/, JPEGImages/ and ImageSets/Main/."""

    source: Literal["voc"]
    train_split: str = "trainval"
    test_split: str = "test"
    difficult: Literal["keep", "ignore"] = "keep"
    download: Literal["voc2007"] | None = None

    @model_validator(mode="after")
    def _splits_differ(self) -> "VocData":
        if self.train_split == self.test_split:
            expected = f"another split than train_split ({self.train_split})"
            raise Wrong("test_split", "overlapping splits", found=self.test_split, expected=expected)
        return self


class CocoData(_FilesData):
    """COCO JSON files with their picture folders, all relative to `root`."""

    source: Literal["coco"]
    train_annotations: str = "annotations/instances_train2017.json"
    train_images: str = "train2017"
    test_annotations: str = "annotations/instances_val2017.json"
    test_images: str = "val2017"
    download: Literal["coco2017"] | None = None

    @model_validator(mode="after")
    def _splits_differ(self) -> "CocoData":
        if self.train_annotations == self.test_annotations:
            raise Wrong(
                "test_annotations",
                "overlapping splits",
                found=self.test_annotations,
                expected="another file than train_annotations",
            )
        return self


DataConfig = Annotated[ShapesData | VocData | CocoData, Field(discriminator="source")]
