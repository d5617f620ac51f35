"""Score and compare the results of any detector from Python, and find objects with trained weights.

`__all__` lists what is public: it changes only with a note in CHANGELOG.md. Everything else may change at any time.

The numbers are those of `fcos score` and `fcos compare`: objects in memory are written to a temporary file and read
like a file of the user, so that they are checked in the same way.
"""

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from fcos.commands.compare import compare_rows, difference_lines
from fcos.commands.score import score as score_files
from fcos.commands.score import score_html, score_text
from fcos.comparing.inputs import Choices
from fcos.comparing.rows import Row
from fcos.errors import UserError
from fcos.files import write_text
from fcos.progress import silence
from fcos.reporting.comparison import comparison_html, comparison_text

if TYPE_CHECKING:
    import pandas as pd

    from fcos.inference.detector import Detector as Network

__all__ = ["Choices", "ComparisonResult", "Detector", "ScoreResult", "UserError", "compare", "load", "score"]

GroundTruth = str | os.PathLike[str] | Mapping[str, Any]
Detections = str | os.PathLike[str] | Sequence[Mapping[str, Any]] | Mapping[str, Any]
COLUMNS = ("image_id", "category_id", "bbox", "score")


@dataclass(frozen=True)
class _Result:
    content: dict[str, Any]

    def to_json(self, path: str | os.PathLike[str] | None = None) -> str:
        """Return `content` as JSON, and write it to `path` if one is given."""
        text = json.dumps(self.content, indent=2)
        if path is not None:
            write_text(Path(path), text + "\n")
        return text


class ScoreResult(_Result):
    """What `score` found; `content` is the JSON of `fcos score --out`. Notebooks show it as tables."""

    def __getitem__(self, metric: str) -> float | None:
        """Return a metric as a fraction, such as `AP`, `AP50` or `AR100`; None if it is undefined."""
        value: float | None = self.content[metric]
        return value

    @property
    def intervals(self) -> dict[str, dict[str, float | None]]:
        """`low`, `high` and `standard_error` of each metric; None where there is no interval."""
        found: dict[str, dict[str, float | None]] = self.content["intervals"]
        return found

    @property
    def notes(self) -> list[str]:
        """What is odd about the ground truth and the detections, in sentences; read them before the numbers."""
        return [found["text"] for found in self.content["diagnosis"]]

    def to_frame(self, *, per_class: bool = False) -> "pd.DataFrame":
        """Return a table (needs pandas): a row for each metric, or for each class."""
        import pandas as pd

        if per_class:
            flat = [{name: of for name, of in row.items() if name != "intervals"} for row in self.content["per_class"]]
            return pd.DataFrame(flat).set_index("name")
        rows = [{"metric": name, "value": self[name], **interval} for name, interval in self.intervals.items()]
        return pd.DataFrame(rows).set_index("metric")

    def __str__(self) -> str:
        return score_text(self.content)

    def _repr_html_(self) -> str:
        return score_html(self.content)


class ComparisonResult(_Result):
    """What `compare` found; `content` is that of comparison.json. Notebooks show it as tables and sentences."""

    @property
    def sentences(self) -> list[str]:
        """One sentence for each difference, which says no more than its interval shows."""
        return [pair["sentence"] for pair in self.content["differences"]]

    def to_frame(self) -> "pd.DataFrame":
        """Return a table (needs pandas): for each pair and metric the difference as a fraction, with its interval."""
        import pandas as pd

        rows = difference_lines(self.content)
        return pd.DataFrame(rows).set_index(["first", "second", "metric"])

    def __str__(self) -> str:
        return comparison_text(self.content)

    def _repr_html_(self) -> str:
        return comparison_html(self.content)


