"""A real SLURM cluster of two nodes on this machine, from Debian's packages, in a folder of its own."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import free_ports, wait_until

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel")
NODES = ("n1", "n2")


class Slurm:
    """A cluster: its daemons, and the environment in which its commands find it."""

    node_variable = "SLURMD_NODENAME"
    options = {}

    def __init__(self, folder):
        self.folder = folder
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf")}
        self.daemons = {}

    def start(self):
        """Write the configuration and start the daemons; return when both nodes are idle."""
        controller, *nodes = free_ports(1 + len(NODES))
        for name in ("state", "munge", *NODES):
            (self.folder / name).mkdir(mode=0o700)
        socket_path, key = self.folder / "munge" / "socket", self.folder / "munge" / "key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o400)
        lines = [
            "ClusterName=test",
            f"SlurmctldHost={socket.gethostname()}(127.0.0.1)",
            f"SlurmctldPort={controller}",
            "SlurmUser=root",
            "AuthType=auth/munge",
            f"AuthInfo=socket={socket_path},cred_expire=5",  # timeout for a lost node's job; 120 s by default
            "CredType=cred/munge",
            "ProctrackType=proctrack/pgid",
            "TaskPlugin=task/none",
            "JobAcctGatherType=jobacct_gather/none",
            "SelectType=select/cons_tres",
            "SelectTypeParameters=CR_Core_Memory",
            "SlurmdParameters=config_overrides",
            "SchedulerParameters=requeue_delay=1,bf_interval=1,sched_interval=1",
            "SlurmdTimeout=10",
            "MinJobAge=3600",
            "KillWait=30",
            "JobRequeue=1",
            "ReturnToService=2",
            "MpiDefault=none",
            f"StateSaveLocation={self.folder}/state",
            f"SlurmctldPidFile={self.folder}/slurmctld.pid",
            f"SlurmdPidFile={self.folder}/slurmd-%n.pid",
            f"SlurmdSpoolDir={self.folder}/%n",
            f"SlurmctldLogFile={self.folder}/slurmctld.log",
            f"SlurmdLogFile={self.folder}/slurmd-%n.log",
            *(
                f"NodeName={name} NodeHostname={socket.gethostname()} NodeAddr=127.0.0.1 Port={port} CPUs=1 "
                "RealMemory=4000"
                for name, port in zip(NODES, nodes, strict=True)
            ),
            f"PartitionName=all Nodes={','.join(NODES)} Default=YES MaxTime=INFINITE State=UP",
        ]
        (self.folder / "slurm.conf").write_text("\n".join(lines) + "\n")
        pid, log = self.folder / "munge" / "pid", self.folder / "munge" / "log"
        self._daemon(
            "munged",
            "--foreground",
            "--force",
            f"--socket={socket_path}",
            f"--key-file={key}",
            f"--pid-file={pid}",
            f"--log-file={log}",
            f"--seed-file={self.folder}/munge/seed",
            "--num-threads=2",
        )
        wait_until(socket_path.exists, self.daemons["munged"])
        self._daemon("slurmctld", "-D")
        self.start_nodes()

    def start_nodes(self):
        """Start the nodes that are not running, and return when both are idle."""
        for name in NODES:
            if name not in self.daemons or self.daemons[name].poll() is not None:
                self._daemon("slurmd", "-D", "-N", name, as_name=name)
        wait_until(lambda: self.node_states() == {"IDLE": len(NODES)}, self.daemons["slurmctld"])

    def _daemon(self, program, *arguments, as_name=None):
        with (self.folder / f"{as_name or program}.out").open("w") as stream:
            self.daemons[as_name or program] = subprocess.Popen(
                [shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin"), *arguments],
                env={**os.environ, **self.environment},
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd="/",
            )

    def ask(self, *command):
        return subprocess.run(command, env={**os.environ, **self.environment}, capture_output=True, text=True).stdout

    def node_states(self):
        """Return the number of nodes in each state."""
        states = self.ask("sinfo", "-h", "-N", "-o", "%T").upper().split()
        return {state: states.count(state) for state in states}

    def kill_node(self, name):
        """Stop a node as in a failure of its power or network, without a message to the controller."""
        os.killpg(self.daemons[name].pid, signal.SIGKILL)

    def stop(self):
        self.ask("scancel", "--signal=KILL", "--full", "--user=root")
        for process in self.daemons.values():
            if process.poll() is None:
                process.terminate()
        for process in self.daemons.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def slurm(folder):
    missing = [name for name in PROGRAMS if not shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")]
    if missing or os.getuid():
        pytest.skip(f"no SLURM: {', '.join(missing) or 'its daemons here need root'} (make engines)")
    cluster = Slurm(Path(folder))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
