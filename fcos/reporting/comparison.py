"""Show a comparison of detectors as text and Markdown; see fcos.commands.compare for its content."""

from collections.abc import Mapping, Sequence
from typing import Any

from fcos.reporting.intervals import DASH, in_brackets, percent, plus_minus
from fcos.reporting.text_tables import html_list, html_table, markdown_table, text_table
from fcos.scoring.average_precision import AP_METRICS
from fcos.scoring.comparison import p_text
from fcos.scoring.findings import same_content
from fcos.visible import markdown

_BAR = 40  # characters
Content = Mapping[str, Any]
Grid = tuple[list[str], list[list[str]]]


def comparison_text(content: Content) -> str:
    """Return the comparison as text for a terminal: rows, bars of AP, differences, sentences and notes."""
    parts = [
        f"{content['counts']['images']} images, {content['counts']['objects']} objects; percent",
        text_table(*row_grid(content)),
        _bars(content),
        *(f"{title}\n{text_table(*grid)}" for title, grid in looked_at(content)),
        text_table(*pair_grid(content)),
        "\n".join(pair["sentence"] for pair in content["differences"]),
        "\n".join(pair["slices_sentence"] for pair in content["differences"] if "slices_sentence" in pair),
        "\n".join(_notes(content)),
        "\n".join(f"note: {line}" for line in _odd(content)),
        verdict(content),
    ]
    return "\n\n".join(filter(None, parts))  # there are no bars if AP is undefined


