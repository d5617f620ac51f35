"""Prediction from files on disk to detections: ours against torchvision's FCOS, ResNet-18.

    python benchmarks/prediction.py --out FILE [--images FOLDER]

torchvision's runs in float32 one image at a time, as the study did, in the batch that is best for it, and in that
batch given our number format and memory layout. Without --images, JPEG files of 640 x 480 are drawn.
"""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from networks import torchvisions
from PIL import Image
from side_by_side import device_named, in_turn, line, parser, write_report
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from training_step import MODEL, format_of, name_of

from fcos.config.runs import Run
from fcos.config.test import TestConfig
from fcos.config.train import TrainConfig
from fcos.data.coco import CocoSplit
from fcos.data.dataset import DetectionDataset, load_ahead
from fcos.data.images import resized_size
from fcos.data.transforms import View
from fcos.detections import Candidates
from fcos.evaluation.scoring import detect_all
from fcos.model.device import autocast, find_dtype, find_memory_format
from fcos.study.build import build_model
from fcos.study.predictor import build_predictor

NUM_CLASSES = 20
BATCH_SIZES = (4, 8, 16)
CANDIDATES = 200  # boxes per image before NMS, of a trained network at the study's threshold


def main() -> None:
    options = parser(__doc__, repetitions=5)
    options.add_argument("--images", type=Path, help="a folder of JPEG files")
    options.add_argument("--number", type=int, default=32)
    options.add_argument("--workers", type=int, default=2)
    options.add_argument(
        "--size", type=int, nargs=2, default=[480, 640], help="of the shorter side, most of the longer"
    )
    options.add_argument("--device", type=device_named, default="cpu", metavar="{cpu,cuda}")
    arguments = options.parse_args()
    device = arguments.device
    dtype = find_dtype("auto", device)
    layout = find_memory_format(device, dtype)
    run = Run(
        study="bench", name="resnet18", backbone="resnet18", num_convs=3, epochs=1, seed=0, checkpoint=None,
        role=None, model=MODEL, train=TrainConfig(),
    )  # fmt: skip
    size, max_size = arguments.size
    test = TestConfig(size=size, max_size=max_size, score_threshold=0.0, workers=arguments.workers)
    with tempfile.TemporaryDirectory() as folder:
        files = find_files(arguments.images, arguments.number) or draw_files(Path(folder), arguments.number)
        test = test.model_copy(update={"score_threshold": usual_threshold(run, test, files, device, dtype)})
        ours = our_prediction(run, test, files, device, dtype)
        theirs = [their_prediction(run, test, files, device, torch.float32, batch) for batch in (1, *BATCH_SIZES)]
        trial = in_turn({str(b): p for b, p in zip((1, *BATCH_SIZES), theirs, strict=True)}, 1, label="best batch")
        best = min((1, *BATCH_SIZES), key=lambda size: trial[str(size)][0])
        programs = {
            "ours": ours,
            "single": theirs[0],
            "best": theirs[(1, *BATCH_SIZES).index(best)],
            "given": their_prediction(run, test, files, device, dtype, best, memory_format=layout),
        }
        seconds = in_turn(programs, arguments.repetitions, label="prediction")
    what = f"prediction of {len(files)} files, resnet18"
    gpu = device.type == "cuda"
    target = 4.0 if gpu else 2.0
    lines = [
        line(what, seconds["ours"], seconds["single"], peer="torchvision, float32, batch 1", target=target),
        line(what, seconds["ours"], seconds["best"], peer=f"torchvision, float32, batch {best}", target=target),
        line(
            what,
            seconds["ours"],
            seconds["given"],
            peer=f"torchvision, {format_of(device, dtype)}, batch {best}",
            target=1.2,
        ),
    ]
    write_report(
        arguments.out,
        "Prediction",
        lines,
        dtype=name_of(dtype),
        workers=arguments.workers,
        images="from --images" if arguments.images else "drawn",
        candidates=f"about {CANDIDATES} an image",
    )


def find_files(folder: Path | None, number: int) -> list[Path]:
    return [] if folder is None else sorted(folder.glob("*.jpg"))[:number]


