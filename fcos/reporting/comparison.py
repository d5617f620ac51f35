"""Show a comparison of detectors as text and Markdown; see fcos.commands.compare for its content."""

from collections.abc import Mapping
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
        text_table(*pair_grid(content)),
        "\n".join(pair["sentence"] for pair in content["differences"]),
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
        "## Differences by class",
        "\n".join(f"- {markdown(pair['classes_sentence'])}" for pair in content["differences"]),
        "## How to read this",
        "\n".join(f"- {markdown(note)}" for note in reading(content)),
    ]
    return "\n\n".join(parts) + "\n"


def comparison_html(content: Content) -> str:
    """Return the comparison as HTML for a notebook: rows, differences, sentences and notes."""
    sentences = [pair["sentence"] for pair in content["differences"]]
    notes = reading(content)
    return html_table(*row_grid(content)) + html_table(*pair_grid(content)) + html_list(sentences) + html_list(notes)


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
    rows = []
    for pair in content["differences"]:
        ap = pair["metrics"]["AP"]
        rows.append(
            [
                against(pair),
                percent(ap["difference"], sign=True),
                in_brackets(ap),
                p_cell(ap["p_value"]),
                p_cell(ap["p_holm"]),
            ]
        )
    return ["difference", "AP", "interval", "p", "Holm p"], rows


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
        return ["No intervals and no tests: --replicates 0."]
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
    files = [(row["name"], file["sha256"]) for row in content["rows"] for file in row["files"]]
    notes += [f"{names}: the same file (sha256)." for names in same_content(files)]
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
