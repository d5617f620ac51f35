"""pycocotools without its output: the reference that the COCO metrics are compared with."""

import contextlib
import io

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def coco_eval(truth, found):
    """The whole evaluation of two COCO objects."""
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def coco_eval_of_files(gt, detections):
    """Evaluate as a user of pycocotools does: two files and loadRes."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(gt))
        found = truth.loadRes(str(detections))
    return coco_eval(truth, found)
