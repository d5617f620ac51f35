"""Candidates on disk: all predictions of a network for a split in one view, before NMS."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from fcos.data.coco import CocoSplit
from fcos.detections import Candidates
from fcos.errors import UserError, names_of
from fcos.files import whole_file
from fcos.formats import header_metadata, header_of


@dataclass(frozen=True, kw_only=True)
class CandidatesFile:
    """Candidates by image id, and a header that identifies them without naming a time or machine."""

    of_image: Mapping[int, Candidates]
    header: dict[str, Any]


def save_candidates(path: Path, of_image: Mapping[int, Candidates], header: dict[str, Any]) -> None:
    """Write the candidates of a whole split, concatenated, with the end position of each image."""
    everything = Candidates.concatenate(list(of_image.values()))
    tensors: dict[str, NDArray[Any]] = {
        "image_ids": np.array(list(of_image), dtype=np.int64),
        "ends": np.cumsum([len(candidates) for candidates in of_image.values()], dtype=np.int64),
        "boxes": everything.boxes,
        "scores": everything.scores,
        "labels": everything.labels.astype(np.int32),
    }
    with whole_file(path) as scratch:
        save_file(tensors, scratch, metadata=header_metadata(header))


def read_candidates(path: Path, *, hint: str) -> CandidatesFile:
    """Return what `save_candidates` wrote; `hint` is the command to run if the file is missing or damaged."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            header = header_of(path, file.metadata(), hint=hint)
        tensors = load_file(path)
        _check_tensors(tensors)
    except FileNotFoundError:
        raise UserError(
            path, "no such file: scoring does not run the network", expected="candidates", hint=hint
        ) from None
    except (safetensors.SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(path, "is not a whole candidates file", found=error, hint=hint) from None
    everything = Candidates(tensors["boxes"], tensors["scores"], tensors["labels"].astype(np.int64))
    ends = tensors["ends"].tolist()
    starts = [0, *ends[:-1]]
    of_image = {
        image_id: everything[start:end]
        for image_id, start, end in zip(tensors["image_ids"].tolist(), starts, ends, strict=True)
    }
    return CandidatesFile(of_image=of_image, header=header)


def check_candidates(path: Path, of_image: Mapping[int, Candidates], split: CocoSplit, *, hint: str) -> None:
    """Check that candidates belong to exactly the images of `split` and have only its classes.

    Raises:
        UserError: they do not; it names the images or the label.
    """
    images = split.image_sizes.keys()
    unknown, missing = of_image.keys() - images, images - of_image.keys()
    if unknown or missing:
        parts = [f"image ids {names_of(sorted(unknown))}: {len(unknown)} too many"] if unknown else []
        parts += [f"{len(missing)} of {len(images)} missing: {names_of(sorted(missing))}"] if missing else []
        expected = f"the {len(images)} images of the split"
        raise UserError(path, "its images are not the split's", found="; ".join(parts), expected=expected, hint=hint)
    for image_id, candidates in of_image.items():
        odd = candidates.labels[(candidates.labels < 0) | (candidates.labels >= len(split.categories))]
        if len(odd):
            found = f"label {odd[0]} in image id {image_id}"
            expected = f"labels 0 to {len(split.categories) - 1}"
            raise UserError(path, "has a class that the data do not have", found=found, expected=expected, hint=hint)


def _check_tensors(tensors: Mapping[str, NDArray[Any]]) -> None:
    """Raise ValueError if the tensors are inconsistent, and KeyError if one is missing."""
    ids, ends, count = tensors["image_ids"], tensors["ends"], len(tensors["scores"])
    shapes = {"image_ids": (len(ends),), "ends": (len(ends),), "boxes": (count, 4), "scores": (count,)}
    for name, shape in {**shapes, "labels": (count,)}.items():
        if tensors[name].shape != shape:
            raise ValueError(f"{name} is of shape {tensors[name].shape} and not {shape}")
    if list(ends) != sorted(ends) or (ends[:1] < 0).any() or (ends[-1] if len(ends) else 0) != count:
        raise ValueError(f"ends does not divide {count} candidates")
    for name in ("boxes", "scores"):
        if not np.isfinite(tensors[name]).all():
            raise ValueError(f"{name} has numbers that are not finite")
    if len(np.unique(ids)) < len(ids):
        raise ValueError("image_ids names an image twice")
