"""The wheel with its base dependencies alone (`make base`), used outside the clone."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from test_api import found_by, ground_truth

BASE = ROOT / ".venv" / "base" / "bin"
LIMIT_MB = 350  # with bytecode


@pytest.fixture(autouse=True)
def _files():
    """Write small files; with FCOS_NEEDS_BASE=1 (CI) the environment must be there."""
    if not (BASE / "fcos").exists():
        assert not os.environ.get("FCOS_NEEDS_BASE"), "run `make base`"
        pytest.skip("run `make base`")
    Path("gt.json").write_text(json.dumps(ground_truth()))
    for seed in range(2):
        Path(f"{seed}.json").write_text(json.dumps(found_by(seed)))


def call(*command, code=0):
    """Call a command without this environment's modules; return what it printed."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_it_is_light():
    libraries = next((BASE.parent / "lib").glob("python*/site-packages"))
    assert sum(file.lstat().st_size for file in libraries.rglob("*")) < LIMIT_MB * 1e6
    assert not [name for name in ("torch", "dvc", "mlflow", "pandas", "matplotlib") if (libraries / name).exists()]


def test_compare_gives_the_numbers_of_the_clone():
    options = ["--gt", "gt.json", "zero=0.json", "one=1.json", "--replicates", "200", "--html"]
    call(str(BASE / "fcos"), "compare", *options, "--out", "base")
    call(sys.executable, "-m", "fcos", "compare", *options, "--out", "clone")
    names = sorted(path.name for path in Path("base").iterdir())
    of_all = [f"comparison.{end}" for end in ("csv", "html", "json", "md", "svg")]
    assert names == ["class_differences.csv", *of_all, "per_class.csv"]
    for name in names:
        assert (Path("base") / name).read_bytes() == (Path("clone") / name).read_bytes()


def test_the_python_interface():
    code = (
        "import json\n"
        "from fcos import api\n"
        "truth, found = json.load(open('gt.json')), json.load(open('0.json'))\n"
        "result = api.score(truth, found, replicates=0)\n"
        "print(result.to_json()); assert '<table' in result._repr_html_()\n"
        "assert 'against' in str(api.compare(truth, {'a': found, 'b': '1.json'}, replicates=200))\n"
    )
    Path("example.py").write_text(code)
    said = [call(python, "example.py") for python in (str(BASE / "python"), sys.executable)]
    assert said[0] == said[1] and '"AP"' in said[0]


def test_what_needs_an_extra_says_which():
    assert "pip install 'fcos-study[study]'" in call(str(BASE / "fcos"), "init", "mine", code=2)
    shutil.copy(ROOT / "studies" / "smoke.yaml", "params.yaml")
    assert "pip install 'fcos-study[study]'" in call(str(BASE / "fcos"), "train", "one-epoch", code=2)
    assert sorted(path.name for path in Path().iterdir()) == ["0.json", "1.json", "gt.json", "params.yaml"]
    assert call(str(BASE / "fcos"), "--version").startswith("fcos ")
