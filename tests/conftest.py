"""Shared fixtures, and isolation of each test from the machine, its user and the other tests."""

import contextlib
import gc
import os
import re
import secrets
import shutil
import socket
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import yaml
from playwright.sync_api import expect, sync_playwright
from quick_fcos import quick_fcos
from xdist.scheduler import LoadScopeScheduling

from fcos.running.jobs import usable_cores

ROOT = Path(__file__).resolve().parent.parent
REAL_DATA = ROOT.parent / "shared" / "data"
READY_MADE = ("coco2017", "shapes", "smoke", "voc2007", "voc2007-seeds")  # the tester's clone may have more
# A wait ends with the state that it waits for; this only keeps a fault from lasting for ever.
LIMIT_S = 300.0
expect.set_options(timeout=1000 * LIMIT_S)

# Variables of a user, a git hook or a CI system that change what programs do or print.
FOREIGN = re.compile(
    r"(DVC|MLFLOW|GIT|MPL|TQDM|CLICOLOR|TTY|CONDA|XDG_\w+_HOME|TORCH_HOME|VIRTUAL_ENV|PYTHONWARNINGS|SOURCE_DATE_EPOCH"
    r"|NO_COLOR|FORCE_COLOR|PY_COLORS|GITHUB_ACTIONS|\w+_proxy)",
    re.IGNORECASE,
)
OWN = {
    "DVC_NO_ANALYTICS": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GIT_CONFIG_NOSYSTEM": "1",
    "COLUMNS": "100",
    # Nothing listens at these addresses, so that no test reaches beyond this machine.
    "http_proxy": "http://127.0.0.1:9",
    "https_proxy": "http://127.0.0.1:9",
    "no_proxy": "127.0.0.1,localhost",
}
# The checkout may belong to a user other than the one who runs the tests.
GIT_CONFIG = "[user]\nname = Tests\nemail = tests@example.org\n[safe]\ndirectory = *\n"


@pytest.hookimpl(trylast=True)  # pytest has already read the user's colour settings
def pytest_configure(config):
    """Set an environment and a home folder for the tests, which xdist's workers and all child processes inherit."""
    if hasattr(config, "workerinput"):
        return
    home = Path(tempfile.mkdtemp(prefix="fcos-tests-"))
    config.add_cleanup(lambda: shutil.rmtree(home, ignore_errors=True))
    (home / ".gitconfig").write_text(GIT_CONFIG)
    for name in filter(FOREIGN.match, list(os.environ)):
        del os.environ[name]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    os.environ.update(OWN, HOME=str(home), PATH=path, DVC_SITE_CACHE_DIR=str(home / "dvc"))
    os.environ["DVC_SYSTEM_CONFIG_DIR"] = str(home / "none")


