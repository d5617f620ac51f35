"""JSON files that tests write and read."""

import json
from pathlib import Path


def write(path, value):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(value))


def read(path):
    return json.loads(Path(path).read_text())
