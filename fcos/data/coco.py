"""The prepared data: COCO JSON with a sha256 for each image. This module does not import torch; reports use it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fcos.data.images import read_annotated
from fcos.data.shards import PLACES, SHARD_NAME, ShardReader
from fcos.data.split_files import (
    IMAGES,
    OBJECTS,
    Objects,
    Rows,
    Table,
    images_file,
    mapped_file,
    objects_file,
    objects_of_rows,
    objects_of_table,
    read_table,
    shards_file,
    tables_digest,
)
from fcos.errors import UserError
from fcos.files import project_root, sha256_file, sha256_json
from fcos.formats import read_record
from fcos.progress import say
from fcos.records import Manifest, Split, SplitCounts, odd_value

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
        >>> split.image_sizes[7], split.label_of[3], [a["bbox"] for a in split.annotations_of(7)]
        ((480, 640), 0, [[10, 20, 30, 40]])
    """

    images: Sequence[dict[str, Any]]
    categories: list[dict[str, Any]]
    annotations: Sequence[dict[str, Any]]
    image_dir: Path | None
    shards: ShardReader | None = None  # has the images in place of `image_dir`

    def pixels(self, image: Mapping[str, Any], factor: int = 1) -> NDArray[np.uint8]:
        """Return a decoded image, given its entry; `factor` as in `read_image`.

        Raises:
            UserError: it is missing, damaged, or of another size than its entry says.
        """
        source = self.path_of(image) if self.shards is None else self.shards.read(image)
        return read_annotated(source, image, factor)

    def annotations_of(self, image_id: int) -> list[dict[str, Any]]:
        """Return the annotations of an image of the split."""
        return [self.annotations[row] for row in self.objects.rows(self._place_of[image_id]).tolist()]

    @cached_property
    def objects(self) -> Objects:
        """The annotations as arrays."""
        return objects_of_rows(self.annotations, self.image_ids, self.label_of)

    @cached_property
    def image_ids(self) -> NDArray[np.int64]:
        """(N,): the ids of the images, in the split's order."""
        return np.array([image["id"] for image in self.images], dtype=np.int64)

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """(N, 2): height and width of the images, in the split's order."""
        return np.array([(image["height"], image["width"]) for image in self.images], dtype=np.int64).reshape(-1, 2)

    @cached_property
    def _place_of(self) -> dict[int, int]:
        return {image_id: place for place, image_id in enumerate(self.image_ids.tolist())}

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
        shared: dict[tuple[int, int], tuple[int, int]] = {}  # most images have the size of another one
        sizes = (shared.setdefault(size, size) for size in map(tuple, self.sizes.tolist()))
        return dict(zip(self.image_ids.tolist(), sizes, strict=True))

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
        return sha256_json([list(self.images), self.categories, list(self.annotations)])

    def path_of(self, image: Mapping[str, Any]) -> Path:
        """Return the path of an image's file.

        Raises:
            UserError: only the objects are known, as in a study of results without `data.images`.
        """
        if self.image_dir is None:
            raise UserError(
                "params.yaml: data.images", "there are no images", hint="set it to the folder of the images"
            )
        return self.image_dir / str(image["file_name"])


@dataclass(frozen=True, kw_only=True)
class TabledSplit(CocoSplit):
    """A split whose rows are parsed when they are asked for, and whose numbers are memory-mapped tables."""

    image_table: Table
    object_table: Table
    described: SplitCounts

    @cached_property
    def objects(self) -> Objects:
        return objects_of_table(self.object_table, self.image_table["num_objects"])

    @cached_property
    def image_ids(self) -> NDArray[np.int64]:
        return np.ascontiguousarray(self.image_table["id"])

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        return np.stack((self.image_table["height"], self.image_table["width"]), axis=1).astype(np.int64)

    @property
    def bits(self) -> int:
        return self.described.get("bits", 16)

    @property
    def digest(self) -> str:
        return self.described["digest"]


