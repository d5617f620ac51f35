"""`fcos predict RUN`: run the network once per view and store its candidates (boxes before NMS)."""

import contextlib
import time
from pathlib import Path
from typing import Any, Literal

import torch

from fcos import distributed
from fcos.config.data import DataConfig
from fcos.config.section import parse_section, read_params
from fcos.config.tta import TtaConfig
from fcos.data.cache import keep_images
from fcos.data.dataset import DetectionDataset
from fcos.detections import Candidates
from fcos.errors import UserError, first_difference
from fcos.evaluation.candidates import save_candidates
from fcos.evaluation.predictor import Predictor, Timing, predict_split
from fcos.files import sha256_file, whole_dir
from fcos.formats import write_record
from fcos.model.checkpoint import Identity, check_same_classes, read_identity
from fcos.model.device import device_name, find_device, find_dtype
from fcos.records import Timings
from fcos.study.build import load_model
from fcos.study.predictor import build_predictor
from fcos.study.provenance import provenance
from fcos.study.scored_run import VALIDATION_PREFIX, ScoredRun


def predict(name: str, views: Literal["test", "tta"]) -> None:
    """Write candidates/test.safetensors and timing.json, or candidates_tta/ and timing_tta.json, of a run.

    Views of the validation split are stored beside those of the test split: the test view if there are validation
    images, those of TTA if `tta.choose_on` requests them.
    """
    started = time.time()
    scored = ScoredRun.open(name)
    data: DataConfig = parse_section(read_params(), "data", DataConfig)  # type: ignore[arg-type]
    weights_path = scored.layout.weights(name)
    identity = checked_identity(scored, weights_path)
    with contextlib.ExitStack() as stack:
        device = find_device(scored.test.device)
        number = distributed.number_of(scored.test.devices, device)
        device = stack.enter_context(distributed.joined(number, device, ["predict", name, "--views", views]))
        dtype = find_dtype(scored.test.precision, device)
        dtype_name = str(dtype).removeprefix("torch.")
        model = load_model(scored.run, identity, weights_path)
        predictor = build_predictor(model, scored.run, scored.test, device, dtype, graphs=scored.test.cuda_graphs)
        digest = sha256_file(weights_path)
        suffix = "" if views == "test" else "_tta"
        timings = {}
        # All ranks find the same; the first one writes it.
        first = distributed.rank() == 0
        folder = stack.enter_context(whole_dir(scored.dir / f"candidates{suffix}")) if first else None
        for part, sizes in _passes(scored, views):
            shown = max(sizes.values()), scored.test.max_size
            images = keep_images(part.split, data.cache, device=device, folder=part.layout.decoded, shown=shown)
            dataset = DetectionDataset(part.split, images)
            for view, size in sizes.items():
                header = part.header(weights_sha256=digest, size=size, dtype=dtype_name)
                candidates, timings[view] = _predict_view(predictor, dataset, part, view, header)
                if folder is not None:
                    save_candidates(folder / f"{view}.safetensors", candidates, header)
        devices = distributed.size()
    if not first:
        return
    where = provenance(
        started,
        device=device_name(device),
        devices=devices,
        dtype=dtype_name,
        batch_size=scored.test.batch_size,
        threads=torch.get_num_threads(),
    )
    timed: Timings = {"views": {view: timing.to_json() for view, timing in timings.items()}, "provenance": where}
    write_record(scored.dir / f"timing{suffix}.json", timed)


def checked_identity(scored: ScoredRun, path: Path) -> Identity:
    """Return the identity of the weights at `path`; raises UserError unless run, data and classes fit params.yaml."""
    hint = f"fcos train {scored.run.name}"
    identity = read_identity(path, hint=hint)
    check_same_classes(path, identity.categories, scored.split.categories)
    differs = first_difference(identity.run, scored.run.identity())
    if differs is not None:
        key, found, expected = differs
        raise UserError(
            path, f"was trained with a {key} that differs from params.yaml", found=found, expected=expected, hint=hint
        )
    return identity


def _passes(scored: ScoredRun, views: Literal["test", "tta"]) -> list[tuple[ScoredRun, dict[str, int]]]:
    """Return the passes: the run on a split, and the shorter side of each view by its file name."""
    if views == "test":
        held_out = scored.on_validation()
        of_held_out = [(held_out, {"validation": scored.test.size})] if held_out.split.images else []
        return [(scored, {"test": scored.test.size}), *of_held_out]
    config = parse_section(read_params(), "tta", TtaConfig)
    sizes = config.views
    if config.choose_on is None:
        return [(scored, sizes)]
    chooser = scored.to_choose("tta.choose_on")
    return [(scored, sizes), (chooser, {VALIDATION_PREFIX + view: size for view, size in sizes.items()})]


def _predict_view(
    predictor: Predictor, dataset: DetectionDataset, scored: ScoredRun, view: str, header: dict[str, Any]
) -> tuple[dict[int, Candidates], Timing]:
    return predict_split(
        predictor,
        dataset,
        shorter=header["view"]["size"],
        longest=header["view"]["max_size"],
        batch_size=scored.test.batch_size,
        workers=scored.test.workers,
        description=f"predict {scored.run.name} {view}",
    )
