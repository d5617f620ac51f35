"""The prepared data: COCO JSON with a sha256 for each image. This module does not import torch; reports use it."""

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from fcos.errors import UserError
from fcos.files import sha256_json
from fcos.formats import read_record
from fcos.records import Manifest, Split

PREPARE = "fcos prepare"


@dataclass(frozen=True)
class CocoSplit:
    """One split: `images`, `categories` and `annotations` as in COCO JSON, and the folder of the images, if at hand.

    Example:
        >>> split = CocoSplit(
        ...     images=[{"id": 7, "file_name": "a.jpg", "width": 640, "height": 480}],
        ...     categories=[{"id": 3, "name": "dog"}],
        ...     annotations=[{"id": 1, "image_id": 7, "category_id": 3, "bbox": [10, 20, 30, 40], "iscrowd": 0}],
        ...     image_dir=Path("images"),
        ... )
        >>> split.image_sizes[7], split.label_of[3], [a["bbox"] for a in split.annotations_of[7]]
        ((480, 640), 0, [[10, 20, 30, 40]])
    """

    images: list[dict[str, Any]]
    categories: list[dict[str, Any]]
    annotations: list[dict[str, Any]]
    image_dir: Path | None

    @cached_property
    def annotations_of(self) -> dict[int, list[dict[str, Any]]]:
        """Annotations by image id; images without objects have no key."""
        grouped: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for annotation in self.annotations:
            grouped[annotation["image_id"]].append(annotation)
        return grouped

    @cached_property
    def label_of(self) -> dict[int, int]:
        """Label 0..K-1 by category id."""
        return {category["id"]: label for label, category in enumerate(self.categories)}

    @cached_property
    def category_ids(self) -> list[int]:
        """The category id of each label 0..K-1."""
        return [category["id"] for category in self.categories]

    @cached_property
    def image_sizes(self) -> dict[int, tuple[int, int]]:
        """(height, width) by image id, in the split's order."""
        return {image["id"]: (image["height"], image["width"]) for image in self.images}

    @cached_property
    def groups(self) -> list[str] | None:
        """The group of each image, or None unless `data.groups` is set."""
        named = [image["group"] for image in self.images if "group" in image]
        return named if named and len(named) == len(self.images) else None

    @cached_property
    def bits(self) -> int:
        """Number of bits that 16-bit images use; 16 if there are none."""
        return min((image["bits"] for image in self.images if "bits" in image), default=16)

    @cached_property
    def digest(self) -> str:
        """sha256 of images, categories and boxes; it does not depend on the folder."""
        return sha256_json([self.images, self.categories, self.annotations])

    def path_of(self, image: dict[str, Any]) -> Path:
        """Return the path of an image's file.

        Raises:
            UserError: only the objects are known, as in a study of results without `data.images`.
        """
        if self.image_dir is None:
            raise UserError(
                "params.yaml: data.images", "there are no images", hint="set it to the folder of the images"
            )
        return self.image_dir / str(image["file_name"])


def read_split(data_dir: Path, split: str) -> CocoSplit:
    """Return `split` (train, validation or test) of prepared data; without a validation split, validation is empty."""
    content = _read(data_dir / f"{split}.json", ("images", "categories", "annotations"), Split)
    manifest = read_manifest(data_dir)
    described = manifest["splits"].get(split, {"image_dir": ""})  # the manifest lists splits with images only
    image_dir = None if described["image_dir"] is None else data_dir / described["image_dir"]
    if image_dir is not None and not image_dir.is_dir():
        raise UserError(
            image_dir,
            "the image folder no longer exists",
            expected=f"the folder that `{PREPARE}` found",
            hint="put it back and run `fcos source`; if the data have moved: fcos source --at FOLDER",
        )
    return CocoSplit(content["images"], content["categories"], content["annotations"], image_dir)


def read_validation(data_dir: Path, purpose: str, setting: str) -> CocoSplit:
    """Return the validation split, which `setting` of params.yaml needs, for example to choose on.

    Raises:
        UserError: it has no images.
    """
    held_out = read_split(data_dir, "validation")
    if not held_out.images:
        raise UserError(
            data_dir / "validation.json",
            f"there are no validation images to {purpose} on",
            found="0 images",
            expected=f"some, since params.yaml has {setting}",
            hint=f"set data.validation_fraction: 0.1 and run `{PREPARE}`",
        )
    return held_out


def read_manifest(data_dir: Path) -> Any:
    """Return the manifest that `fcos prepare` wrote."""
    return _read(data_dir / "manifest.json", ("splits",), Manifest)


def _read(path: Path, keys: tuple[str, ...], kind: Any) -> dict[str, Any]:
    """Read the JSON object at `path`; it must have `keys`, and the keys of `kind` must have their types."""
    content: dict[str, Any] = read_record(path, hint=PREPARE, kind=kind)
    if not all(key in content for key in keys):
        found = f"keys {', '.join(content) or 'none'}"
        raise UserError(path, f"is not what `{PREPARE}` wrote", found=found, expected=", ".join(keys), hint=PREPARE)
    return content
