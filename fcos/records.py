"""What stands in the JSON files of a study, which `fcos.formats` reads and writes."""

from typing import Any, NotRequired, TypedDict

Numbers = dict[str, float | None]  # AP, AP50 ... as fractions; None where COCO defines none


class Interval(TypedDict):
    """Of a number; None where it has none."""

    low: float | None
    high: float | None
    standard_error: float | None


NO_INTERVAL: Interval = {"low": None, "high": None, "standard_error": None}


class Provenance(TypedDict):
    """Where and when a command ran; how long in all, and for a training how long its steps took."""

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
    """What train.json says of the validations of a training; epochs are counted from 1, the warm-up's among them."""

    every: int
    keep: str
    patience: int | None
    epochs: int  # that were trained
    epoch: int  # after which the weights are those that were kept
    AP: float | None  # of these on the validation images
    num_images: int
    best_AP: float | None  # the highest of all validations
    best_epoch: int
    training_AP: float | None  # of the same weights on a sample of the training images
    num_training_images: int
    seconds: float  # that all of it took


class TrainSummary(TypedDict):
    """train.json."""

    training_key: str
    weights_sha256: str
    params: dict[str, Any]  # Run.identity()
    role: str | None
    imported_from: str | None
    start_sha256: NotRequired[str]  # of the file of `model.weights`
    validation: NotRequired[ValidationSummary]
    provenance: Provenance


class ViewTiming(TypedDict):
    num_images: int
    seconds: float
    forward_seconds: float
    ms_per_image: float


class Timings(TypedDict):
    """timing.json and timing_tta.json."""

    views: dict[str, ViewTiming]
    provenance: Provenance


class ClassNumbers(TypedDict):
    """A class in evaluation.json."""

    category_id: int
    name: str
    num_objects: int
    AP: float | None
    AP50: float | None
    AP75: float | None
    AR100: float | None
    intervals: dict[str, Interval]


class Evaluation(TypedDict):
    """evaluation.json."""

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
    """What tta.json and nms_sweep.json share; `metrics` are those on the test split of what was chosen on `split`."""

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
    """tta.json."""

    steps: list[TtaStep]
    chosen: int


class NmsStep(TypedDict):
    nms_iou_threshold: float
    metrics: Numbers


class NmsSweep(_Chosen):
    """nms_sweep.json."""

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
    """manifest.json of prepared data."""

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
