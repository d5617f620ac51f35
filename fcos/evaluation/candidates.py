"""Candidates on disk: everything a network said of a split in one view, before NMS."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from fcos.detections import Candidates
from fcos.errors import UserError
from fcos.files import whole_file
from fcos.formats import header_metadata, header_of


@dataclass(frozen=True, kw_only=True)
class CandidatesFile:
    """Candidates by image id, and the header that says what they are: no time, no machine."""

    of_image: Mapping[int, Candidates]
    header: dict[str, Any]


def save_candidates(path: Path, of_image: Mapping[int, Candidates], header: dict[str, Any]) -> None:
    """Write the candidates of a whole split, one after the other, with where each picture's begin."""
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
    """Read what `save_candidates` wrote; `hint` is what to type when it is not there."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            header = header_of(path, file.metadata(), hint=hint)
        tensors = load_file(path)
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
