"""The key of a training: a digest of everything that determines its result."""

from typing import Any

from fcos.files import code_digests, sha256_json

# The code that `fcos train` runs; a test compares this list with the command's import closure.
TRAINING_CODE = (
    "assignment.py",
    "boxes.py",
    "commands/train.py",
    "config/data.py",
    "config/model.py",
    "config/runs.py",
    "config/section.py",
    "config/study.py",
    "config/train.py",
    "data/cache.py",
    "data/coco.py",
    "data/dataset.py",
    "data/images.py",
    "data/shards.py",
    "data/split_files.py",
    "data/transforms.py",
    "distributed.py",
    "errors.py",
    "files.py",
    "formats.py",
    "interruption.py",
    "locks.py",
    "losses.py",
    "memory.py",
    "model/backbone.py",
    "model/checkpoint.py",
    "model/convert.py",
    "model/detector.py",
    "model/device.py",
    "model/file_kinds.py",
    "model/graphs.py",
    "model/group_norm.py",
    "model/head.py",
    "model/locations.py",
    "progress.py",
    "records.py",
    "structures.py",
    "study/assigner.py",
    "study/build.py",
    "study/importing.py",
    "study/layout.py",
    "study/provenance.py",
    "study/summary.py",
    "training/history.py",
    "training/key.py",
    "training/loop.py",
    "training/optimizer.py",
    "training/ranks.py",
    "training/remote_states.py",
    "training/resume.py",
    "training/step.py",
    "training/validation.py",
    "version.py",
    "visible.py",
    "yaml_text.py",
)


def training_key(
    identity: dict[str, Any],
    data_digest: str,
    *,
    torch_version: str,
    device_type: str,
    dtype: str,
    start_digest: str | None,
    validation: str | None,
) -> str:
    """Return the key as a hex digest; two trainings with equal keys give the same weights on a CPU.

    Args:
        identity: `Run.identity()`.
        data_digest: sha256 of the training split.
        start_digest: sha256 of the file that the backbone starts from; None if `identity` determines the first weights.
        validation: digest of what selects the weights; None if the weights of the last step are kept.
    """
    code = code_digests(TRAINING_CODE)
    more = [digest for digest in (start_digest, validation) if digest is not None]
    return sha256_json([identity, data_digest, code, torch_version, device_type, dtype, *more])
