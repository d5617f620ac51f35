"""A real Ray cluster of a head and two nodes on this machine, with one processor each."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import psutil
from conftest import free_ports, wait_until

NODES = ("n1", "n2")


class Ray:
    """A cluster and its processes."""

    node_variable = "FCOS_NODE"

    def __init__(self):
        # The paths of Ray's sockets must be short.
        self.folder = Path(tempfile.mkdtemp(prefix="ray"))
        (port,) = free_ports(1)
        self.address = f"127.0.0.1:{port}"
        # A busy machine takes longer than Ray would wait for its own processes.
        self.environment = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_raylet_start_wait_time_s": "300"}
        self.options = {"ray": {"address": self.address}}
        self.daemons = {}
        self._port = port

    def start(self):
        """Start the head, on which no job runs, and the nodes; return when all are there."""
        head = ["--head", f"--port={self._port}", "--include-dashboard=false", f"--temp-dir={self.folder}"]
        self._daemon("head", *head, "--num-cpus=0")
        self.start_nodes()

    def start_nodes(self):
        """Start the nodes that are not running, and return when both are there."""
        for name in NODES:
            if name not in self.daemons or self.daemons[name].poll() is not None:
                self._daemon(name, f"--address={self.address}", "--num-cpus=1")

    def _daemon(self, name, *arguments):
        command = [Path(sys.executable).with_name("ray"), "start", "--block", "--node-ip-address=127.0.0.1", *arguments]
        log = self.folder / f"{name}.out"
        with log.open("w") as stream:
            self.daemons[name] = subprocess.Popen(
                [*command, "--object-store-memory=80000000", "--disable-usage-stats"],
                env={**os.environ, **self.environment, "FCOS_NODE": name},
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd="/",
            )
        wait_until(lambda: "Ray runtime started" in log.read_text(), self.daemons[name])

    def kill_node(self, name):
        """Kill a node as in a power failure: all processes of Ray there, but not their child processes."""
        os.killpg(self.daemons[name].pid, signal.SIGKILL)

    def stop(self):
        for process in self.daemons.values():
            family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
            for member in family:
                member.kill()
            process.kill()
            process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def ray():
    cluster = Ray()
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
