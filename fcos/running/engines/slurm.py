"""SLURM: one requeueable batch job for each run, by sbatch, squeue and scancel (seen with 22.05)."""

import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from fcos.errors import UserError
from fcos.files import write_text
from fcos.running.engines.options import EngineOptions
from fcos.running.engines.protocol import DONE, FAILED, QUEUED, RUNNING, EngineSilent, Job, JobState

_COMMANDS = ("sbatch", "squeue", "scancel")
GRACE_S = 60  # before the time limit, for a training to save its state
# Variables that every job gets besides those that the user exports; SLURM adds the rest of a login.
_ALWAYS = ("HOME", "USER", "LANG")
_STATES = {
    **dict.fromkeys(("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD"), QUEUED),
    **dict.fromkeys(("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"), RUNNING),
    "PREEMPTED": QUEUED,
    "COMPLETED": DONE,
}
_FIELDS = "Name:200,JobID:20,State:30,NodeList:100,RestartCnt:10,exit_code:20,Reason:100"
_WIDTHS = [int(field.partition(":")[2]) for field in _FIELDS.split(",")]


class SlurmEngine:
    """Jobs of this user, found by their names, also after they have ended, as long as SLURM remembers them."""

    name = "slurm"
    poll_s = 2.0

    def __init__(self, options: EngineOptions) -> None:
        self.options = options
        for command in _COMMANDS:
            if shutil.which(command) is None:
                raise _missing(command)

    def submit(self, job: Job) -> None:
        """Write the batch script and hand it to sbatch."""
        script = job.folder / "slurm.sh"
        # `exec`, so that SLURM's signals reach the job itself and not a shell.
        write_text(script, f"#!/bin/sh\nexec {shlex.join(job.command)}\n")
        _run(
            "sbatch",
            f"--job-name={job.name}",
            f"--output={job.log}",
            "--open-mode=append",
            "--requeue",
            f"--signal=B:TERM@{GRACE_S}",
            f"--cpus-per-task={self.options.threads}",
            f"--export={','.join([*_ALWAYS, *self.options.exports])}",
            *self.options.slurm,
            str(script),
        )

    def states(self, jobs: Sequence[Job]) -> Mapping[str, JobState]:
        """Return the states in squeue; of several jobs of one name, the last one submitted counts."""
        of_name = {job.name: job.run_name for job in jobs}
        listed = sorted(map(_fields, self._squeue(of_name)), key=lambda fields: int(fields[1]))
        return {of_name[name]: _state(*about) for name, _, *about in listed if name in of_name}

    def cancel(self, jobs: Sequence[Job]) -> None:
        """Cancel the jobs; SLURM sends SIGTERM, and SIGKILL after its KillWait."""
        for job in jobs:
            _run("scancel", "--me", f"--name={job.name}")

    def log(self, job: Job) -> Path:
        """Return the file that sbatch was told to write."""
        return job.log

    @staticmethod
    def _squeue(names: Mapping[str, str]) -> list[str]:
        try:
            said = _run("squeue", "--me", "--noheader", "--states=all", f"--name={','.join(names)}", "-O", _FIELDS)
        except UserError as error:
            raise EngineSilent(str(error.found)) from None
        return [line for line in said.splitlines() if line.strip()]


def _fields(line: str) -> list[str]:
    """Return the columns of squeue, whose widths are fixed since a reason may hold any character."""
    fields, at = [], 0
    for width in _WIDTHS:
        fields.append(line[at : at + width].strip())
        at += width
    return fields


def _state(state: str, node: str, restarts: str, code: str, reason: str) -> JobState:
    known = _STATES.get(state.partition("+")[0], FAILED)
    why = None
    if known == QUEUED and reason not in ("", "None"):
        why = reason
    elif known == FAILED:
        why = f"exit code {int(code) >> 8 if code.isdigit() else code}" if state == "FAILED" else state.lower()
    return JobState(known, node or None, int(restarts) if restarts.isdigit() else 0, why)


def _missing(command: str) -> UserError:
    hint = "run this on a machine with SLURM's commands, or omit --engine to train here"
    return UserError("--engine slurm", "this machine has no such command", found=command, hint=hint)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, errors="replace")
    if done.returncode:
        said = (done.stderr or done.stdout).strip() or f"exit code {done.returncode}"
        hint = "check the sbatch options under `slurm:` in engine.yaml"
        raise UserError(f"slurm: {command[0]}", "failed", found=said, hint=hint)
    return done.stdout
