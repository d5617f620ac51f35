"""Sentences about what `fcos prepare` corrects, leaves out or finds suspicious."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

SHOWN = 8  # names per line


def manifest_text(manifest: Mapping[str, Any]) -> str:
    """Describe the prepared data, with a line for each split, finding and assumption."""
    splits = [f"{split}: {counted(counts)}{_sharded(counts)}" for split, counts in manifest["splits"].items()]
    assumed = [f"assumed: {said}" for said in assumptions(manifest)]
    return "\n".join([*splits, *finding_sentences(manifest), *assumed])


def counted(counts: Mapping[str, Any]) -> str:
    """Describe the images, objects and, if any, ignored boxes of a split of the manifest."""
    ignored = f", {counts['num_ignored']} ignored boxes" if counts["num_ignored"] else ""
    return f"{counts['num_images']} images, {counts['num_objects']} objects{ignored}"


def _sharded(counts: Mapping[str, Any]) -> str:
    shards = counts.get("shards")
    if not shards:
        return ""
    count = len(shards["files"])
    return f"; images are read from {count} shard{'' if count == 1 else 's'} at {shards['url']}"


def finding_sentences(manifest: Mapping[str, Any]) -> list[str]:
    """Describe what was dropped, clipped, left out, corrected or suspicious, with counts; manifest.json lists all."""
    listed = "(listed in manifest.json)"
    sentences = []
    for finding in ("damaged", "dropped", "clipped", "near_duplicates"):
        if manifest[finding]:
            words = {"damaged": "left out as damaged"}.get(finding, finding.replace("_", " "))
            kinds = Counter(entry.get("problem") or entry.get("why") or "" for entry in manifest[finding])
            reasons = "; ".join(f"{count} x {kind}" for kind, count in kinds.most_common(3) if kind)
            sentences.append(f"{words}: {len(manifest[finding])} {listed}" + (f": {reasons}" if reasons else ""))
    if manifest["odd"]:
        kinds = Counter(entry["what"].split(" (")[0] for entry in manifest["odd"])
        some = [f"{kind} {count}" for kind, count in kinds.most_common(SHOWN)]
        sentences.append(f"unusual: {len(manifest['odd'])} {listed}: {and_more(some, len(kinds))}")
    sentences += [f"{what}: {count}" for what, count in manifest["counts"].items()]
    return sentences + list(manifest["notes"])


def assumptions(manifest: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each assumption that the source's files do not confirm."""
    return list(manifest.get("assumed", []))


def and_more(names: list[str], count: int) -> str:
    """Join the first of `names` and the number of those, out of `count`, that are not shown."""
    shown = names[:SHOWN]
    return ", ".join([*shown, *([f"{count - len(shown)} more"] if count > len(shown) else [])])
