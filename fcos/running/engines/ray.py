"""Ray: a detached actor for each run, which Ray starts again on another node if its own is lost (seen with 2.60)."""

import contextlib
import sys
from collections.abc import Mapping, Sequence
from logging import ERROR
from pathlib import Path
from typing import Any

from fcos.errors import UserError
from fcos.running.engines.options import EngineOptions
from fcos.running.engines.protocol import ENDED, QUEUED, RUNNING, EngineSilent, Job, JobState

NAMESPACE = "fcos"
ANSWER_S = 3.0  # an actor that does not answer within this time waits for room on a node


class Training:
    """The actor of a job. Ray sends this class to the nodes, which need not have fcos: hence the imports inside."""

    def __init__(self, command: Sequence[str], folder: str) -> None:
        """Start the job; Ray calls this once more on another node after this one is lost."""
        import pathlib
        import subprocess
        import threading

        self.folder = pathlib.Path(folder)
        with (self.folder / "started").open("a") as stream:  # one line each time
            stream.write(self.state() + "\n")
        (self.folder / "ended.json").unlink(missing_ok=True)
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, process_group=0)
        threading.Thread(target=self._wait, daemon=True).start()

    def state(self) -> str:
        """Return the node, by the name that its environment gives it or by that of the host."""
        import os
        import socket

        return os.environ.get("FCOS_NODE") or socket.gethostname()

    def cancel(self) -> None:
        """Ask the job to end; its actor ends with it."""
        self.process.terminate()

    def _wait(self) -> None:
        """Free the resources of this actor when the job has ended, whether or not anybody waits for it."""
        import json

        import ray

        code = self.process.wait()
        ended = self.folder / "ended.json"
        if not ended.exists():  # the job ended before it could write the file
            ended.write_text(json.dumps({"code": code, "node": self.state()}))
        ray.kill(ray.get_runtime_context().current_actor, no_restart=True)


class RayEngine:
    """Actors of the cluster at `ray: {address: HOST:PORT}`, known by their names; further keys are actor options."""

    name = "ray"
    poll_s = 2.0

    def __init__(self, options: EngineOptions) -> None:
        try:
            import ray
        except ImportError:
            hint = "pip install 'ray==2.60.*', in this environment and on the nodes"
            raise UserError("--engine ray", "Ray is not installed here", hint=hint) from None
        self.options, self._ray = options, ray
        more = dict(options.ray)
        address = more.pop("address", "auto")
        try:
            ray.init(address, namespace=NAMESPACE, log_to_driver=False, ignore_reinit_error=True, logging_level=ERROR)
        except (ConnectionError, ValueError, RuntimeError) as error:
            hint = "start it (docs/team.md), or correct `ray: {address: HOST:PORT}` in engine.yaml"
            raise UserError("--engine ray", "no cluster answers", found=error, expected=address, hint=hint) from None
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # type: ignore[no-untyped-call]
        self._actor = ray.remote(Training)
        self._more: dict[str, Any] = {"num_cpus": options.threads, **more}

    def submit(self, job: Job) -> None:
        """Start the actor; it waits by itself until a node has room for it."""
        for name in ("started", ENDED):
            (job.folder / name).unlink(missing_ok=True)
        options = {"name": job.name, "lifetime": "detached", "max_restarts": -1, **self._more}
        self._actor.options(**options).remote(job.command, str(job.folder))

    def states(self, jobs: Sequence[Job]) -> Mapping[str, JobState]:
        """Return the states that all actors report; actors that have ended are unknown, and their files tell of their
        end.
        """
        try:
            actors = {job.run_name: actor for job in jobs if (actor := self._find(job))}
            asked = {actor.state.remote(): name for name, actor in actors.items()}
            answered, _ = self._ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_S) if asked else ([], [])
        except (ConnectionError, self._ray.exceptions.RayError) as error:
            raise EngineSilent(str(error)) from None
        requeued = {job.run_name: max(0, _starts(job) - 1) for job in jobs}
        found = {name: JobState(QUEUED, requeued=requeued[name]) for name in actors}
        for reference in answered:
            name = asked[reference]
            try:
                node = self._ray.get(reference)
            except self._ray.exceptions.ActorUnavailableError:
                continue  # it is started again
            except self._ray.exceptions.RayError:
                del found[name]  # it has ended
                continue
            found[name] = JobState(RUNNING, node, requeued=requeued[name])
        return found

    def cancel(self, jobs: Sequence[Job]) -> None:
        """Ask the jobs to end; those that wait for a node are withdrawn."""
        states = self.states(jobs)
        for job in jobs:
            if (state := states.get(job.run_name)) and (actor := self._find(job)):
                if state.state == RUNNING:
                    actor.cancel.remote()
                else:
                    self._ray.kill(actor)

    def log(self, job: Job) -> Path:
        """Return the file that the actor writes."""
        return job.log

    def _find(self, job: Job) -> Any:
        with contextlib.suppress(ValueError):  # no actor of that name
            return self._ray.get_actor(job.name)
        return None


def _starts(job: Job) -> int:
    with contextlib.suppress(OSError):
        return (job.folder / "started").read_text(encoding="utf-8").count("\n")
    return 0
