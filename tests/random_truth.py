"""Random ground truth and results with difficult cases: gaps in ids, ties, crowds, empty images."""

from pathlib import Path

from fcos.data.coco import CocoSplit

SIZES = [(10, 12), (32, 32), (31.5, 32.5), (60, 70), (96, 96), (150, 120)]  # 32 x 32 and 96 x 96: edges of the ranges


def make_truth(rng, *, images=15, crowd=0.15):
    """Return truth that has ids with gaps, images and a class (9) without objects, crowds, and identical boxes."""
    annotations = []
    for image_id in range(3, 3 + 2 * images, 2):
        for _ in range(rng.choice([0, 1, 2, 6])):
            w, h = rng.choice(SIZES)
            box = [rng.randrange(0, 50), rng.randrange(0, 80), w, h]
            for copy in [box] * rng.choice([1, 1, 1, 2]):  # the same box twice: a tie in IoU
                annotations.append(
                    {"id": len(annotations) + 1, "image_id": image_id, "category_id": rng.choice([2, 5]), "bbox": copy,
                     "area": w * h * rng.choice([1, 1, 0.5]), "iscrowd": int(rng.random() < crowd)}
                )  # fmt: skip
    images = [{"id": i, "file_name": f"{i}.png", "width": 200, "height": 200} for i in range(3, 3 + 2 * images, 2)]
    categories = [{"id": i, "name": f"class {i}"} for i in (2, 5, 9)]
    return CocoSplit(images, categories, annotations, Path())


def make_results(rng, split, *, noise=8):
    """Return shifted truth boxes, some exact, and noise, in random order; scores have one decimal, so many are tied."""
    results = []
    for annotation in split.annotations:
        for _ in range(rng.choice([0, 1, 1, 2])):
            x, y, w, h = annotation["bbox"]
            shift = rng.choice([0, 0.05, 0.1, 0.3])
            box = [x + rng.uniform(-shift, shift) * w, y + rng.uniform(-shift, shift) * h, w, h]
            results.append((annotation["image_id"], rng.choice([2, 5, annotation["category_id"]]), box))
    for image in split.images:
        for _ in range(noise):
            w, h = rng.choice(SIZES)
            results.append((image["id"], rng.choice([2, 5, 9]), [rng.randrange(0, 50), rng.randrange(0, 80), w, h]))
    rng.shuffle(results)
    return [{"image_id": i, "category_id": k, "bbox": box, "score": rng.randint(1, 10) / 10} for i, k, box in results]
