"""The content of a study's JSON files, which `fcos.formats` reads and writes."""

import functools
import math
from collections.abc import Callable
from types import NoneType, UnionType
from typing import Any, NotRequired, TypedDict, get_args, get_origin, get_type_hints, is_typeddict

Numbers = dict[str, float | None]  # AP, AP50 ... as fractions; None where COCO leaves the metric undefined


class Interval(TypedDict):
    """The confidence interval of a metric; the values are None where it has none."""

    low: float | None
    high: float | None
    standard_error: float | None


NO_INTERVAL: Interval = {"low": None, "high": None, "standard_error": None}


class Provenance(TypedDict):
    """Where and when a command ran, its total time and, for a training, the time of its steps."""

    commit: str | None
    clean_tree: bool | None
    versions: dict[str, str]
    machine: str
    started: str
    seconds: float
    training_seconds: NotRequired[float]
    device: NotRequired[str]
    devices: NotRequired[int]  # devices that shared the work
    dtype: NotRequired[str]
    threads: NotRequired[int]
    peak_memory_mb: NotRequired[int]
    batch_size: NotRequired[int]
    images: NotRequired[int]  # shown in training, repeats included
    images_per_s: NotRequired[float]  # median over the steps
    mean_pixels: NotRequired[float]  # of an image in its batch, padding included


class ValidationSummary(TypedDict):
    """The validations of a training, as in train.json; epochs are counted from 1 and include the warm-up."""

    every: int
    keep: str
    patience: int | None
    epochs: int  # number of epochs trained
    epoch: int  # the epoch whose weights were kept
    AP: float | None  # of the kept weights on the validation images
    num_images: int
    best_AP: float | None  # highest AP of all validations
    best_epoch: int
    training_AP: float | None  # of the kept weights on a sample of the training images
    num_training_images: int
    seconds: float  # total time of all validations


class TrainSummary(TypedDict):
    """The content of train.json."""

    training_key: str
    weights_sha256: str
    params: dict[str, Any]  # Run.identity()
    role: str | None
    imported_from: str | None
    start_sha256: NotRequired[str]  # digest of the file of `model.weights`
    validation: NotRequired[ValidationSummary]
    provenance: Provenance


class ViewTiming(TypedDict):
    """An entry of timing.json: the time that the predictions of one view took."""

    num_images: int
    seconds: float
    forward_seconds: float
    ms_per_image: float


class Timings(TypedDict):
    """The content of timing.json and timing_tta.json."""

    views: dict[str, ViewTiming]
    provenance: Provenance


class ClassNumbers(TypedDict):
    """The metrics of a class in evaluation.json."""

    category_id: int
    name: str
    num_objects: int
    AP: float | None
    AP50: float | None
    AP75: float | None
    AR100: float | None
    intervals: dict[str, Interval]


class Share(Interval):
    """A fraction with its interval."""

    value: float | None


class OperatingPoint(TypedDict):
    """Precision, recall and F1 of all classes together with a score threshold (fcos.scoring.operating)."""

    score_threshold: float
    chosen_on: str  # the split on which it has the highest F1: validation, or test if there is no other
    best_threshold: list[float] | None  # both ends of the interval of the best threshold, if it was chosen on `test`
    iou: float
    precision: Share
    recall: Share
    F1: Share


class Evaluation(TypedDict):
    """The content of evaluation.json."""

    metrics: Numbers
    intervals: dict[str, Interval]
    per_class: list[ClassNumbers]
    num_images: int
    num_candidates: int
    num_detections: int
    analysis: dict[str, Any]  # fcos.scoring.analysis.analyse
    statistics: dict[str, Any]
    test: dict[str, Any]
    identity: dict[str, Any]
    provenance: Provenance
    operating_point: NotRequired[OperatingPoint]
    findings: NotRequired[list[str]]  # sentences about results that were not made here


class _Chosen(TypedDict):
    """The keys that tta.json and nms_sweep.json share.

    `metrics` are the test metrics of the setting that was chosen on `split`.
    """

    split: str
    metrics: Numbers
    test: dict[str, Any]
    identity: dict[str, Any]
    validation_digest: NotRequired[str]
    provenance: Provenance


class TtaStep(TypedDict):
    """The result of test-time augmentation with the first `num_views` views."""

    num_views: int
    views: list[str]
    seconds: float
    metrics: Numbers


class Tta(_Chosen):
    """The content of tta.json."""

    steps: list[TtaStep]
    chosen: int


class NmsStep(TypedDict):
    """The result at one IoU threshold of NMS."""

    nms_iou_threshold: float
    metrics: Numbers


class NmsSweep(_Chosen):
    """The content of nms_sweep.json."""

    steps: list[NmsStep]
    chosen: float


class ShardFiles(TypedDict):
    """Where the images of a split are in an object store (fcos.data.shards)."""

    url: str
    files: list[str]
    table: str  # sha256 of the table of places


class FileDigests(TypedDict):
    """The sha256 of the files of a split."""

    json: str
    tables: str  # of both (fcos.data.split_files)


