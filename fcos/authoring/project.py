"""`fcos init`: a project of one's own, whose stages run the installed package."""

import contextlib
import importlib.util
import os
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

from fcos.config import params
from fcos.errors import UserError
from fcos.files import sha256_bytes, sha256_file, write_text
from fcos.formats import read_record, write_record
from fcos.reporting.text_tables import left_table
from fcos.running.code_link import LINK, PROJECT, refresh_link
from fcos.running.dvc import allow_without_git, ask_dvc, dvc
from fcos.running.stages import OUT_OF_DATE, TO_DO, all_stages, find_states, what_is_open
from fcos.study.layout import Layout
from fcos.study.provenance import git
from fcos.version import own_version

TEMPLATE = Path(__file__).parent / "template"
FIRST_STUDY = "smoke"  # takes a minute
_PLACES = {"report.yaml": "dvc.yaml", "dvcignore": ".dvcignore", "dvc_config": ".dvc/config"}


class Project(TypedDict):
    """What .fcos.json holds."""

    version: str
    files: dict[str, str]  # sha256 of each file as it was written, by its path


def init_project(folder: Path) -> str:
    """Make `folder` a git and DVC project with the ready-made studies; return what was done and what comes next.

    In a project that exists, only the link to the installed package is renewed.

    Raises:
        UserError: the folder holds files that would be overwritten, is a clone of the repository, or git or DVC fail.
        ModuleNotFoundError: DVC is not installed.
    """
    if (folder / PROJECT).is_file():
        return _renewed(folder)
    if importlib.util.find_spec("dvc") is None:
        raise ModuleNotFoundError(name="dvc")
    files = _template()
    taken = [name for name in (*files, "params.yaml", str(LINK)) if os.path.lexists(folder / name)]
    if taken:
        raise UserError(
            folder,
            f"has {len(taken)} files that a new project would replace; nothing was written",
            found=", ".join(taken[:5]),
            expected=f"a folder without them, or a project with {PROJECT}",
            hint="fcos init NEW_FOLDER; a clone of the repository needs no init",
        )
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.chdir(folder):
        _start_repositories()
    kept = [] if _write_if_missing(folder, "README.md") else ["README.md was there already, and was left alone"]
    _complete_gitignore(folder)
    for name, text in files.items():
        write_text(folder / name, text)
    write_text(folder / "params.yaml", files[f"studies/{FIRST_STUDY}.yaml"])
    _write_project(folder, files)
    with contextlib.chdir(folder):
        refresh_link()
        allow_without_git()
    typed = [f"cd {folder}"] if folder.resolve() != Path.cwd() else []
    studies = sum(name.startswith("studies/") for name in files)
    lines = [
        f"made a project of fcos {own_version()} in {_named(folder)}, with {studies} ready-made studies",
        *kept,
        f"the active study is {FIRST_STUDY}, which takes a minute or two. Next:",
        *(f"  {line}" for line in [*typed, "dvc repro", "fcos study new NAME --from FOLDER"]),
    ]
    return "\n".join(lines)


def upgrade_project(folder: Path) -> str:
    """Bring the files of a project to the installed version; return what changed and which stages will run again.

    A file that was edited is kept, and the new one is written beside it as FILE.new.

    Raises:
        UserError: the folder is no project of `fcos init`, or its .fcos.json is damaged.
    """
    if not (folder / PROJECT).is_file():
        hint = "fcos init makes one; in a clone of the repository, git pull is the upgrade"
        raise UserError(folder, "is no project of `fcos init`", expected=f"a folder with {PROJECT}", hint=hint)
    before, files = _read_project(folder), _template()
    said = defaultdict(list)
    for name, text in files.items():
        said[_bring(folder, name, text, before["files"].get(name))].append(name)
    for name in before["files"].keys() - files.keys():
        if _is_untouched(folder / name, before["files"][name]):
            (folder / name).unlink()
            said["deleted, since it is no longer used"].append(name)
    if added := _complete_gitignore(folder):
        said["completed"].append(f".gitignore ({added} lines)")
    _write_project(folder, files)
    rows = [(how, ", ".join(sorted(names))) for how, names in sorted(said.items()) if how]
    table = left_table(rows) if rows else "no file differs"
    with contextlib.chdir(folder):
        refresh_link()
        again = _what_runs_again()
    return f"fcos {before['version']} -> {own_version()}\n{table}\n{again}"


