"""The key of weight selection, for trainings that keep the best weights or stop early."""

from fcos.config.test import TestConfig
from fcos.files import code_digests, sha256_json

# The code that the validator runs in addition to the training code; `make deps` writes this list.
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
    "study/predictor.py",
    "study/selection.py",
    "study/validator.py",
)


def selection_key(images_digest: str, test: TestConfig) -> str:
    """Return a digest of everything that determines which weights are kept: images, boxes, test settings and code."""
    return sha256_json([images_digest, test.settings(), code_digests(SELECTION_CODE)])
