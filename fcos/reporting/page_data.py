"""Content of the report other than its tables and charts, as plain data for both templates."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fcos.config.data import GroundTruthData
from fcos.config.results import NOT_TRAINED_HERE
from fcos.data.sources.together import copies_text
from fcos.errors import names_of
from fcos.progress import duration
from fcos.reporting import findings
from fcos.reporting.convergence import convergence
from fcos.reporting.error_table import error_table
from fcos.reporting.intervals import DASH, NOT_SIGNIFICANT, NOT_TESTED, plus_minus
from fcos.reporting.operating_table import operating_table
from fcos.reporting.report_table import ReportTable
from fcos.reporting.results import Results, RunResults, StudyResults, trained_on
from fcos.reporting.tables import differing, flatten
from fcos.reporting.validation import validation
from fcos.scoring.average_precision import METRICS
from fcos.scoring.diagnosis import FEW_GROUPS, FEW_IMAGES, FEW_OBJECTS
from fcos.scoring.scenes import scenes_of
from fcos.scoring.support import without_interval
from fcos.study.run_files import RUN_FILES

Grid = tuple[list[str], list[list[str]]]
_PARAMETERS = ("backbone", "epochs", "num_convs", "seed")


def page_data(study: StudyResults, tables: Sequence[ReportTable], out_dir: Path) -> dict[str, Any]:
    """Return the template variables that need neither a chart nor a browser.

    Args:
        out_dir: the folder of the page, which its links are relative to.
    """
    return {
        "study": study.params.study,
        "summary": findings.summary(study, tables),
        "question": findings.question,
        "answer": findings.answer,
        "facts": _facts(study),
        "reading": _reading(study),
        "convergence": convergence(study),
        "validation": validation(study),
        "errors": error_table("run", {name: of.evaluation["analysis"] for name, of in study.everyone.items()}),
        "operating": operating_table({name: of.evaluation for name, of in study.everyone.items()}),
        "per_class": _per_class(study),
        "data": _data(study),
        "classes": _classes(study),
        "findings": _findings(study),
        "shared": _shared_settings(study),
        "test": (["setting", "value"], [[key, str(value)] for key, value in study.params.test.settings().items()]),
        "runs": _runs(study),
        "run_details": _run_details(study, out_dir),
        "shown": _shown_run(study, tables),
    }


def _shown_run(study: StudyResults, tables: Sequence[ReportTable]) -> str:
    """Return the run whose images are shown in report.md: that of the `trained` table, or the first."""
    return next((table.config.run for table in tables if table.config.kind == "trained"), next(iter(study.everyone)))


def _facts(study: StudyResults) -> list[tuple[str, str]]:
    """Return the facts at the head of the report: data, machine, software versions and times."""
    made_by = [results.train["provenance"] for results in study.runs.values()]
    scored_by = [results.evaluation["provenance"] for results in study.given.values()]
    seconds = [results.training_s for results in study.runs.values()]
    trained = [value for value in seconds if value is not None]
    predicted = sum(results.timing["views"]["test"]["seconds"] for results in study.runs.values())
    splits = study.manifest["splits"].items()
    versions = (
        f"{name} {number}"
        for where in made_by or scored_by
        for name, number in where["versions"].items()
        if made_by or not name.startswith("torch")  # which scores nothing
    )
    names = [category["name"] for category in study.manifest["categories"]]
    data = [
        ("Data", f"{study.params.data.source}: {'; '.join(_count(split, counts) for split, counts in splits)}"),
        ("Classes", f"{len(names)}: {', '.join(names)}"),
    ]
    if not made_by:
        commit = _distinct(_commit(where) for where in scored_by)
        return [*data, ("Detectors", NOT_TRAINED_HERE), ("Versions", _distinct(versions, ", ")), ("Commit", commit)]
    return [
        *data,
        ("Trained on", _distinct(map(trained_on, made_by))),
        ("Machine", _distinct(where["machine"] for where in made_by)),
        ("Versions", _distinct(versions, ", ")),
        ("Commit", _distinct(_commit(where) for where in made_by)),
        ("Total training time", f"{duration(sum(trained))} in {len(trained)} trainings"),
        ("Prediction", f"{duration(predicted)} for one pass of every run over the test images"),
    ]


def _reading(study: StudyResults) -> list[str]:
    """Return how to read the numbers in every table."""
    one = "training" if study.runs else "results file"
    statistics = study.params.statistics
    return [
        "AP values are COCO metrics in percent; a dash means undefined.",
        f"± is half the width of the {100 * statistics.confidence:g} % interval, a bias-corrected bootstrap over the "
        f"scored images ({statistics.replicates:,} samples). The interval may be asymmetric; the CSV files have both "
        "ends.",
        "Differences are paired: both rows are scored on the same bootstrap samples. p is two-sided and corrected for "
        f"the number of pairs in its table (Holm); {NOT_SIGNIFICANT} = not significant, {NOT_TESTED} = without an "
        f"interval. With one {one} per row, a difference is evidence about these two networks, not about their "
        "settings: two seeds of the same settings can differ significantly too.",
        *_belonging_together(study),
        *_thin_evidence(study),
        *_without_intervals(study),
    ]


def _belonging_together(study: StudyResults) -> list[str]:
    """Return what is known of images that are not statistically independent."""
    groups = study.split.groups
    if groups is None:
        scenes = scenes_of(study.split)
        found = [] if scenes is None else [scenes.sentence("data.groups says otherwise")]
        return [f"{text}." for text in [*found, *copies_text(study.manifest.get("near_copies"))]]
    count = len(set(groups))
    few = f" Intervals from fewer than {FEW_GROUPS} groups are too narrow." if count < FEW_GROUPS else ""
    return [f"The test images are in {count} groups (data.groups), and the bootstrap resamples groups.{few}"]


def _thin_evidence(study: StudyResults) -> list[str]:
    """Return sentences on what the test split is too small for, and on ground truth that nobody has corrected."""
    if isinstance(study.params.data, GroundTruthData):
        return [f"{text[0].upper()}{text[1:]}." for text in study.manifest["notes"]]
    objects = [annotation for annotation in study.split.annotations if not annotation["iscrowd"]]
    of_class = Counter(annotation["category_id"] for annotation in objects)
    counts = {category["name"]: of_class[category["id"]] for category in study.split.categories}
    none = [name for name, count in counts.items() if count == 0]
    few = [name for name, count in counts.items() if 0 < count < FEW_OBJECTS]
    said = []
    if none:
        over = f"AP is the mean over {len(counts) - len(none)} of {len(counts)} classes"
        said.append(f"{over}: the test split has no object of {names_of(none)}.")
    if few:
        said.append(f"Fewer than {FEW_OBJECTS} test objects, so AP is uncertain: {names_of(few)}.")
    num_images = len({annotation["image_id"] for annotation in objects})
    if num_images < FEW_IMAGES:
        narrow = f"intervals from fewer than {FEW_IMAGES} are a little too narrow"
        said.append(f"Objects in {num_images} test images only: {narrow}.")
    return said


def _without_intervals(study: StudyResults) -> list[str]:
    """Return which metrics of which runs have no interval, and why."""
    runs_by: dict[str, list[str]] = {}
    for name, results in study.everyone.items():
        for finding in without_interval(results.replicates["evaluation.json"].drawn["test"], METRICS):
            runs_by.setdefault(finding.text, []).append(name)
    return [f"{text[0].upper()}{text[1:]} ({names_of(runs)})." for text, runs in runs_by.items()]


def _count(split: str, counts: Mapping[str, Any]) -> str:
    return f"{split} {counts['num_images']:,} images with {counts['num_objects']:,} objects"


def _distinct(values: Iterable[str], separator: str = "; ") -> str:
    return separator.join(dict.fromkeys(values))


def _commit(provenance: Mapping[str, Any]) -> str:
    commit = provenance["commit"]
    if commit is None:
        return "unknown"
    return f"{commit[:12]}{'' if provenance['clean_tree'] else ' with changes that are not committed'}"


def _per_class(study: StudyResults) -> Grid:
    """Return AP of each class for each run."""
    of_runs = [results.evaluation["per_class"] for results in study.everyone.values()]
    rows = []
    for of_class in zip(*of_runs, strict=True):
        cells = [plus_minus(row["AP"], row["intervals"]["AP"]) for row in of_class]
        rows.append([of_class[0]["name"], str(of_class[0]["num_objects"]), *cells])
    return ["class", "objects", *study.everyone], rows


def _data(study: StudyResults) -> Grid:
    header = ["split", "images", "objects", "ignored", "without objects", "small", "medium", "large", "digest"]
    rows = []
    for split, of in study.manifest["splits"].items():
        counts = (of["num_images"], of["num_objects"], of["num_ignored"], of["num_empty_images"])
        rows.append([split, *map(str, counts), *map(str, of["per_size"].values()), of["digest"][:10]])
    return header, rows


def _classes(study: StudyResults) -> Grid:
    splits = study.manifest["splits"]
    names = [category["name"] for category in study.manifest["categories"]]
    counts = [[name, *(str(counts["per_class"][name]) for counts in splits.values())] for name in names]
    return ["class", *(f"objects in {split}" for split in splits)], counts


def _findings(study: StudyResults) -> Grid | None:
    """Return what preparing the data has found; it does not look at ground truth for a study of results."""
    if isinstance(study.params.data, GroundTruthData):
        return None
    manifest = study.manifest
    kinds = {
        "boxes left out (no area, or outside)": manifest["dropped"],
        "boxes clipped to their image": manifest["clipped"],
        "pairs of nearly identical boxes of one class": manifest["near_duplicates"],
        "images with unusual properties": manifest["odd"],
    }
    return ["finding", "count"], [[text, str(len(found))] for text, found in kinds.items()]


def _settings(results: RunResults) -> dict[str, Any]:
    return {key: value for key, value in flatten(results.run.identity()).items() if key not in ("study", "name")}


def _own_settings(study: StudyResults) -> list[str]:
    if not study.runs:
        return []
    others = differing([_settings(results) for results in study.runs.values()])
    return list(dict.fromkeys([*_PARAMETERS, *others]))


def _shared_settings(study: StudyResults) -> Grid | None:
    if not study.runs:
        return None
    own = _own_settings(study)
    settings = _settings(next(iter(study.runs.values())))
    return ["setting", "value"], [[key, _plain(value)] for key, value in settings.items() if key not in own]


def _plain(value: Any) -> str:
    return DASH if value is None else str(value)


def _runs(study: StudyResults) -> Grid:
    own = _own_settings(study)
    rows = []
    for name, results in study.runs.items():
        seconds = results.training_s
        settings = _settings(results)
        rows.append(
            [
                name,
                results.run.role or "",
                *(_plain(settings[key]) for key in own),
                DASH if seconds is None else duration(seconds),
                str(results.evaluation["identity"].get("dtype", DASH)),
                results.digest[:10],
                results.evaluation["identity"]["data_digest"][:10],
            ]
        )
    for name, given in study.given.items():
        blank = [DASH] * (len(own) + 2)
        digests = [given.digest[:10], given.evaluation["identity"]["data_digest"][:10]]
        rows.append([name, NOT_TRAINED_HERE, *blank, *digests])
    return ["run", "role", *own, "training time", "tested in", "weights", "test data"], rows


def _run_details(study: StudyResults, out_dir: Path) -> list[dict[str, Any]]:
    """Return the details of each run: its settings, provenance, files and MLflow run."""
    listed = []
    for name, results in study.runs.items():
        made_by, seconds = results.train["provenance"], results.training_s
        facts = [
            ("Weights (sha256)", results.digest),
            ("Scored on data", results.evaluation["identity"]["data_digest"]),
            ("Trained in", DASH if seconds is None else duration(seconds)),
            ("Trained by", f"commit {_commit(made_by)}, {made_by['machine']}, {made_by.get('device', DASH)}"),
            ("In MLflow", f"experiment {study.params.study}, run {name}, tag weights_sha256"),
        ]
        settings = [[key, _plain(value)] for key, value in _settings(results).items()]
        links = _links(results, out_dir)
        table = (["setting", "value"], settings)
        listed.append({"run": name, "kind": "weights", "facts": facts, "settings": table, "links": links})
    return [*listed, *_given_details(study, out_dir)]


def _given_details(study: StudyResults, out_dir: Path) -> list[dict[str, Any]]:
    """Return the same of results that were not trained here."""
    listed = []
    for name, given in study.given.items():
        identity, config = given.evaluation["identity"], study.params.results[given.entry]
        facts = [
            ("Results (sha256)", given.digest),
            ("Results", f"{identity['file']}, {given.evaluation['num_detections']:,} detections; {NOT_TRAINED_HERE}"),
            ("Scored on data", identity["data_digest"]),
            ("Scored by", f"commit {_commit(given.evaluation['provenance'])}"),
            *(("Noticed", text) for text in given.evaluation.get("findings", [])),
            ("In MLflow", f"experiment {study.params.study}, run {name}, tag results_sha256"),
        ]
        settings = [[key, _plain(value)] for key, value in config.model_dump().items()]
        grid = (["setting", "value"], settings)
        links = _links(given, out_dir)
        listed.append({"run": name, "kind": "results", "facts": facts, "settings": grid, "links": links})
    return listed


def _links(results: Results, out_dir: Path) -> list[tuple[str, str]]:
    """Return the names and addresses of the files and figures of a run."""
    there = [file.name for file in RUN_FILES if (results.folder / file.name).is_file()]
    links = [(file, Path(os.path.relpath(results.folder / file, out_dir)).as_posix()) for file in there]
    figures = sorted((out_dir / "figures" / "runs" / results.name).glob("*.png"))
    return links + [(path.name, path.relative_to(out_dir).as_posix()) for path in figures]
