"""What a job does in its clone: check the node, have DVC restore or run the stages of one run, and push the results.

DVC's run cache carries everything: prepared data come from the remote, results go there. Its keys name commands,
dependencies and parameters, but not torch, the device, the number format or the number of threads. Those are checked
here, so that no job pushes weights that another machine would not have computed.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fcos.errors import UserError
from fcos.files import read_json, sha256_file, write_json, write_text
from fcos.progress import say
from fcos.running.code_link import refresh_link
from fcos.running.dvc import RESTORE_ONLY, ask_dvc, dvc, dvc_environment
from fcos.running.engines.bootstrap import AGAIN
from fcos.running.engines.node import ask_node
from fcos.running.engines.protocol import CANCELLED, ENDED
from fcos.running.parent import STARTED_BY, this_process
from fcos.running.stages import Stage
from fcos.study.layout import SCRATCH, STATES, Layout

PUSH_TRIES = 12
PUSH_WAIT_S = 5.0  # doubled after each try, up to ten minutes: an hour in all
STOP_S = 50.0  # for the running stage to save its state
MISTAKE = 2


class _Stopped(Exception):
    """The engine wants its node back."""


def main() -> None:
    """Run the job of the file named on the command line; the exit code is 75 if it is to be started again."""
    path = Path(sys.argv[1])
    job = read_json(path, hint="fcos study run")
    signal.signal(signal.SIGTERM, _stop)
    started = time.time()
    code = 1
    try:
        _work(job)
        code = 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        code = MISTAKE
    except _Stopped:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        say("stopped by the engine; the next attempt resumes from the saved state")
        code = AGAIN
    except subprocess.CalledProcessError as error:
        code = error.returncode
    end = {"code": code, "node": node_name(), "started": started, "ended": time.time()}
    with contextlib.suppress(OSError):
        write_json(path.with_name(ENDED), end)
    if code == AGAIN and not path.with_name(CANCELLED).exists():
        _requeue()
    sys.exit(code)


def node_name() -> str:
    """Return the engine's name of this node, or the name that its environment gives it, or that of the host."""
    return os.environ.get("SLURMD_NODENAME") or os.environ.get("FCOS_NODE") or socket.gethostname()


def _stop(*_: object) -> None:
    raise _Stopped


def _requeue() -> None:
    """Ask SLURM to start the job again, unless it ends the job for a reason of its own, as after scancel."""
    if job := os.environ.get("SLURM_JOB_ID"):
        with contextlib.suppress(OSError):
            state = subprocess.run(["squeue", "-h", "-j", job, "-o", "%T"], capture_output=True, text=True, check=False)
            if state.stdout.strip() == "RUNNING":
                subprocess.run(["scontrol", "requeue", job], check=False)


def _work(job: Mapping[str, Any]) -> None:
    say(f"{job['study']} {job['run']} at {job['commit'][:12]} on {node_name()}")
    options = job["options"]
    os.environ |= {"OMP_NUM_THREADS": str(options["threads"]), SCRATCH: job["scratch"], STARTED_BY: this_process()}
    if job["tracking_uri"]:
        os.environ["MLFLOW_TRACKING_URI"] = job["tracking_uri"]
    if options["states"]:
        os.environ[STATES] = options["states"]
    if options["data"]:
        os.environ["FCOS_DATA_ROOT"] = os.path.expandvars(options["data"])
    refresh_link()
    check_node(job)
    write_text(Path(".dvc/config.local"), job["dvc_config"])
    _restore_data(job)
    addresses = [Stage(stage, job["run"]).address for stage in job["stages"]]
    _call(dvc("repro", "--pull", "--single-item", *addresses))
    push(addresses)


def check_node(job: Mapping[str, Any]) -> None:
    """Refuse a node that would compute other weights than the coordinator expects.

    Raises:
        UserError: another torch, device or number format.
    """
    here = ask_node(**job["asked"])
    for name, wanted in job["expected"].items():
        if here[name] != wanted:
            raise UserError(
                f"node {node_name()}",
                f"has a different {name}, which would change the weights; nothing was run",
                found=here[name],
                expected=wanted,
                hint="select equal nodes with the engine's options, or change engine.yaml or the node's environment",
            )


def _restore_data(job: Mapping[str, Any]) -> None:
    """Link the data of this node and restore what the coordinator prepared.

    Raises:
        UserError: the data of this node differ from those of the coordinator.
    """
    layout = Layout(job["study"])
    source, prepare = Stage("source").address, Stage("prepare").address
    write_text(Path("stages/prepare/dvc.lock"), job["prepared"])
    _call(dvc("repro", "--single-item", source))  # the links exist on this node only
    changed, why = ask_dvc()
    _call(dvc("repro", "--pull", "--single-item", prepare), {RESTORE_ONLY: "1"}, fails=False)
    manifest = layout.data / "manifest.json"
    if not manifest.is_file() or sha256_file(manifest) != job["manifest"]:
        differs = (changed or {}).get(prepare) or (changed or {}).get(source) or why or "the prepared data"
        raise UserError(
            f"node {node_name()}",
            "the data differ from the coordinator's, or the remote lacks the prepared data; nothing was run",
            found=differs,
            expected="the same images and annotations",
            hint="copy them to this node, to data.root or to the folder that engine.yaml names as `data`",
        )


def push(addresses: Sequence[str]) -> None:
    """Push the results of stages, trying again for about an hour while the remote does not answer.

    Raises:
        CalledProcessError: the remote never answered; the results stay in the shared scratch.
    """
    wait_s = PUSH_WAIT_S
    for attempt in range(PUSH_TRIES):
        try:
            return _call(dvc("push", "--quiet", "--run-cache", *addresses))
        except subprocess.CalledProcessError:
            if attempt + 1 == PUSH_TRIES:
                raise
            say(f"DVC could not push the results; try {attempt + 2} of {PUSH_TRIES} in {wait_s:.0f} s")
        time.sleep(wait_s)
        wait_s = min(2 * wait_s, 600.0)
    return None


def _call(command: Sequence[str], environment: Mapping[str, str] | None = None, *, fails: bool = True) -> None:
    """Run a command, with `environment` added to that of this process; if this job is stopped, let it save first."""
    with subprocess.Popen(command, env=dvc_environment(environment or {}), process_group=0) as process:
        try:
            code = process.wait()
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(STOP_S)
                os.killpg(process.pid, signal.SIGKILL)
            raise
    if code and fails:
        raise subprocess.CalledProcessError(code, command)


if __name__ == "__main__":
    main()
