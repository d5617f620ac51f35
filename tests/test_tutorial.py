"""docs/tutorial.md: its commands run as written, except for the length of training, in a new project."""

import os
import re
import subprocess

import pytest
import yaml
from conftest import ROOT
from project_helpers import copy_project

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick")]


def commands():
    text = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    return re.findall(r"^```bash\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


def test_the_tutorial_s_commands_lead_from_a_folder_to_a_report(tmp_path):
    copy_project(tmp_path, (ROOT / "studies" / "shapes.yaml").read_text())
    script = "\n".join(commands())
    assert "--epochs 20" in script
    said = type_in(tmp_path, script.replace("epochs 20", "epochs 1").replace("-e20-", "-e1-"))
    for line in (
        "found    YOLO",
        "train: 40 images, 84 objects",
        "test: 20 images, 43 objects",
        "objects with a score of 0.3 or more",
    ):
        assert line in said
    assert yaml.safe_load((tmp_path / "params.yaml").read_text())["study"] == "toys"
    report = (tmp_path / "reports" / "toys" / "index.html").read_text(encoding="utf-8")
    assert "resnet18-e1-c3" in report and "resnet34-e1-c3" in report
    assert len(list((tmp_path / "detections").glob("*.png"))) == 20


def type_in(folder, script):
    """Run bash with this environment's programs and the code in `folder`, without network access; return the output."""
    env = {**os.environ, "PYTHONPATH": str(folder), "TORCH_HOME": str(folder / "torch")}
    done = subprocess.run(
        ["bash", "-euo", "pipefail"], input=script, capture_output=True, text=True, cwd=folder, env=env, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
