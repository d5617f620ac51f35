"""Results of a detector that does not exist."""

import json
import random


def draw_results(annotations, path, seed, *, found=0.8):
    """Write results that find some of the objects, a little beside their places, and some of nothing."""
    dice = random.Random(seed)
    listed = []
    for annotation in annotations:
        x, y, w, h = annotation["bbox"]
        for right in (True, False):
            if dice.random() < (found if right else 0.3):
                moved = [x + dice.gauss(0, 1 if right else 9), y + dice.gauss(0, 1), w, h]
                row = {key: annotation[key] for key in ("image_id", "category_id")}
                listed.append({**row, "bbox": moved, "score": round(dice.random(), 3)})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(listed))