def _renewed(folder: Path) -> str:
    """Renew the link of an existing project, and compare versions."""
    version = _read_project(folder)["version"]
    with contextlib.chdir(folder):
        refresh_link()
        allow_without_git()
    text = f"{_named(folder)} is a project of fcos {version}; {LINK} leads to the installed package"
    newer = f"\nthe installed one is {own_version()}: `fcos init --upgrade` brings the files to it"
    return text + (newer if version != own_version() else "")


def _named(folder: Path) -> str:
    return "this folder" if folder.resolve() == Path.cwd() else str(folder)


def _template() -> dict[str, str]:
    """Return the text of each file of a project that belongs to the package, by its path there."""
    files = {}
    for path in sorted(TEMPLATE.glob("**/*")):
        name = path.relative_to(TEMPLATE).as_posix()
        if path.is_dir() or name in ("README.md", "gitignore"):
            continue
        place = f"stages/{path.stem}/dvc.yaml" if path.parent.name == "stages" else _PLACES.get(name, name)
        files[place] = path.read_text(encoding="utf-8")
    return files


def _start_repositories() -> None:
    """Run `git init` here unless this is in a repository or git is not installed, and `dvc init`."""
    has_git = shutil.which("git") is not None
    if has_git and git("rev-parse", "--git-dir") is None:
        _call(["git", "init", "--quiet"])
    if not Path(".dvc").is_dir():
        whole = Path(".git").exists()
        _call(dvc("init", "--quiet", *([] if whole else ["--subdir" if has_git else "--no-scm"])))


def _call(command: list[str]) -> None:
    """Run a command; if it fails, raise a UserError with the last line that it printed."""
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise UserError(Path.cwd(), f"`{' '.join(command[-3:])}` failed", found=said)


def _write_if_missing(folder: Path, name: str) -> bool:
    """Copy a file of the template unless the folder has one; return whether it had none."""
    if (folder / name).exists():
        return False
    write_text(folder / name, (TEMPLATE / name).read_text(encoding="utf-8"))
    return True


def _complete_gitignore(folder: Path) -> int:
    """Add the patterns that .gitignore lacks; return their number."""
    path = folder / ".gitignore"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    wanted = (TEMPLATE / "gitignore").read_text(encoding="utf-8").splitlines()
    lines = [line for line in wanted if line not in text.splitlines()]
    patterns = sum(not line.startswith("#") for line in lines)
    if patterns:
        gap = "\n" if text and not text.endswith("\n") else ""
        write_text(path, f"{text}{gap}" + "".join(f"{line}\n" for line in lines))
    return patterns


def _bring(folder: Path, name: str, text: str, recorded: str | None) -> str:
    """Write one file of the template as far as that loses no edit; return what was done, or an empty text."""
    path = folder / name
    if not path.exists():
        if recorded is not None and name.startswith("studies/"):
            return ""  # deleted by the user
        write_text(path, text)
        return "added"
    if path.read_text(encoding="utf-8") == text:
        return ""
    if recorded is not None and _is_untouched(path, recorded):
        write_text(path, text)
        return "replaced"
    write_text(path.with_name(f"{path.name}.new"), text)
    return "kept, since you edited it; the new one is beside it (.new)"


def _is_untouched(path: Path, recorded: str) -> bool:
    return path.is_file() and sha256_file(path) == recorded


def _read_project(folder: Path) -> Project:
    return read_record(folder / PROJECT, hint="git checkout -- .fcos.json", kind=Project, complete=True)  # type: ignore[no-any-return]


def _write_project(folder: Path, files: Mapping[str, str]) -> None:
    digests = {name: sha256_bytes(text.encode()) for name, text in files.items()}
    write_record(folder / PROJECT, {"version": own_version(), "files": digests})


def _what_runs_again() -> str:
    """Return a line for each kind of stage that has run and must run again, with the first reason."""
    study = params.read()
    stages, layout = all_stages(study), Layout(study.study)
    changed, unasked = ask_dvc()
    if changed is None:
        return f"which stages will run again is not known: DVC says {unasked}"
    states = find_states(stages, layout, {}, what_is_open(stages, changed))
    again = defaultdict(list)
    for found in states:
        if found.state == OUT_OF_DATE:
            again[found.stage.name].append(found.why)
    if all(found.state == TO_DO for found in states):
        return f"no stage of study {study.study} has run yet"
    if not again:
        return f"nothing of study {study.study} will run again"
    rows = [(f"{len(reasons)} x {name}", reasons[0] or "") for name, reasons in again.items()]
    return f"of study {study.study}, these will run again at the next `dvc repro`:\n{left_table(rows)}"
