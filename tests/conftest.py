"""What several test files share."""

import os
import shutil
from pathlib import Path

import pytest
import yaml
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parent.parent
REAL_DATA = ROOT.parent / "shared" / "data"


def pytest_collection_modifyitems(items):
    """The files with slow tests first: at the end nobody waits for one that began last."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture
def smoke_params():
    """The smoke study as plain data, to be changed at will."""
    return yaml.safe_load((ROOT / "studies" / "smoke.yaml").read_text())


@pytest.fixture
def workspace(tmp_path, monkeypatch, smoke_params):
    """An empty project folder with the smoke study as params.yaml, as the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    write_params(smoke_params)
    shutil.copytree(ROOT / "studies", "studies")
    return tmp_path


@pytest.fixture(scope="session")
def chromium():
    """Debian's chromium, headless; FCOS_NEEDS_BROWSER=1 (CI) makes its absence an error."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        assert not os.environ.get("FCOS_NEEDS_BROWSER"), "no chromium is installed"
        pytest.skip("no chromium: apt-get install chromium")
    # Without these it looks for hosts of its maker at every start.
    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=[*quiet, "--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(chromium):
    """A page in a window of its own; whatever it says in error, or asks of another host, fails the test at its end."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
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
    """An observer that remembers what it saw."""

    def __init__(self):
        self.run, self.key, self.seen = None, None, []

    def started(self, *, run, key):
        self.run, self.key = run, key

    def rows(self, rows):
        self.seen += rows
