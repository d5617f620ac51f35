"""Inputs that `fcos score` and `fcos compare` share: options, ground truth and results."""

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fcos.comparing.groups import Groups, find_groups, scenes_as_groups
from fcos.errors import UserError
from fcos.files import sha256_file, sha256_json
from fcos.scoring import diagnosis
from fcos.scoring.bootstrap import draw_weights
from fcos.scoring.findings import Finding
from fcos.scoring.matching import Ints, Matches, match_table
from fcos.scoring.protocol import Protocol, areas_between, thresholds_between, thresholds_of
from fcos.scoring.results import Results, read_results
from fcos.scoring.truth import Truth, read_truth, truth_of


@dataclass(frozen=True, kw_only=True)
class Choices:
    """Options of reading and scoring; the defaults are COCO's."""

    max_detections: int = 100
    areas: str | None = None  # "32,96"
    iou: str | None = None  # "0.5:0.95:0.05" or "0.5,0.75"
    area_from_box: bool = False
    ignore_unknown_images: bool = False
    ignore_unknown_classes: bool = False
    split: str | None = None  # split of a ground-truth folder
    groups: str | None = None  # how images are grouped (`--groups`); None: by the scenes that are found

    @property
    def protocol(self) -> Protocol:
        """Return the protocol; raises UserError if the text of an option is invalid."""
        chosen: dict[str, Any] = {"max_detections": self.max_detections}
        if self.areas is not None:
            chosen["area_ranges"] = _areas(self.areas)
        if self.iou is not None:
            chosen["iou_thresholds"] = _thresholds(self.iou)
        return Protocol(**chosen)


@dataclass(frozen=True, kw_only=True)
class TruthInput:
    """Ground truth with its origin and findings."""

    truth: Truth
    described: dict[str, str]  # {"file", "sha256"}
    findings: list[Finding]
    groups: Groups | None
    images: Path | None = None  # the folder of the images, if the ground truth is a folder

    @property
    def group_of_image(self) -> Ints | None:
        """Return the group number of each image (I,), or None without groups."""
        return None if self.groups is None else self.groups.of_image

    def draw(self, replicates: int, seed: int) -> Ints:
        """Return (B, I) weights of bootstrap samples of the images, or of their groups."""
        return draw_weights(self.truth.num_images, replicates=replicates, seed=seed, groups=self.group_of_image)

    def statistics(self, *, confidence: float, replicates: int, seed: int) -> dict[str, Any]:
        """Return the settings of the intervals for JSON."""
        said = {"confidence": confidence, "replicates": replicates, "seed": seed}
        return said if self.groups is None else {**said, "groups": self.groups.json()}


def open_truth(path: Path, choices: Choices) -> TruthInput:
    """Return the ground truth in COCO JSON, .gz or not, or in a folder that `fcos study new` reads."""
    protocol = choices.protocol
    if not path.is_dir():
        if choices.split is not None:
            raise UserError(f"--split {choices.split}", "needs a folder", found=f"--gt {path}", hint="leave it out")
        truth = read_truth(path, protocol, area_from_box=choices.area_from_box)
        return _opened(truth, describe(path), [], choices)
    from fcos.study.truth_folder import find_truth  # imports readers that a COCO file does not need

    found = find_truth(path, choices.split)
    content = found.content
    said = [Finding("split", 1, None, found.sentence)]
    said += [Finding("corrected_boxes", len(found.corrected), None, text) for text in found.corrected]
    if isinstance(content, Path):
        truth = read_truth(content, protocol, area_from_box=choices.area_from_box)
        return _opened(truth, describe(content), said, choices, found.images)
    truth = truth_of(content, str(path), protocol, area_from_box=choices.area_from_box, names_first=True)
    return _opened(truth, {"file": str(path), "sha256": sha256_json(content)}, said, choices, found.images)


def _opened(
    truth: Truth, described: dict[str, str], said: list[Finding], choices: Choices, images: Path | None = None
) -> TruthInput:
    odd = diagnosis.of_truth(truth, area_from_box=choices.area_from_box)
    groups = scenes_as_groups(truth) if choices.groups is None else find_groups(truth, choices.groups)
    few = [] if groups is None else groups.findings()
    return TruthInput(truth=truth, described=described, findings=[*said, *odd, *few], groups=groups, images=images)


def check_out(out: Path) -> None:
    """Raise UserError if the output folder is a file, before any work."""
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}", "is a file", expected="a folder, which may be new")


def read_chosen(path: Path, truth: Truth, choices: Choices) -> Results:
    """Read results; unknown images and classes are treated as the options say."""
    return read_results(
        path,
        truth,
        ignore_unknown_images=choices.ignore_unknown_images,
        ignore_unknown_classes=choices.ignore_unknown_classes,
    )


def match_results(path: Path, truth: Truth, choices: Choices) -> tuple[Matches, int, list[Finding]]:
    """Read results and match them; return the matches, the number of detections, and the findings."""
    results = read_chosen(path, truth, choices)
    matches = match_table(results.table, truth.objects, choices.protocol)
    odd = diagnosis.of_results(results.table, matches, truth)
    return matches, len(results.table), [*results.findings, *odd]


def describe(path: Path) -> dict[str, str]:
    """Return the name and the sha256 of a file, for the JSON output."""
    return {"file": str(path), "sha256": digest(path)}


def digest(path: Path) -> str:
    """Return the sha256 of a file, or of the names and digests of all files in a folder."""
    if not path.is_dir():
        return sha256_file(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    lines = [f"{sha256_file(file)}  {file.relative_to(path).as_posix()}" for file in files]
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()


def protocol_json(protocol: Protocol) -> dict[str, Any]:
    """Return the protocol for JSON."""
    return {
        "iou_thresholds": [round(iou, 10) for iou in protocol.iou_thresholds.tolist()],
        "areas": {name: list(limits) for name, limits in protocol.area_ranges.items()},
        "max_detections": protocol.max_detections,
    }


def _areas(text: str) -> dict[str, tuple[float, float]]:
    sides = _numbers(text, ",")
    if len(sides) != 2 or not 0 < sides[0] < sides[1]:
        expected = "two sides in pixels, the smaller first: 32,96 is COCO's small up to 32 x 32, large from 96 x 96"
        raise UserError(f"--areas {text}", "must be two sizes", expected=expected)
    return areas_between(*sides)


def _thresholds(text: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    expected = "thresholds above 0 and up to 1: 0.5, or 0.5,0.75, or LOW:HIGH:STEP as in 0.5:0.95:0.05"
    wrong = UserError(f"--iou {text}", "must be IoU thresholds", expected=expected)
    parts = _numbers(text, ":" if ":" in text else ",")
    if ":" in text:
        if len(parts) != 3 or parts[2] <= 0 or parts[1] < parts[0] or (parts[1] - parts[0]) / parts[2] > 1000:
            raise wrong
        steps = (parts[1] - parts[0]) / parts[2]
        if abs(steps - round(steps)) > 1e-6:
            raise wrong
        found = thresholds_between(*parts)
    else:
        found = thresholds_of(parts)
    if not len(found) or found[0] <= 0 or found[-1] > 1:
        raise wrong
    return found


def _numbers(text: str, separator: str) -> list[float]:
    try:
        values = [float(part) for part in text.split(separator)]
    except ValueError:
        return []
    return values if all(map(math.isfinite, values)) else []
