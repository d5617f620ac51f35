"""What picks the weights of a training that keeps the best ones, or ends when they grow old."""

from pathlib import Path

import fcos
from fcos.config.test import TestConfig
from fcos.files import sha256_file, sha256_json

PACKAGE = Path(fcos.__file__).parent

# What the validator runs beyond the code of the training; `make deps` writes it.
SELECTION_CODE = (
    "config/test.py",
    "detections.py",
    "evaluation/predictor.py",
    "evaluation/scoring.py",
    "postprocess.py",
    "scoring/average_precision.py",
    "scoring/bootstrap.py",
    "scoring/columns.py",
    "scoring/findings.py",
    "scoring/matching.py",
    "scoring/numbers.py",
    "scoring/protocol.py",
    "scoring/support.py",
    "study/selection.py",
    "study/validator.py",
)


def selection_key(images_digest: str, test: TestConfig) -> str:
    """Digest of all that decides which weights are kept: images and boxes, settings of the test, code."""
    code = {name: sha256_file(PACKAGE / name) for name in SELECTION_CODE}
    return sha256_json([images_digest, test.settings(), code])