def read_split(data_dir: Path, split: str) -> CocoSplit:
    """Return `split` (train, validation or test) of prepared data; without a validation split, validation is empty.

    Raises:
        UserError: the data are not prepared, damaged, or their images are gone.
    """
    path = data_dir / f"{split}.json"
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "no such file"
        raise UserError(path, problem, expected="a JSON file", hint=PREPARE)
    manifest = read_manifest(data_dir)
    described = manifest["splits"].get(split)
    if described is None:  # the manifest lists splits with images only
        return _read_whole(path, None, None)
    image_dir = None if described["image_dir"] is None else data_dir / described["image_dir"]
    shards = _shards(path, described)
    if image_dir is not None and not image_dir.is_dir() and shards is None:
        raise UserError(
            image_dir,
            "the image folder no longer exists",
            expected=f"the folder that `{PREPARE}` found",
            hint="put it back and run `fcos source`; if the data have moved: fcos source --at FOLDER",
        )
    if "sha256" not in described:  # data without tables: of an earlier version, or of a study of results
        return _read_whole(path, image_dir, shards)
    if described["sha256"]["json"] != sha256_file(path):
        say(f"{path} is not as `{PREPARE}` wrote it: all of it is read into memory, its tables are not used")
        return _read_whole(path, image_dir, shards)
    return _tabled(path, manifest["categories"], described, image_dir, shards)


def _read_whole(path: Path, image_dir: Path | None, shards: ShardReader | None) -> CocoSplit:
    content = _read(path, ("images", "categories", "annotations"), Split)
    split = CocoSplit(content["images"], content["categories"], content["annotations"], image_dir, shards)
    try:
        if len(set(split.image_ids.tolist())) < len(split.images):
            raise ValueError("several images have one id")
        split.objects  # noqa: B018  -- computed here, so that a mistake in the file is found at once
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        found: object = error
        if isinstance(error, KeyError):
            found = f"no {'key' if isinstance(error.args[0], str) else 'category'} {error}"
        raise UserError(path, f"is not what `{PREPARE}` wrote", found=found, hint=PREPARE) from None
    return split


def _tabled(
    path: Path,
    categories: list[dict[str, Any]],
    described: SplitCounts,
    image_dir: Path | None,
    shards: ShardReader | None,
) -> TabledSplit:
    num_annotations = described["num_objects"] + described["num_ignored"]
    images = read_table(images_file(path), IMAGES, described["num_images"], hint=PREPARE)
    objects = read_table(objects_file(path), OBJECTS, num_annotations, hint=PREPARE)
    if tables_digest(path) != described["sha256"]["tables"]:
        raise UserError(f"{images_file(path)}, {objects_file(path).name}", "are damaged", hint=PREPARE)
    text = mapped_file(path)
    return TabledSplit(
        images=Rows(text, images),
        categories=categories,
        annotations=Rows(text, objects),
        image_dir=image_dir,
        shards=shards,
        image_table=images,
        object_table=objects,
        described=described,
    )


def _shards(path: Path, described: SplitCounts) -> ShardReader | None:
    if "shards" not in described:
        return None
    files, folder = described["shards"], project_root() / "data" / ".scratch" / "shards"  # beside decoded images
    places = read_table(shards_file(path), PLACES, described["num_images"], hint=PREPARE)
    if sha256_file(shards_file(path)) != files["table"]:
        raise UserError(shards_file(path), "is damaged", hint=PREPARE)
    strange = [name for name in files["files"] if not SHARD_NAME.fullmatch(name)]
    if strange or len(files["files"]) <= places["shard"].max(initial=-1):
        found = strange[0] if strange else f"{len(files['files'])} names of shards"
        raise UserError(path.with_name("manifest.json"), "is damaged", found=found, hint=PREPARE)
    return ShardReader(files["url"], files["files"], places, folder)


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
    path = data_dir / "manifest.json"
    manifest = _read(path, ("splits",), Manifest)
    with_tables = {name: of for name, of in manifest["splits"].items() if "sha256" in of or "shards" in of}
    odd = odd_value(with_tables, dict[str, SplitCounts], complete=True)
    if odd is None and with_tables and not isinstance(manifest.get("categories"), list):
        odd = "no key categories"
    if odd is not None:
        raise UserError(path, "is damaged", found=odd, hint=PREPARE)
    return manifest


def _read(path: Path, keys: tuple[str, ...], kind: Any) -> dict[str, Any]:
    """Read the JSON object at `path`; it must have `keys`, and the keys of `kind` must have their types."""
    content: dict[str, Any] = read_record(path, hint=PREPARE, kind=kind)
    if not all(key in content for key in keys):
        found = f"keys {', '.join(content) or 'none'}"
        raise UserError(path, f"is not what `{PREPARE}` wrote", found=found, expected=", ".join(keys), hint=PREPARE)
    return content
