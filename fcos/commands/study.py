"""`fcos study`: list, show and select studies."""

from pathlib import Path
from typing import Any

from fcos.config import params
from fcos.config.section import DEFAULT_PATH, read_params
from fcos.errors import UserError
from fcos.files import write_text
from fcos.study.layout import STUDIES


def list_studies() -> dict[str, str]:
    """Return the first comment line of each study file, by name."""
    return {path.stem: _headline(path) for path in sorted(STUDIES.glob("*.yaml"))}


def list_text() -> str:
    """Return a line for each study in studies/; raises UserError where there is none."""
    studies = list_studies()
    if not studies:
        raise UserError(
            Path.cwd(),
            "has no studies",
            expected="a project folder, with studies/*.yaml",
            hint="fcos init FOLDER makes one",
        )
    return "".join(f"{name:<12} {headline}\n" for name, headline in studies.items())


def show_study(name: str | None) -> params.Params:
    """Return the active study, or the study `name` in studies/, completely checked."""
    return params.read(DEFAULT_PATH if name is None else _path(name))


def study_text(study: params.Params) -> str:
    """Return the contents of a study as text: a headline, and a line for each run and table."""
    parts = {"runs": len(study.runs), "results": len(study.results), "tables": len(study.tables)}
    counted = ", ".join(f"{count} {what}" for what, count in parts.items() if count)
    lines = [f"study {study.study}: data {study.data.source}, {counted}"]
    for run in study.runs.values():
        source = f"checkpoint {run.checkpoint}" if run.checkpoint else f"{run.epochs} epochs, seed {run.seed}"
        role = f" ({run.role})" if run.role else ""
        lines.append(f"  run   {run.name}: {run.backbone}, num_convs {run.num_convs}, {source}{role}")
    lines += [f"  results {name}: {', '.join(config.paths)}" for name, config in study.results.items()]
    lines += [f"  table {number}: {table.title} ({table.kind})" for number, table in enumerate(study.tables, start=1)]
    return "\n".join(lines)


def use_study(name: str, *, force: bool) -> Path | None:
    """Make `name` the active study; return the backup of edits that `force` overwrote, if any."""
    text = _path(name).read_text(encoding="utf-8")
    params.read(_path(name))
    kept = None
    if DEFAULT_PATH.exists() and _is_edited():
        if not force:
            raise UserError(
                DEFAULT_PATH,
                "has changes that are not saved in studies/; nothing was changed",
                expected="a params.yaml identical to a file in studies/",
                hint=f"keep them as studies/NAME.yaml, or drop them with `fcos study use {name} --force`",
            )
        kept = DEFAULT_PATH.with_name("params.local.yaml")
        write_text(kept, DEFAULT_PATH.read_text(encoding="utf-8"))
    write_text(DEFAULT_PATH, text)
    return kept


def _is_edited() -> bool:
    try:
        active: Any = read_params(DEFAULT_PATH)
    except UserError:
        return True
    return all(active != read_params(path) for path in STUDIES.glob("*.yaml"))


def _path(name: str) -> Path:
    path = STUDIES / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(list_studies())
        hint = None if known else "run this in a project folder, which `fcos init FOLDER` makes"
        raise UserError(path, "no such study", found=name, expected=f"one of {known}" if known else None, hint=hint)
    return path


def _headline(path: Path) -> str:
    first = path.read_text(encoding="utf-8", errors="replace").partition("\n")[0]
    return first.removeprefix("#").strip()