def score(
    gt: GroundTruth,
    detections: Detections,
    *,
    replicates: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    choices: Choices | None = None,
    progress: bool = False,
) -> ScoreResult:
    """Return the COCO metrics of a detector's results, each with its interval.

    Args:
        gt: a COCO JSON file, a folder that `fcos study new` reads, or the content of a COCO file.
        detections: a results file or folder in any format of `fcos score`; a list of dicts with `image_id`,
            `category_id`, `bbox` (x, y, width, height in pixels) and `score`; or a mapping of these four names to
            arrays (D,), (D,), (D, 4) and (D,), such as a DataFrame.
        replicates: number of bootstrap samples of the images; 0 for no intervals.
        confidence: of the intervals.
        seed: of the bootstrap.
        choices: options of reading and scoring, such as `Choices(max_detections=300)`.
        progress: whether to show on standard error how far it is.

    Raises:
        UserError: something is wrong with the input; the message says what, where, and what is expected.

    Example:
        >>> gt = {
        ...     "images": [{"id": 1, "width": 200, "height": 100}],
        ...     "categories": [{"id": 1, "name": "dog"}],
        ...     "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 100, 50], "area": 5000}],
        ... }
        >>> found = [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 60, 50], "score": 0.9}]
        >>> result = score(gt, found, replicates=0)
        >>> [round(result[name], 4) for name in ("AP", "AP50", "AP75")]  # IoU 0.6: 3 of 10 thresholds
        [0.3, 1.0, 0.0]
        >>> columns = {"image_id": [1], "category_id": [1], "bbox": np.array([[0, 0, 60, 50]]), "score": [0.9]}
        >>> score(gt, columns, replicates=0)["AP"] == result["AP"]
        True
    """
    with _shown(progress), _as_files([("gt", gt), ("detections", detections)]) as ((truth, results), renamed):
        content = score_files(
            truth,
            results,
            out=None,
            replicates=replicates,
            confidence=confidence,
            seed=seed,
            choices=choices,
        )
    return ScoreResult(renamed(content))


def compare(
    gt: GroundTruth,
    detections: Mapping[str, Detections | list[Detections]],
    *,
    replicates: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    baseline: str | None = None,
    choices: Choices | None = None,
    at_score: Sequence[str] = (),
    slices: str | None = None,
    progress: bool = False,
) -> ComparisonResult:
    """Return which detectors are better, by how much, and whether the differences are more than chance.

    Args:
        gt: as for `score`.
        detections: by the name of the detector, results as for `score`; or a list of several such results, one for
            each training (seed) of the same detector.
        replicates: number of bootstrap samples of the images, the same for all detectors; 0 for no intervals.
        confidence: of the intervals.
        seed: of the bootstrap.
        baseline: name of the detector that all others are compared with; None compares all pairs.
        choices, progress: as for `score`.
        at_score, slices: as `--at-score` and `--slices` of `fcos compare`: precision, recall and F1 with a score
            threshold, and AP of parts of the images.

    Raises:
        UserError: something is wrong with the input; the message says what, where, and what is expected.

    Example:
        >>> gt = {
        ...     "images": [{"id": i, "width": 200, "height": 100} for i in (1, 2)],
        ...     "categories": [{"id": 1, "name": "dog"}],
        ...     "annotations": [
        ...         {"id": i, "image_id": i, "category_id": 1, "bbox": [0, 0, 100, 50], "area": 5000} for i in (1, 2)
        ...     ],
        ... }
        >>> both = [{"image_id": i, "category_id": 1, "bbox": [0, 0, 100, 50], "score": 0.9} for i in (1, 2)]
        >>> found = compare(gt, {"one": both[:1], "both": both}, replicates=0)
        >>> found.sentences
        ['both against one: +49.5 AP; no interval (--replicates 0)']
    """
    if len(detections) < 2:
        raise UserError("detections", "nothing to compare with", found=", ".join(detections), expected="two or more")
    repeats: dict[str, list[Any]] = {name: list(of) if _are_repeats(of) else [of] for name, of in detections.items()}
    given = [pair for name, of in repeats.items() for pair in zip(_names(name, len(of)), of, strict=True)]
    with _shown(progress), _as_files([("gt", gt), *given]) as ((truth, *results), renamed):
        remaining = iter(results)
        rows = [Row(name, list(islice(remaining, len(of)))) for name, of in repeats.items()]
        content = compare_rows(
            rows,
            truth,
            replicates=replicates,
            confidence=confidence,
            seed=seed,
            choices=choices,
            baseline=baseline,
            at_score=at_score,
            slices=slices,
        )
    return ComparisonResult(renamed(content))


def _shown(progress: bool) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext() if progress else silence()