class OfFiles(TypedDict, total=False):
    """What manifest.json has of a split for which `fcos prepare` wrote tables."""

    sha256: FileDigests
    bits: int  # that its 16-bit images use, if it has any that use fewer
    shards: ShardFiles  # if its images were written to an object store


class SplitCounts(OfFiles):
    """The counts of a split in manifest.json."""

    image_dir: str | None  # None: only the objects are known
    num_images: int
    num_objects: int
    num_ignored: int
    num_empty_images: int
    per_class: dict[str, int]
    per_size: dict[str, int]
    digest: str
    images_digest: NotRequired[str]  # of files that are only shown, in a study of results


class Manifest(TypedDict):
    """The content of manifest.json in prepared data."""

    format: int
    categories: list[dict[str, Any]]
    splits: dict[str, SplitCounts]
    dropped: list[dict[str, Any]]
    clipped: list[dict[str, Any]]
    near_duplicates: list[dict[str, Any]]
    near_duplicates_cut: int
    odd: list[dict[str, Any]]
    damaged: list[dict[str, str]]
    counts: dict[str, int]
    assumed: list[str]
    near_copies: dict[str, Any] | None  # fcos.data.sources.together.near_copies
    notes: list[str]


class SplitImage(TypedDict):
    """An image in {train,validation,test}.json."""

    id: int
    file_name: str
    width: int | None  # None: in a study of results, which needs no size
    height: int | None


class SplitCategory(TypedDict):
    """A category of a split's JSON file."""

    id: int
    name: str


class SplitAnnotation(TypedDict):
    """The keys of an annotation that every reader needs."""

    image_id: int
    category_id: int
    bbox: list[float]


class Detection(TypedDict):
    """An entry of detections.json."""

    image_id: int
    category_id: int
    bbox: list[float]
    score: float


class Split(TypedDict):
    """The keys of {train,validation,test}.json that every reader needs."""

    images: list[SplitImage]
    categories: list[SplitCategory]
    annotations: list[SplitAnnotation]


def odd_value(value: Any, kind: Any, *, complete: bool = False) -> str | None:
    """Describe the first part of a JSON value that is not of the type `kind`; return None if all parts are.

    Args:
        kind: a TypedDict, dict[str, X], list[X], a union, a plain type or Any.
        complete: whether a TypedDict must have its required keys; files of earlier versions lack some.
    """
    odd = _check_of(kind, complete)(value)
    if odd is None:
        return None
    place, what = odd[0].removeprefix(".") or "content", odd[1]
    return f"no key {place}" if what is None else f"{place} is {what}"


# The place of an odd part, as `.key[0].key`, and what it is; None stands for a missing key.
_Odd = tuple[str, str | None]
_Check = Callable[[Any], _Odd | None]


@functools.cache
def _check_of(kind: Any, complete: bool) -> _Check:
    """Return the check of a type, made once: a split of COCO has a million values."""
    if kind is Any:
        return _fine
    options = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    of_type: dict[type, _Check] = {}
    for option in options:
        for plain, check in _checks_of_option(option, complete).items():
            of_type.setdefault(plain, check)

    def check_value(value: Any) -> _Odd | None:
        check = of_type.get(type(value))
        return check(value) if check else ("", "null" if value is None else f"a {type(value).__name__}")

    return check_value


def _checks_of_option(kind: Any, complete: bool) -> dict[type, _Check]:
    """Return the check of the parts by each type that JSON has for `kind`."""
    if kind is float:
        return {int: _fine, float: _is_finite}
    if is_typeddict(kind):
        checks = {key: _check_of(of, complete) for key, of in get_type_hints(kind).items()}
        return {dict: _record_check(checks, kind.__required_keys__ if complete else frozenset())}
    plain = NoneType if kind is None else get_origin(kind) or kind
    if not get_args(kind):
        return {plain: _fine}
    inner = _check_of(get_args(kind)[-1], complete)
    return {plain: _list_check(inner) if plain is list else _dict_check(inner)}


def _fine(_: Any) -> None:
    return None


def _is_finite(value: float) -> _Odd | None:
    return None if math.isfinite(value) else ("", "no finite number")


def _list_check(check: _Check) -> _Check:
    def check_list(value: list[Any]) -> _Odd | None:
        for place, inner in enumerate(value):
            if odd := check(inner):
                return f"[{place}]{odd[0]}", odd[1]
        return None

    return check_list


def _dict_check(check: _Check) -> _Check:
    def check_dict(value: dict[str, Any]) -> _Odd | None:
        for key, inner in value.items():
            if odd := check(inner):
                return f".{key}{odd[0]}", odd[1]
        return None

    return check_dict


def _record_check(checks: dict[str, _Check], required: frozenset[str]) -> _Check:
    def check_record(value: dict[str, Any]) -> _Odd | None:
        if lacking := required - value.keys():
            return f".{min(lacking)}", None
        for key, inner in value.items():
            check = checks.get(key)
            if check and (odd := check(inner)):
                return f".{key}{odd[0]}", odd[1]
        return None

    return check_record
