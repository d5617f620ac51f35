"""The content of a study's JSON files, which `fcos.formats` reads and writes."""

import math
from collections.abc import Iterator
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
    dtype: NotRequired[str]
    threads: NotRequired[int]
    peak_memory_mb: NotRequired[int]
    batch_size: NotRequired[int]


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
    num_views: int
    views: list[str]
    seconds: float
    metrics: Numbers


class Tta(_Chosen):
    """The content of tta.json."""

    steps: list[TtaStep]
    chosen: int


class NmsStep(TypedDict):
    nms_iou_threshold: float
    metrics: Numbers


class NmsSweep(_Chosen):
    """The content of nms_sweep.json."""

    steps: list[NmsStep]
    chosen: float


class SplitCounts(TypedDict):
    image_dir: str
    num_images: int
    num_objects: int
    num_ignored: int
    num_empty_images: int
    per_class: dict[str, int]
    per_size: dict[str, int]
    digest: str


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
    width: int
    height: int


class SplitCategory(TypedDict):
    id: int
    name: str


class SplitAnnotation(TypedDict):
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


def odd_value(value: Any, kind: Any, *, complete: bool = False, where: str = "") -> str | None:
    """Describe the first part of `value` that is not of the type `kind`; return None if all parts are.

    Args:
        kind: a TypedDict, dict[str, X], list[X], a union, a plain type or Any.
        complete: whether all keys of a TypedDict are required; files of earlier versions lack some.
        where: place of `value` in its file, as a dotted key.
    """
    if kind is Any:
        return None
    options = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    option = next((option for option in options if isinstance(value, _plain(option))), None)
    if option is None or (isinstance(value, bool) and option is not bool):
        return f"{where or 'content'} is {_in_words(value)}"
    if isinstance(value, float) and not math.isfinite(value):
        return f"{where} is no finite number"
    found = (odd_value(inner, of, complete=complete, where=at) for inner, of, at in _parts(value, option, where))
    lacking = sorted(get_type_hints(option).keys() - value.keys()) if complete and is_typeddict(option) else []
    missing = f"no key {where}.{lacking[0]}".replace(" .", " ") if lacking else None
    return missing or next(filter(None, found), None)


def _plain(kind: Any) -> type | tuple[type, ...]:
    if kind is float:
        return (int, float)
    return dict if is_typeddict(kind) else NoneType if kind is None else get_origin(kind) or kind


def _parts(value: Any, kind: Any, where: str) -> Iterator[tuple[Any, Any, str]]:
    """Yield the value, type and place of each part of an object or a list."""
    dot = f"{where}." if where else ""
    if is_typeddict(kind):
        hints = get_type_hints(kind)
        yield from ((inner, hints[key], f"{dot}{key}") for key, inner in value.items() if key in hints)
    elif isinstance(value, dict) and get_args(kind):
        yield from ((inner, get_args(kind)[1], f"{dot}{key}") for key, inner in value.items())
    elif isinstance(value, list) and get_args(kind):
        yield from ((inner, get_args(kind)[0], f"{where}[{place}]") for place, inner in enumerate(value))


def _in_words(value: Any) -> str:
    return "null" if value is None else f"a {type(value).__name__}"
