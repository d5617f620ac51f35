"""`fcos train RUN`: train one run of the study, or import its checkpoint."""

import contextlib
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from fcos import distributed
from fcos.config.data import DataConfig
from fcos.config.runs import Run, find_run, parse_runs
from fcos.config.section import parse_section, read_params
from fcos.data.cache import keep_images
from fcos.data.coco import PREPARE, CocoSplit, read_split
from fcos.data.dataset import DetectionDataset
from fcos.errors import UserError
from fcos.files import in_project, sha256_file, write_csv
from fcos.formats import read_record, write_record
from fcos.model.checkpoint import Identity, save_weights
from fcos.model.device import device_name, find_device, find_dtype
from fcos.progress import say
from fcos.study.assigner import build_assigner
from fcos.study.build import build_model
from fcos.study.importing import import_run
from fcos.study.layout import Layout
from fcos.study.provenance import provenance
from fcos.study.summary import write_summary
from fcos.training.history import COLUMNS, VALIDATION
from fcos.training.key import training_key
from fcos.training.loop import History, Plan, Row, fit, peak_memory_mb
from fcos.training.remote_states import RemoteStates
from fcos.training.resume import Scratch
from fcos.training.validation import Validation, Validator

OUTPUTS = ("model.safetensors", "history.csv", "train.json")


class Observer(Protocol):
    """Receives the progress of a training, which never depends on the observer."""

    def started(self, *, run_name: str, key: str) -> None:
        """Called once before the first step, with the key of the training."""

    def rows(self, rows: Sequence[Row]) -> None:
        """Called with the rows of the steps since the last call."""


def train(
    name: str, observer: Observer | None, validator_of: Callable[[Run, CocoSplit], Validator] | None = None
) -> None:
    """Write model.safetensors, history.csv and train.json of the run `name`.

    Args:
        observer: of the first rank; None for the others.
        validator_of: makes the validator that scores the run during training; called if `train.validate_every` is set.
    """
    params = read_params()
    run = find_run(parse_runs(params), name)
    layout = Layout(run.study)
    split = read_split(layout.data, "train")
    if run.checkpoint is None and not split.images:
        raise UserError(layout.data / "train.json", "there are no training images", hint=PREPARE)
    if run.checkpoint is not None:
        import_run(in_project(run.checkpoint), run, split)
    else:
        data: DataConfig = parse_section(params, "data", DataConfig)  # type: ignore[arg-type]
        validator = None
        if run.train.validate_every is not None:
            assert validator_of is not None
            validator = validator_of(run, split)
        _train(run, split, layout, observer, validator, cache=data.cache)


def _train(
    run: Run, split: CocoSplit, layout: Layout, observer: Observer | None, validator: Validator | None, *, cache: str
) -> None:
    started = time.time()
    config = run.train
    device = find_device(config.device)
    dtype = find_dtype(config.precision, device)
    dtype_name = str(dtype).removeprefix("torch.")
    start = _start_file(run)
    start_digest = None if start is None else sha256_file(start)
    key = training_key(
        run.identity(),
        split.digest,
        torch_version=torch.__version__,
        device_type=device.type,
        dtype=dtype_name,
        start_digest=start_digest,
        validation=validator.key if validator and config.selects else None,
    )
    url = layout.states_url(run.name, key)
    scratch = Scratch(layout.scratch(run.name, key), layout.is_shared, RemoteStates(url) if url else None)
    first = distributed.rank_to_be() == 0
    number = distributed.number_of(config.devices, device)
    command = ["train", run.name]
    with contextlib.ExitStack() as stack:
        if first:
            stack.enter_context(scratch.alone())
        restored = first and scratch.put_back(layout.run(run.name))
        device = stack.enter_context(distributed.joined(1 if restored else number, device, command))
        if distributed.from_first(restored):
            if first:
                _keep_role(layout, run)
                again = f"to retrain, delete {scratch.folder}"
                say(f"{run.name} has already been trained: its files were restored ({again})")
            return
        if observer is not None:
            observer.started(run_name=run.name, key=key)
        assert run.epochs is not None
        shown = max(config.sizes), config.max_size
        model = build_model(run, len(split.categories), pretrained=start or run.model.weights == "imagenet")
        plan = Plan(image_sizes=split.image_sizes, epochs=run.epochs, seed=run.seed, config=config)
        validation = Validation(validator, config, num_epochs=plan.num_epochs)
        history = fit(
            model,
            DetectionDataset(split, keep_images(split, cache, device=device, folder=layout.decoded, shown=shown)),
            build_assigner(run.model),
            plan,
            device=device,
            dtype=dtype,
            scratch=scratch,
            validation=validation,
            on_rows=_ignore if observer is None else observer.rows,
        )
        validated = validation.summary(model, device)
        if not first:
            return
        _write_weights(run, split, layout, model)
        columns = COLUMNS if validator is None else (*COLUMNS, *VALIDATION)
        write_csv(layout.run(run.name) / "history.csv", history.rows, columns)
        write_summary(
            layout,
            run,
            key=key,
            digest=sha256_file(layout.weights(run.name)),
            imported_from=None,
            start_digest=start_digest,
            validation=validated,
            provenance=provenance(
                started,
                device=device_name(device),
                devices=distributed.size(),
                dtype=dtype_name,
                threads=torch.get_num_threads(),
                peak_memory_mb=round(peak_memory_mb(device)),
                **_speed(history, plan),
            ),
        )
        scratch.finish([layout.run(run.name) / name for name in OUTPUTS])


def _write_weights(run: Run, split: CocoSplit, layout: Layout, model: nn.Module) -> None:
    identity = Identity(run=run.identity(), categories=split.categories, data_digest=split.digest, bits=split.bits)
    save_weights(layout.weights(run.name), model.state_dict(), identity)


def _speed(history: History, plan: Plan) -> dict[str, float]:
    """Return what `fcos study plan` needs to know of a training."""
    return {
        "training_seconds": round(history.seconds, 3),
        "images": len(plan.image_sizes) * (1 + int(history.rows[-1]["epoch"])),
        "images_per_s": round(statistics.median(row["images_per_s"] for row in history.rows), 3),
        "mean_pixels": round(plan.mean_pixels(), 1),
    }


def _ignore(_: Sequence[Row]) -> None:
    """Only the first rank reports rows."""


def _start_file(run: Run) -> Path | None:
    """Return the file that the backbone starts from, or None if `model.weights` names none."""
    if run.model.weights_file is None:
        return None
    path = in_project(run.model.weights_file)
    if not path.is_file():
        raise UserError(
            "params.yaml: model.weights",
            "no such file; nothing was changed",
            found=run.model.weights_file,
            expected=f"a torchvision state dict of {run.backbone}, or `imagenet` or `none`",
        )
    return path


def _keep_role(layout: Layout, run: Run) -> None:
    """Update the role of a run in train.json from params.yaml, since no training key contains the role."""
    path = layout.run(run.name) / "train.json"
    summary = read_record(path, hint=f"fcos train {run.name}")
    if summary["role"] != run.role:
        write_record(path, {**summary, "role": run.role})
