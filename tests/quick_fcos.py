"""`fcos` and `dvc` without import time: forked from a process that imported torch, MLflow and DVC (saves 12 s a stage).

For tests of what stages do; what is signalled or killed is the real command. This file is both sides: `python
quick_fcos.py SOCKET PYTHON` waits there, and the `python`, `fcos` and `dvc` that `quick_fcos` writes ask it.
"""

import atexit
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

DVC = (
    "dvc.cli.parser", "dvc.data_cloud", "dvc.lock", "dvc.repo.commit", "dvc.repo.reproduce", "dvc.repo.status",
    "dvc.rwlock", "dvc.stage.serialize", "scmrepo.git", "networkx",
)  # fmt: skip
HEAVY = ("mlflow.pyfunc", "mlflow.store.tracking.sqlalchemy_store", "mlflow.store.model_registry.sqlalchemy_store")
TOOLS = ("fcos", "dvc")
# It hands its arguments, folder, environment and streams over, and ends as what it asked for ends.
CLIENT = """\
#!{python} -IS
import json, os, socket, sys

command = [os.path.basename(sys.argv[0]), *sys.argv[1:]]
if command[:2] == ["python", "-m"] and command[2] in {tools!r}:
    command = command[2:]
if command[0] == "python":
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
with socket.socket(socket.AF_UNIX) as server:
    server.connect({path!r})
    socket.send_fds(server, [b"."], [0, 1, 2])
    server.sendall(json.dumps([command, os.getcwd(), dict(os.environ)]).encode())
    server.shutdown(socket.SHUT_WR)
    sys.exit(int(server.recv(16) or 1))
"""


@contextmanager
def quick_fcos(folder: Path):
    """Yield a search path with these three commands, which work until the block ends."""
    path, client = folder / "socket", folder / "bin" / "python"
    client.parent.mkdir()
    client.write_text(CLIENT.format(python=sys.executable, path=str(path), tools=TOOLS))
    client.chmod(0o755)
    for tool in TOOLS:
        client.with_name(tool).symlink_to(client)
    command = [sys.executable, __file__, str(path), str(client)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"})
    try:
        assert server.stdout.readline() == b"ready\n"
        yield f"{client.parent}{os.pathsep}{os.environ['PATH']}"
    finally:
        server.kill()
        server.communicate()


def wait_for_commands(path: str) -> None:
    """Fork for each command; this returns only in the child process, which runs the command."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        print("ready", flush=True)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children are not waited for
        while True:
            connection, _ = server.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                server.close()
                return answer(connection)
            connection.close()


def answer(connection: socket.socket) -> None:
    """Fork once more, tell the client how the command ended, and kill it if the client is gone."""
    _, streams, _, _ = socket.recv_fds(connection, 1, 3)
    with connection.makefile("rb") as stream:
        arguments, folder, environment = json.load(stream)
    if command := os.fork():
        end = os.pidfd_open(command)
        poll = select.poll()
        poll.register(end, select.POLLIN)
        poll.register(connection, 0)  # a closed connection is always reported
        if end not in dict(poll.poll()):
            os.kill(command, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(command, 0)[1])
        if connection.fileno() not in dict(poll.poll(0)):
            connection.sendall(str(code if code >= 0 else 128 - code).encode())
        os._exit(0)
    connection.close()
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = arguments


def serve(path: str, client: str) -> None:
    import dvc.cli

    import fcos.cli

    modules = [module.name for module in pkgutil.walk_packages(fcos.__path__, "fcos.") if "__main__" not in module.name]
    for name in (*HEAVY, *DVC, *modules):
        importlib.import_module(name)
    assert threading.active_count() == 1  # a fork keeps only one thread
    gc.freeze()  # garbage collection would write to the shared pages
    wait_for_commands(path)
    sys.executable = client  # its child processes start as fast
    try:
        if sys.argv[0] == "dvc":
            sys.exit(dvc.cli.main())
        fcos.cli.main()
    except SystemExit as ended:
        code = ended.code
    for thread in set(threading.enumerate()) - {threading.current_thread()}:
        if not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(int(code or 0))  # tearing down all modules would take longer than most commands


if __name__ == "__main__":
    serve(*sys.argv[1:])
