"""The page of `fcos compare --html`: rows and differences with intervals, classes, errors and a gallery."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from markupsafe import Markup

from fcos.comparing.inspector import Inspector
from fcos.data.images_beside import find_images, with_sizes
from fcos.errors import UserError
from fcos.files import write_text
from fcos.reporting.charts import run_charts
from fcos.reporting.comparison import Grid, against, looked_at, p_cell, pair_grid, reading, row_grid, verdict
from fcos.reporting.comparison_chart import comparison_svg
from fcos.reporting.error_table import error_table
from fcos.reporting.gallery import Gallery
from fcos.reporting.html import render
from fcos.reporting.intervals import in_brackets, percent, plus_minus

SUMMARY = 3  # most sentences at the head of the page
Content = Mapping[str, Any]


def write_comparison_page(
    path: Path, content: Content, inspector: Inspector, *, gt: Path, images: Path | None = None
) -> None:
    """Write the page as one file that needs no network.

    Args:
        content: what comparison.json holds.
        inspector: what has looked at each results file.
        gt: the ground truth, beside which images are looked for.
        images: their folder.

    Raises:
        UserError: an image is not in the given folder.
    """
    gallery, why = _gallery(inspector, gt, images)
    of_files = {of.name: of for of in inspector.files}
    sentences = [pair["sentence"] for pair in content["differences"]]
    header, rows = row_grid(content)
    context = {
        "linked": [],
        "files": False,
        "title": ", ".join(row["name"] for row in content["rows"]),
        "summary": list(filter(None, [verdict(content), *sentences[:SUMMARY]])),
        "facts": _facts(content),
        "reading": reading(content),
        "rows": (["row", *header[1:]], rows),
        "pairs": pair_grid(content),
        "image": Markup(comparison_svg(content)),  # its text is escaped
        "sentences": sentences,
        "looks": looked_at(content),
        "slices": [pair["slices_sentence"] for pair in content["differences"] if "slices_sentence" in pair],
        "classes": [_class_differences(pair) for pair in content["differences"]],
        "errors": error_table("results", {of.name: of.evaluation["analysis"] for of in inspector.files}),
        "operating": None,  # `looks` has it
        "per_class": _per_class(content),
        "no_gallery": why,
        "results": _results(content),
    }
    charts = run_charts(of_files)
    page = render("comparison.html.j2", context, run_names=list(of_files), charts=charts, gallery=gallery)
    write_text(path, page)


def _gallery(inspector: Inspector, gt: Path, images: Path | None) -> tuple[Content | None, str]:
    """Return the content of the gallery, or None and the reason."""
    split = inspector.split
    assert split is not None
    gallery = Gallery(split, [of.evaluation["analysis"]["worst_images"] for of in inspector.files])
    shown = [image for image in split.images if image["id"] in gallery.image_ids]
    folder = find_images(gt, images, [image["file_name"] for image in shown], inspector.images)
    if folder is None:
        return None, "The images are not beside the ground truth: give their folder, --images FOLDER."
    for of in inspector.files:
        gallery.add(of.name, of.detections(gallery.image_ids))
    try:
        sized = {image["id"]: with_sizes(image, folder) for image in shown}
        gallery.split = replace(split, images=[sized.get(of["id"], of) for of in split.images], image_dir=folder)
        return gallery.content(), ""
    except UserError as error:  # one damaged image, or another size, is no reason to lose the page
        return None, f"The images cannot be shown. {error}"


def _facts(content: Content) -> list[tuple[str, str]]:
    counts, truth = content["counts"], content["gt"]
    classes = "1 class" if counts["classes"] == 1 else f"{counts['classes']} classes"
    crowd = f", {counts['crowd']:,} crowd regions" if counts["crowd"] else ""
    held = f"{counts['images']:,} images, {counts['objects']:,} objects of {classes}{crowd}"
    return [("Ground truth", truth["file"]), ("sha256", truth["sha256"]), ("Content", held)]


def _results(content: Content) -> Grid:
    """Return the files of each row with their digests."""
    files = [[row["name"], file["file"], file["sha256"][:10]] for row in content["rows"] for file in row["files"]]
    return ["row", "file", "sha256"], files


def _per_class(content: Content) -> Grid:
    """Return AP of each class for each row."""
    rows = content["rows"]
    cells = [
        [of_class[0]["name"], str(of_class[0]["num_objects"]), *(_cell(of) for of in of_class)]
        for of_class in zip(*(row["per_class"] for row in rows), strict=True)
    ]
    return ["class", "objects", *(row["name"] for row in rows)], cells


def _cell(of_class: Content) -> str:
    return plus_minus(of_class["AP"], of_class["intervals"]["AP"])


def _class_differences(pair: Content) -> dict[str, Any]:
    """Return title, sentence and table of the classes of a pair, the largest regression first."""
    cells = [
        [
            of["name"],
            str(of["num_objects"]),
            percent(of["difference"], sign=True),
            in_brackets(of),
            p_cell(of["p_holm"]),
        ]
        for of in pair["classes"]
    ]
    return {
        "title": against(pair),
        "sentence": pair["classes_sentence"],
        "grid": (["class", "objects", "difference in AP", "interval", "Holm p"], cells),
    }