def comparison_markdown(content: Content, *, image: str) -> str:
    """Return the comparison as Markdown; `image` is the file of the chart."""
    counted = content["counts"]
    parts = [
        "# Comparison",
        *([f"**{markdown(verdict(content))}**"] if "gate" in content else []),
        f"{counted['images']} images, {counted['objects']} objects of {counted['classes']} classes; percent.",
        _markdown_table(*row_grid(content)),
        f"![AP of each row, and the differences]({image})",
        "## Differences in AP",
        _markdown_table(*pair_grid(content)),
        "\n".join(f"- {markdown(pair['sentence'])}" for pair in content["differences"]),
        *(part for title, grid in looked_at(content) for part in (f"## {title}", _markdown_table(*grid))),
        "\n".join(
            f"- {markdown(pair['slices_sentence'])}" for pair in content["differences"] if "slices_sentence" in pair
        ),
        "## Differences by class",
        "\n".join(f"- {markdown(pair['classes_sentence'])}" for pair in content["differences"]),
        "## How to read this",
        "\n".join(f"- {markdown(note)}" for note in reading(content)),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def comparison_html(content: Content) -> str:
    """Return the comparison as HTML for a notebook: rows, differences, sentences and notes."""
    sentences = [pair["sentence"] for pair in content["differences"]]
    notes = reading(content)
    looks = [html_table(*grid) for _, grid in looked_at(content)]
    tables = [html_table(*row_grid(content)), *looks, html_table(*pair_grid(content))]
    return "".join([*tables, html_list(sentences), html_list(notes)])


def reading(content: Content) -> list[str]:
    """Return how to read the numbers, and the findings in ground truth and results."""
    return [*_notes(content), *_odd(content)]


def verdict(content: Content) -> str:
    """Return whether all rows meet the condition against the baseline; empty if there is none."""
    if "gate" not in content:
        return ""
    gate = content["gate"]
    if gate["passed"]:
        wanted = [f"at most {100 * gate['margin']:g} AP lower"] if gate["margin"] is not None else []
        wanted += ["higher in AP"] if gate["better"] else []
        return f"passed: each row is {' and '.join(wanted)} against {content['baseline']}"
    return "failed: " + "; ".join(gate["failures"])


def row_grid(content: Content) -> Grid:
    """Return the rows with their metrics as text."""
    repeated = any(row["n"] > 1 for row in content["rows"])
    header = ["", *(["n"] if repeated else []), *AP_METRICS, *(["s.d. of AP"] if repeated else [])]
    rows = []
    for row in content["rows"]:
        numbers = [plus_minus(row["metrics"][name], row["intervals"][name]) for name in AP_METRICS]
        spread = DASH if row["spread"]["AP"] is None else f"{100 * row['spread']['AP']:.2f}"
        rows.append([row["name"], *([str(row["n"])] if repeated else []), *numbers, *([spread] if repeated else [])])
    return header, rows


def pair_grid(content: Content) -> Grid:
    """Return the pairs with their differences in AP as text."""
    rows = [_difference_cells(against(pair), pair["metrics"]["AP"]) for pair in content["differences"]]
    return ["difference", "AP", "interval", "p", "Holm p"], rows


def looked_at(content: Content) -> list[tuple[str, Grid]]:
    """Return titles and tables of what `--at-score` and `--slices` asked for."""
    parts: list[tuple[str, Grid]] = []
    rows, pairs = content["rows"], content["differences"]
    if "operating_point" in rows[0]:
        iou = rows[0]["operating_point"]["iou"]
        header = ["", "score", "chosen", "precision", "recall", "F1"]
        parts.append((f"At a score threshold, IoU {iou:g}", (header, [_operating_row(row) for row in rows])))
        header = ["difference", "F1", "interval", "p", "Holm p"]
        parts.append(("Differences in F1", (header, [_difference_cells(against(pair), pair["F1"]) for pair in pairs])))
    if "slices_by" in content:
        header = [content["slices_by"], "images", "objects", *(row["name"] for row in rows), *map(against, pairs)]
        parts.append((f"AP by {content['slices_by']}", (header, _slice_rows(rows, pairs))))
    return parts


def _operating_row(row: Content) -> list[str]:
    point = row["operating_point"]
    scores = ", ".join(f"{threshold:.3g}" for threshold in point["score_thresholds"])
    best = point["best_threshold"]
    ends = "" if best is None or best["low"] is None else f" [{best['low']:.3g}, {best['high']:.3g}]"
    numbers = [plus_minus(point[name]["value"], point[name]) for name in ("precision", "recall", "F1")]
    return [row["name"], f"{scores}{ends}", point["chosen"], *numbers]


def _difference_cells(title: str, of: Any) -> list[str]:
    return [title, percent(of["difference"], sign=True), in_brackets(of), p_cell(of["p_value"]), p_cell(of["p_holm"])]


def _slice_rows(rows: Sequence[Content], pairs: Sequence[Content]) -> list[list[str]]:
    """Return a line for each slice: AP of each row, then each difference with its corrected p in brackets."""
    of_pairs = [{of["name"]: of for of in pair["slices"]} for pair in pairs]
    lines = []
    for of_rows in zip(*(row["slices"] for row in rows), strict=True):
        first = of_rows[0]
        numbers = [plus_minus(of["AP"], of["intervals"]["AP"]) for of in of_rows]
        differences = [
            f"{percent(of[first['name']]['difference'], sign=True)} ({p_cell(of[first['name']]['p_holm'])})"
            for of in of_pairs
        ]
        lines.append([first["name"], str(first["num_images"]), str(first["num_objects"]), *numbers, *differences])
    return lines


def _bars(content: Content) -> str:
    """Return AP of each row as a bar from 0, solid up to the low end of its interval and shaded up to the high end."""
    rows = [row for row in content["rows"] if row["intervals"]["AP"]["high"] is not None]
    width = max((len(row["name"]) for row in rows), default=0)
    top = max([row["intervals"]["AP"]["high"] for row in rows] + [1e-9])
    lines = []
    for row in rows:
        low, high = (round(max(row["intervals"]["AP"][end], 0) / top * _BAR) for end in ("low", "high"))
        bar = ("█" * low + "▒" * max(high - low, 1)).ljust(_BAR + 1)
        lines.append(f"{row['name'].ljust(width)}  {bar} {percent(row['metrics']['AP'])}")
    return "\n".join(lines)


def _odd(content: Content) -> list[str]:
    """Return the findings in the ground truth, then those in each results file."""
    of_rows = [
        f"{row['name'] if row['n'] == 1 else file['file']}: {finding['text']}"
        for row in content["rows"]
        for file in row["files"]
        for finding in file["diagnosis"]
    ]
    return [*(finding["text"] for finding in content["diagnosis"]), *of_rows]


def _notes(content: Content) -> list[str]:
    statistics = content["statistics"]
    if not statistics["replicates"]:
        return ["No intervals and no tests: --replicates 0.", *_notes_of_looks(content)]
    notes = [
        f"Intervals are of {100 * statistics['confidence']:g} %: bias-corrected bootstrap, {statistics['replicates']} "
        f"samples of the {drawn(statistics)}, the same for all rows; a difference is paired by image. Holm's p "
        "and the intervals in the sentences are corrected for the number of pairs; the intervals in the table are not."
    ]
    single = [row["name"] for row in content["rows"] if row["n"] == 1]
    if single:
        if len(single) < len(content["rows"]):
            about = "use the standard deviation between seeds of the rows with several files."
        else:
            about = (
                "say nothing certain about settings: another seed may give another network. Repeat with several seeds, "
                "NAME=FILE,FILE,...."
            )
        notes.append(f"Rows of one file ({', '.join(single)}) {about}")
    notes += filter(None, [content.get("power")])
    notes += _notes_of_looks(content)
    files = [(row["name"], file["sha256"]) for row in content["rows"] for file in row["files"]]
    notes += [f"{names}: the same file (sha256)." for names in same_content(files)]
    return notes


def _notes_of_looks(content: Content) -> list[str]:
    """Return how to read what `--at-score` and `--slices` asked for."""
    notes = []
    points = [row["operating_point"] for row in content["rows"] if "operating_point" in row]
    if points:
        notes.append(
            "Precision, recall and F1 count all classes together; their intervals are for that score threshold, over "
            "images."
        )
    if any(point["chosen"] != "given" for point in points):
        notes.append(
            "A threshold chosen on these images makes F1 optimistic: choose it on other images, by --at-score best "
            "there, and give it here, by --at-score NAME=SCORE."
        )
    if "slices_by" in content:
        notes.append(
            "Each slice is scored as if its images were all there are; the p in brackets has Holm's correction over "
            "all slices and pairs."
        )
    return notes


def drawn(statistics: Mapping[str, Any]) -> str:
    """Return what the bootstrap resamples: images or groups of images."""
    groups = statistics.get("groups")
    return "images" if groups is None else f"{groups['count']} groups of images (by {groups['by']})"


def against(pair: Content) -> str:
    """Return the title of a pair."""
    return f"{pair['first']} against {pair['second']}"


def p_cell(value: float | None) -> str:
    """Return a p-value as text; None is a dash."""
    return DASH if value is None else p_text(value)


def _markdown_table(header: list[str], rows: list[list[str]]) -> str:
    cells = [list(map(markdown, row)) for row in (header, *rows)]
    return markdown_table(cells[0], cells[1:], [False, *[True] * (len(header) - 1)])