def draw_files(folder: Path, number: int) -> list[Path]:
    """Return smooth noise, which compresses about as well as a photograph."""
    generator = np.random.default_rng(0)
    files = []
    for index in range(number):
        small = generator.integers(0, 256, (60, 80, 3), dtype=np.uint8)
        path = folder / f"{index}.jpg"
        Image.fromarray(small).resize((640, 480), Image.Resampling.BICUBIC).save(path, quality=90)
        files.append(path)
    return files


def usual_threshold(run: Run, test: TestConfig, files: list[Path], device: torch.device, dtype: torch.dtype) -> float:
    """Return the score threshold that gives an untrained network a usual number of candidates."""
    some = files[:4]
    candidates = our_candidates(run, test, some, device, dtype)()
    scores = -np.sort(-np.concatenate([of.scores for of in candidates.values()]))
    return float(scores[CANDIDATES * len(some)])


def our_prediction(
    run: Run, test: TestConfig, files: list[Path], device: torch.device, dtype: torch.dtype
) -> Callable[[], Any]:
    candidates = our_candidates(run, test, files, device, dtype)
    return lambda: detect_all(
        candidates(), nms_iou_threshold=test.nms_iou_threshold, max_detections=test.max_detections
    )


def our_candidates(
    run: Run, test: TestConfig, files: list[Path], device: torch.device, dtype: torch.dtype
) -> Callable[[], dict[int, Candidates]]:
    """Return a function that does the work of `fcos predict`, from `files` each time."""
    model = build_model(run, NUM_CLASSES, pretrained=False)
    predictor = build_predictor(model, run, test, device, dtype, graphs=test.cuda_graphs)
    images: list[dict[str, Any]] = []
    for number, path in enumerate(files, start=1):
        with Image.open(path) as image:
            images.append({"id": number, "file_name": path.name, "width": image.width, "height": image.height})
    split = CocoSplit(images, [{"id": k, "name": str(k)} for k in range(1, NUM_CLASSES + 1)], [], files[0].parent)

    views = [View(resized_size((of["height"], of["width"]), test.size, test.max_size)) for of in images]
    batches = [
        list(range(len(files)))[first : first + test.batch_size] for first in range(0, len(files), test.batch_size)
    ]

    def predict() -> dict[int, Candidates]:
        """Run `predict_split` without its warm-up, for which the first round of `in_turn` stands."""
        found: dict[int, Candidates] = {}
        loaded = load_ahead(DetectionDataset(split), batches, workers=test.workers)
        for indices, samples in zip(batches, loaded, strict=True):
            results = predictor(samples, [views[index] for index in indices])
            found |= {sample.image_id: of for sample, of in zip(samples, results, strict=True)}
        return found

    return predict


def their_prediction(
    run: Run,
    test: TestConfig,
    files: list[Path],
    device: torch.device,
    dtype: torch.dtype,
    batch_size: int,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Callable[[], Any]:
    """torchvision's `evaluate()`: its loader with worker processes, its model in evaluation mode."""
    model = torchvisions(run, NUM_CLASSES, test, min_size=test.size, max_size=test.max_size)
    model.to(device, memory_format=memory_format).eval()
    loader: DataLoader[Any] = DataLoader(
        Files(files),
        batch_size=batch_size,
        num_workers=test.workers,
        collate_fn=list,  # type: ignore[arg-type]
    )

    @torch.inference_mode()
    def predict() -> list[Any]:
        found: list[Any] = []
        for images in loader:
            with autocast(device, dtype):
                found += model([image.to(device) for image in images])
        return [{name: tensor.cpu() for name, tensor in of.items()} for of in found]

    return predict


class Files(Dataset[Any]):
    """A data set as in torchvision's reference script: PIL images, converted to float tensors from 0 to 1."""

    def __init__(self, files: list[Path]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        with Image.open(self.files[index]) as image:
            pixels = np.array(image.convert("RGB"))
        return torch.from_numpy(pixels).permute(2, 0, 1).contiguous().float() / 255

    def __iter__(self) -> Iterator[Tensor]:
        return (self[index] for index in range(len(self)))


if __name__ == "__main__":
    main()
