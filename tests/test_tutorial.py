"""docs/tutorial.md: its commands are typed as they stand there, but for the length of training, in a new project."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from test_pipeline import call, tracked_files

pytestmark = pytest.mark.slow


def commands():
    text = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    return re.findall(r"^```bash\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


def test_the_tutorial_s_commands_lead_from_a_folder_to_a_report(tmp_path):
    for name in tracked_files():
        if not name.endswith(".lock") and not name.startswith("reports"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / name)
    for command in (["git", "init", "-q"], ["git", "add", "-A"], ["git", "commit", "-qm", "start"]):
        call(tmp_path, *command)
    script = "\n".join(commands())
    assert "--epochs 20" in script
    said = type_in(tmp_path, script.replace("epochs 20", "epochs 1").replace("-e20-", "-e1-"))
    for line in (
        "found    YOLO",
        "train: 40 pictures, 84 objects",
        "test: 20 pictures, 43 objects",
        "objects with a score of 0.3 or more",
    ):
        assert line in said
    assert yaml.safe_load((tmp_path / "params.yaml").read_text())["study"] == "toys"
    report = (tmp_path / "reports" / "toys" / "index.html").read_text(encoding="utf-8")
    assert "resnet18-e1-c3" in report and "resnet34-e1-c3" in report
    assert len(list((tmp_path / "detections").glob("*.png"))) == 20


def type_in(folder, script):
    """Run bash with this environment's programs and the code in `folder`, without any network; what is said."""
    unset = ("DVC_ROOT", "DVC_STAGE", "MLFLOW_TRACKING_URI")
    env = {key: value for key, value in os.environ.items() if key not in unset}
    env |= {"PATH": f"{Path(sys.executable).parent}:{env['PATH']}", "PYTHONPATH": str(folder)}
    env |= {"TORCH_HOME": str(folder / "torch"), "https_proxy": "http://127.0.0.1:9", "DVC_NO_ANALYTICS": "true"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail"], input=script, capture_output=True, text=True, cwd=folder, env=env, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
