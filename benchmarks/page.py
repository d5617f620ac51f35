"""Write the figures of `benchmarks/results/` into docs/performance.md, between its two markers.

python benchmarks/page.py
"""

import json
import statistics
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "performance.md"
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- figures: written by benchmarks/page.py -->", "<!-- end of the figures -->"
CPU = ("training_step", "epoch", "prediction", "scoring", "file_to_numbers", "commands", "study")
GPU = ("training_step_gpu", "epoch_gpu", "prediction_gpu")


def main() -> None:
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise SystemExit(f"{PAGE}: the markers are gone\n  expected: {BEGIN} and {END}")
    PAGE.write_text(f"{before}{BEGIN}\n\n{figures()}\n\n{END}{after}", encoding="utf-8")


def figures() -> str:
    return "\n\n".join([section("CPU", CPU), section("GPU", GPU), growth(), shards()])


def section(title: str, names: tuple[str, ...]) -> str:
    reports = [report for name in names if (report := read(name)) is not None]
    missing = [name for name in names if read(name) is None]
    parts = [f"## {title}"]
    for machine in dict.fromkeys(described(report["machine"]) for report in reports):
        here = [report for report in reports if described(report["machine"]) == machine]
        rows: dict[tuple[str, str | None], str] = {}
        for of in (of for report in here for of in report["lines"]):
            rows.setdefault((of["what"], of.get("peer")), row(of))  # torchvision's best batch may be measured already
        head = "| what | against | ours, s | theirs, s | ratio (lowest to highest) | to reach | result |\n"
        parts += [machine, head + "|---|---|---|---|---|---|---|\n" + "\n".join(rows.values())]
        parts += [activations(report) for report in here if "activations" in report["settings"]]
    if missing:
        parts.append(f"Not measured: {', '.join(missing)}.")
    return "\n\n".join(parts)


def read(name: str) -> dict[str, Any] | None:
    path = RESULTS / f"{name}.json"
    report: dict[str, Any] | None = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    return report


def described(machine: dict[str, Any]) -> str:
    gpu = f", {machine['gpu']}" if machine["gpu"] else ", no GPU"
    return (
        f"{machine['processor']}, {machine['cores']} cores with {', '.join(machine['instructions']) or 'no AVX2'}, "
        f"{machine['memory_gb']} GB{gpu}; torch {machine['torch']} with {machine['threads']} threads, "
        f"Python {machine['python']}."
    )


def row(of: dict[str, Any]) -> str:
    reached = "reached" if of["reached"] else "**not reached**"
    if "ratio" not in of:
        unit = of.get("unit", " s")
        return f"| {of['what']} | - | {min(of['ours_s']):.2f} | | | <= {of['target']:g}{unit} | {reached} |"
    bound = "<=" if of["at_most"] else ">="
    ours, peer = statistics.median(of["ours_s"]), statistics.median(of["peer_s"])
    ratio = f"{of['ratio']:.2f} ({of['lowest']:.2f} to {of['highest']:.2f})"
    return f"| {of['what']} | {of['peer']} | {ours:.2f} | {peer:.2f} | {ratio} | {bound} {of['target']:g} | {reached} |"


def activations(report: dict[str, Any]) -> str:
    kept = [
        f"{backbone} {of['ours_mb_per_image']:.0f} MB (torchvision {of['torchvision_mb_per_image']:.0f} MB)"
        for backbone, of in report["settings"]["activations"].items()
    ]
    return f"Kept for the backward pass, for each image: {', '.join(kept)}."


def growth() -> str:
    reports = [report for name in ("growth", "large_data") if (report := read(name)) is not None]
    parts = ["## Growth", *([] if reports else ["Not measured."])]
    head = "| what | size: seconds (peak memory of the process) | exponent of time |\n|---|---|---|\n"
    for report in reports:
        rows = []
        for of in report["lines"]:
            sizes = ", ".join(f"{r['size']:,}: {r['seconds']:.2f} s ({r['peak_gb']:.2f} GB)" for r in of["rows"])
            rows.append(f"| {of['what']}, {of['unit']} | {sizes} | {of['exponent']:.2f} |")
        parts += [described(report["machine"]), head + "\n".join(rows)]
        parts += [starts(of) for of in report["lines"] if "epoch_s" in of["rows"][0]]
    return "\n\n".join(parts)


def starts(of: dict[str, Any]) -> str:
    """Describe how long a training on many images takes to begin."""
    read_s, epoch_s = (
        [f"{r[key]:.2f} s for {r['size']:,} images" for r in of["rows"]] for key in ("read_s", "epoch_s")
    )
    return f"Reading the split takes {' and '.join(read_s)}; an epoch begins after {' and '.join(epoch_s)}."


def shards() -> str:
    parts = ["## Shards"]
    for name in ("shards", "shards_late"):
        report = read(name)
        if report is None:
            parts.append(f"Not measured: {name}.")
            continue
        settings = report["settings"]
        parts.append(
            f"{described(report['machine'])} {settings['images']:,} images of {settings['image_size']} pixels, an S3 "
            f"server on the same machine, answers {settings['latency_ms']:g} ms late."
        )
        rows = [
            f"| {of['what']} | {settings['images'] / of['ours_s']:,.0f} | {settings['images'] / of['peer_s']:,.0f} |"
            for of in report["lines"]
        ]
        parts.append("| what | images/s from shards | images/s from files |\n|---|---|---|\n" + "\n".join(rows))
    return "\n\n".join(parts)


if __name__ == "__main__":
    main()
