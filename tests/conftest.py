"""What several test files share."""

import shutil
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
REAL_DATA = ROOT.parent / "shared" / "data"


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
