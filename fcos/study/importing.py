"""Import weights from other sources as the weights of a run."""

import time
from pathlib import Path

from torch import Tensor

from fcos.config.runs import Run
from fcos.data.coco import CocoSplit
from fcos.errors import UserError
from fcos.files import sha256_file, write_csv
from fcos.model.checkpoint import (
    Identity,
    check_same_classes,
    load_weights,
    read_identity,
    read_state_dict,
    save_weights,
)
from fcos.model.convert import from_torchvision, select_classes
from fcos.study.build import build_model
from fcos.study.layout import Layout
from fcos.study.provenance import provenance
from fcos.study.summary import write_summary
from fcos.training.history import COLUMNS


def import_run(source: Path, run: Run, split: CocoSplit) -> None:
    """Import `source` as the weights of `run`, with an empty history."""
    started = time.time()
    layout = Layout(run.study)
    weights_path = layout.weights(run.name)
    import_weights(source, run, split, weights_path)
    write_csv(layout.run(run.name) / "history.csv", [], COLUMNS)
    digest = sha256_file(weights_path)
    write_summary(layout, run, key=digest, digest=digest, imported_from=source.name, provenance=provenance(started))


def import_weights(source: Path, run: Run, split: CocoSplit, target: Path) -> None:
    """Write the weights in `source` to `target` as those of `run`; torchvision FCOS state dicts are converted."""
    if not source.is_file():
        problem = "is a folder" if source.is_dir() else "no such checkpoint"
        raise UserError(source, problem, expected="a weights file of fcos, or a torchvision FCOS state dict")
    if source.suffix == ".safetensors":
        found = read_identity(source, hint="name another file")
        check_same_classes(source, found.categories, split.categories)
        state = load_weights(source)
    else:
        state = select_classes(from_torchvision(_read_state(source)), split.category_ids, source)
    _check_fits(state, run, len(split.categories), source)
    identity = Identity(run=run.identity(), categories=split.categories, data_digest=split.digest, bits=split.bits)
    save_weights(target, state, identity)


def _read_state(path: Path) -> dict[str, Tensor]:
    state = read_state_dict(path)
    if "head.classification_head.cls_logits.bias" not in state:
        raise UserError(
            path,
            "is not a torchvision FCOS state dict",
            found=f"keys such as {list(state)[:3]}",
            expected="keys such as head.classification_head.cls_logits.bias",
        )
    return state


def _check_fits(state: dict[str, Tensor], run: Run, num_classes: int, path: Path) -> None:
    expected = {
        name: tuple(t.shape) for name, t in build_model(run, num_classes, pretrained=False).state_dict().items()
    }
    found = {name: tuple(t.shape) for name, t in state.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise UserError(
                path,
                f"does not fit run {run.name}: {name}",
                found=found.get(name, "no such weight"),
                expected=expected.get(name, "no such weight"),
                hint="set backbone, num_convs and model.* of the run to what the checkpoint was trained with",
            )
