"""What must hold before anything is submitted to a cluster; each refusal names its cause."""

import contextlib
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from fcos.errors import UserError
from fcos.running.dvc import default_remote
from fcos.running.engines.options import EngineOptions
from fcos.study.provenance import git
from fcos.training.remote_states import RemoteStates
from fcos.visible import has_password, without_password

# What a job takes from the commit. Lock files and reports are not checked, since a run writes them.
_CODE = ("fcos", "stages/*/dvc.yaml", "dvc.yaml", "params.yaml", "requirements.txt", ".dvc/config")
# Settings of DVC's remote that are not secret; the nodes have their own secrets.
_PLAIN = ("url", "endpointurl", "region", "profile", "port", "user", "use_ssl", "ssl_verify", "jobs", "timeout")


def commit_to_run(options: EngineOptions) -> tuple[str, str]:
    """Return the current commit and the repository from which nodes can clone it.

    Raises:
        UserError: nothing says which environment the nodes need, there is no git repository, it has changes that are
            not committed, or the commit is not pushed.
    """
    if options.python is None and not Path("requirements.txt").is_file():
        raise UserError(
            "requirements.txt",
            "is missing, so the nodes cannot make an environment",
            expected="pinned versions with hashes, or `python:` in engine.yaml",
            hint="python: /path/of/an/environment/bin/python, which has fcos-study[study] on every node",
        )
    commit = git("rev-parse", "HEAD")
    if commit is None:
        hint = "git init, commit, and push to a repository that the nodes can reach"
        raise UserError("git", "cluster jobs run a git commit, but this folder has none", hint=hint)
    changed = (git("status", "--porcelain", "--", *_CODE) or "").splitlines()
    if changed:
        raise UserError(
            "git",
            f"{len(changed)} of its files differ from the commit, so the nodes would run different code or settings",
            found=", ".join(line[3:] for line in changed[:5]),
            hint="commit and push them",
        )
    repository = options.repository or git("remote", "get-url", "origin")
    if repository is None:
        hint = "git remote add origin URL, or `repository:` in engine.yaml"
        raise UserError("git", "the nodes have nowhere to clone from: there is no remote `origin`", hint=hint)
    refuse_password(repository, "the repository")
    tips = git("ls-remote", repository)
    if tips is None:
        raise UserError("git", "the repository does not answer", found=repository, hint="run git ls-remote to see why")
    if not any(_contains(line.split()[0], commit) for line in tips.splitlines()):
        raise UserError(
            "git", "this commit is not pushed", found=commit[:12], expected=f"a branch of {repository}", hint="git push"
        )
    return commit, repository


def dvc_config() -> str:
    """Return the settings of DVC's default remote as text for the nodes' .dvc/config.local, without secrets.

    Raises:
        UserError: there is no default remote.
    """
    remote = default_remote()
    if "url" not in remote:
        raise UserError(
            "dvc",
            "has no default remote, but needs one to transfer data and results",
            hint="dvc remote add --default NAME URL, with a URL that the nodes reach too: docs/team.md",
        )
    refuse_password(remote["url"], "DVC's remote")
    if "://" not in remote["url"]:  # relative to .dvc, which lies elsewhere on the nodes
        remote["url"] = str((Path(".dvc") / remote["url"]).resolve())
    lines = [f"{key} = {value}" for key, value in remote.items() if key in _PLAIN]
    name = remote["name"]
    return "\n".join(["[core]", f"remote = {name}", f"['remote \"{name}\"']", *lines, ""])


def tracking_uri(environment: Mapping[str, str]) -> str:
    """Return the address of MLflow's server for the jobs.

    Raises:
        UserError: it is a database of this machine, or has a password in it.
    """
    uri = environment.get("MLFLOW_TRACKING_URI", "")
    if not uri or uri.startswith(("sqlite", "file")) or "://" not in uri:
        raise UserError(
            "MLFLOW_TRACKING_URI",
            "names no server, and nodes cannot write to a file of this machine",
            found=uri or "nothing: the default is mlflow.db in this folder",
            expected="http://SERVER:5000",
            hint="start a server (docs/team.md) and export its address",
        )
    refuse_password(uri, "MLFLOW_TRACKING_URI")
    return uri


def states_url(options: EngineOptions) -> None:
    """Check the URL for states, if there is one, by asking for a file there.

    Raises:
        UserError: it has a password in it, cannot be used here, or does not answer.
    """
    if options.states:
        refuse_password(options.states, "engine.yaml: states")
        try:
            RemoteStates(options.states).get(Path("nothing"))
        except (OSError, ImportError, ValueError) as error:
            raise UserError(
                "engine.yaml: states",
                "cannot be read from here",
                found=error,
                expected="a URL such as s3://BUCKET/FOLDER that nodes reach too (pip install 'fcos[s3]')",
            ) from None


def shared_scratch(options: EngineOptions) -> Path:
    """Return the folder that all nodes share.

    Raises:
        UserError: it does not exist, is relative, or cannot be written.
    """
    folder = options.shared
    if folder.is_absolute() and folder.parent.is_dir():
        with contextlib.suppress(OSError):
            folder.mkdir(exist_ok=True)
    if not folder.is_absolute() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UserError(
            "engine.yaml: scratch",
            "is not a writable folder on this machine",
            found=options.scratch,
            expected="an absolute path that means the same folder on this machine and on all nodes",
            hint=f"correct it, or make the folder: mkdir -p {options.scratch}",
        )
    return folder


def refuse_password(address: str, what: str) -> None:
    """Raise an error if an address holds a password, which would be written into the files of the jobs."""
    if has_password(address):
        raise UserError(
            what,
            "has a password or a token in its address, which would be written into files of the jobs",
            found=without_password(address),
            hint="remove it, and pass it to the nodes with `secrets:` in engine.yaml or a credential helper",
        )


def _contains(tip: str, commit: str) -> bool:
    command = ["git", "merge-base", "--is-ancestor", commit, tip]  # fails if the tip is not in this clone
    return tip == commit or subprocess.run(command, capture_output=True, check=False).returncode == 0