class Detector:
    """Trained weights that find objects in images; `load` makes one."""

    def __init__(self, network: "Network") -> None:
        self._network = network

    @property
    def categories(self) -> list[dict[str, Any]]:
        """`id` and `name` of the classes."""
        return [dict(category) for category in self._network.categories]

    def predict(self, images: Sequence[str | os.PathLike[str] | NDArray[np.uint8]]) -> list[list[dict[str, Any]]]:
        """Return the detections of each image, highest score first.

        Args:
            images: files, or arrays (height, width, 3) of RGB values from 0 to 255, such as `numpy.asarray` of a
                Pillow image.

        Returns:
            For each image dicts with `category_id`, `category` (its name), `bbox` (x, y, width, height in pixels) and
            `score`: with an `image_id` added, `score` and `compare` read them.

        Raises:
            UserError: an image cannot be read, or an array has another form.
        """
        return [self._network([self._pixels(index, image)])[0] for index, image in enumerate(images)]

    def _pixels(self, index: int, image: Any) -> NDArray[np.uint8]:
        from fcos.data.images import read_image

        if isinstance(image, str | os.PathLike):
            pixels: NDArray[np.uint8] = read_image(Path(image), bits=self._network.bits)
            return pixels
        array = np.asarray(image)
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
            found = f"{array.dtype} {array.shape}"
            expected = "a file, or uint8 (height, width, 3)"
            raise UserError(f"images[{index}]", "is no RGB image", found=found, expected=expected)
        return array if array.flags.writeable else array.copy()  # those of Pillow are not, which torch warns of


def load(run_or_file: str | os.PathLike[str]) -> Detector:
    """Return the detector of a run of the project in the current folder, or of a weights file of this project.

    It predicts as `fcos detect` does: with the test settings of params.yaml, if there is one. It needs torch:
    `pip install 'fcos-study[study]'`.

    Raises:
        UserError: there is no such run or file, or it holds no weights of this project.
    """
    from fcos.inference.detector import Detector as Network
    from fcos.inference.detector import Weights

    return Detector(Network(Weights.find(os.fspath(run_or_file))))


def _names(name: str, count: int) -> list[str]:
    """Return the names of the results of a row in messages."""
    return [name] if count == 1 else [f"{name}, result {number}" for number in range(1, count + 1)]


def _are_repeats(value: Any) -> TypeGuard[list[Any]]:
    """Whether it is a list of several results, and not the list of dicts of one result."""
    if not isinstance(value, list) or not value:
        return False
    return all(isinstance(of, str | os.PathLike | list) or _are_columns(of) for of in value)


def _are_columns(value: Any) -> bool:
    return hasattr(value, "keys") and "score" in value and np.ndim(value["score"]) == 1


@contextlib.contextmanager
def _as_files(given: Sequence[tuple[str, Any]]) -> Iterator[tuple[list[Path], Callable[[Any], Any]]]:
    """Yield a path for each input, and a function that replaces paths of temporary files by the names of the inputs.

    What is in memory is written to such a file.
    """
    with tempfile.TemporaryDirectory(prefix="fcos-") as folder:
        files, shown = [], {}
        for number, (name, value) in enumerate(given):
            if isinstance(value, str | os.PathLike):
                files.append(Path(value))
                continue
            files.append(Path(folder) / f"{number}.json")
            files[-1].write_bytes(_as_json(value, name))
            shown[str(files[-1])] = name

        def renamed(value: Any) -> Any:
            if isinstance(value, dict):
                return {key: renamed(of) for key, of in value.items()}
            if isinstance(value, list):
                return [renamed(of) for of in value]
            if isinstance(value, str):
                for path, name in shown.items():
                    value = value.replace(path, name)
            return value

        try:
            yield files, renamed
        except UserError as error:
            fields = {name: getattr(error, name) for name in ("found", "expected", "hint")}
            said = {name: None if of is None else renamed(str(of)) for name, of in fields.items()}
            raise UserError(renamed(str(error.where)), renamed(error.problem), **said) from None


def _as_json(value: Any, name: str) -> bytes:
    import orjson

    if _are_columns(value):
        value = _records(value, name)
    try:
        return orjson.dumps(value, default=_plain, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)
    except (TypeError, orjson.JSONEncodeError) as error:
        expected = "dicts, lists, numbers and text"
        raise UserError(name, "cannot be written as JSON", found=error, expected=expected) from None


def _records(columns: Any, name: str) -> list[dict[str, Any]]:
    missing = [column for column in COLUMNS if column not in columns]
    if missing:
        found = ", ".join(map(str, columns.keys()))
        raise UserError(name, f"has no column {missing[0]}", found=found, expected=", ".join(COLUMNS))
    given = [columns[column] for column in COLUMNS]
    lists = [of.tolist() if hasattr(of, "tolist") else list(of) for of in given]
    lengths = [len(of) for of in lists]
    if len(set(lengths)) > 1:
        found = ", ".join(f"{column}: {length}" for column, length in zip(COLUMNS, lengths, strict=True))
        raise UserError(name, "columns of different lengths", found=found, expected="one entry for each detection")
    return [dict(zip(COLUMNS, row, strict=True)) for row in zip(*lists, strict=True)]


def _plain(value: Any) -> Any:
    """Return arrays and tensors as lists, and their single values as Python's."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is no value of JSON")