def pytest_xdist_auto_num_workers():
    """Return three workers for two cores, as far as the memory allows.

    A test waits for other processes, locks and pages a third of its time; a worker with all that it starts takes 4 GB.
    """
    return max(1, min((3 * usable_cores() + 1) // 2, psutil.virtual_memory().total // 4_000_000_000))


def pytest_collection_finish():
    """Collect garbage less often: going through torch's and MLflow's million objects takes a twelfth of the time."""
    gc.set_threshold(50_000, 20, 50)


# The files that take longest, longest first: none of them may be the last one to start, while the other workers idle.
LONGEST = (
    "done_once", "distributed", "reporting", "pipeline", "source", "any_folder", "results_rows", "status", "numerics",
    "tracking", "docs", "demo", "validation", "benchmarks", "training", "tutorial", "project", "damaged_files",
    "real_data", "commands", "against_torchvision", "study_of_results", "errors", "export", "start_weights", "cache",
)  # fmt: skip


# Files of long tests that share no fixture: each of their tests is given to the next worker that is free.
SPREAD = ("any_folder", "numerics")


class ByFile(LoadScopeScheduling):
    """One worker runs all tests of a file, which share fixtures, except for those of `SPREAD`."""

    def _split_scope(self, nodeid):
        file = nodeid.partition("::")[0]
        return nodeid if Path(file).stem.removeprefix("test_") in SPREAD else file


@pytest.hookimpl(optionalhook=True)  # xdist may be disabled
def pytest_xdist_make_scheduler(config, log):
    """Return our own scheduler: with pytest 9.2, xdist's `loadgroup` sees no group."""
    return ByFile(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Run the longest files first; the others keep their random order."""
    place = {f"test_{name}.py": number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


@pytest.fixture(autouse=True)
def _apart(tmp_path, monkeypatch):
    """Run each test in an empty folder instead of the user's checkout, and restore the environment after it."""
    monkeypatch.chdir(tmp_path)
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture(scope="session")
def quick_path():
    """Return a search path for commands with which the stages of DVC start without import time."""
    with quick_fcos(Path(tempfile.mkdtemp(dir=os.environ["HOME"]))) as path:
        yield path


@pytest.fixture
def quick(quick_path, monkeypatch):
    monkeypatch.setenv("PATH", quick_path)


@pytest.fixture
def smoke_params():
    """Return the smoke study as plain data, which a test may change."""
    return yaml.safe_load((ROOT / "studies" / "smoke.yaml").read_text())


@pytest.fixture
def workspace(tmp_path, smoke_params):
    """Return an empty project folder with the smoke study as params.yaml, and make it the current folder."""
    write_params(smoke_params)
    Path("studies").mkdir()
    for name in READY_MADE:
        shutil.copy(ROOT / "studies" / f"{name}.yaml", "studies")
    return tmp_path


@dataclass
class Done:
    """The result of a command line."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run(monkeypatch, capsys):
    """Call the command line in this process; return exit code, standard output and standard error."""
    import fcos.cli

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["fcos", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            fcos.cli.main()
        out, err = capsys.readouterr()
        return Done(ended.value.code or 0, out, err)

    return call


def assert_mistake(done, *parts):
    """Check that there is exit code 2, one message on standard error, and no traceback."""
    assert done.returncode == 2, done.stderr
    assert "\nerror: " in f"\n{done.stderr}" and "Traceback" not in done.stderr
    assert done.stderr.count("error: ") == 1
    for part in parts:
        assert part in done.stderr


def wait_until(condition, process=None):
    """Wait until `condition()` is true and return its value; fail if `process`, which should cause it, ends first."""
    until = time.monotonic() + LIMIT_S
    while True:
        ended = process is not None and process.poll() is not None
        if found := condition():
            return found
        assert not ended, f"ended with {process.returncode}: {process.communicate()}"
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)


def free_ports(count):
    """Return free ports of loopback that no other test gets, and no program that asks the system for any port."""
    ports = []
    while len(ports) < count:
        port = secrets.choice(range(20_000, 32_768))
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            (Path(os.environ["HOME"]) / f"port-{port}").touch(exist_ok=False)
            ports.append(port)
    return ports


@pytest.fixture(scope="session")
def chromium():
    """Start Debian's headless chromium; with FCOS_NEEDS_BROWSER=1 (CI) its absence is an error."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        assert not os.environ.get("FCOS_NEEDS_BROWSER"), "no chromium is installed"
        pytest.skip("no chromium: apt-get install chromium")
    # Otherwise Chromium contacts its maker's hosts at every start.
    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=[*quiet, "--no-sandbox"], timeout=1000 * LIMIT_S
        )
        yield browser
        browser.close()


@pytest.fixture
def page(chromium):
    """Return a page in a new window; the test fails if the page logs an error or requests another host."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(1000 * LIMIT_S)
    page = context.new_page()
    errors, asked = [], []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda said: errors.append(said.text) if said.type in ("error", "warning") else None)
    page.on("request", lambda request: asked.append(request.url))
    yield page
    context.close()
    assert errors == []
    near = ("file:", "data:", "blob:", "http://127.0.0.1:")
    assert [url for url in asked if not url.startswith(near)] == []


def write_params(params):
    Path("params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


class Watcher:
    """An observer that records what it receives."""

    def __init__(self):
        self.run, self.key, self.seen = None, None, []

    def started(self, *, run_name, key):
        self.run, self.key = run_name, key

    def rows(self, rows):
        self.seen += rows


class Stopper(Watcher):
    """An observer that kills the training after a number of steps."""

    def __init__(self, after):
        super().__init__()
        self.after = after

    def rows(self, rows):
        super().rows(rows)
        if len(self.seen) >= self.after:
            raise KeyboardInterrupt


def forget_trainings():
    """Delete the stored finished trainings of smoke, so that the same training is not restored."""
    shutil.rmtree("runs/smoke/.scratch", ignore_errors=True)
