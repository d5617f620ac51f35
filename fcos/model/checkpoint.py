"""Weights on disk: safetensors files whose metadata identify the weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from fcos.errors import UserError
from fcos.files import whole_file
from fcos.formats import header_metadata, header_of
from fcos.model.file_kinds import kind_of, refuse_compressed
from fcos.records import SplitCategory, odd_value

DIVERGED = "lower train.learning_rate, or set train.clip_grad_norm"
OTHER = "train again, or use another file"
STATE_DICT = "a state dict, as torch.save(model.state_dict(), FILE) writes it"


class _Header(TypedDict):
    """The types of an Identity's fields, to check the metadata of untrusted files."""

    run: dict[str, Any]
    categories: list[SplitCategory]
    data_digest: str
    bits: int


@dataclass(frozen=True, kw_only=True)
class Identity:
    """The identity of weights: nothing in it depends on when or where they were trained.

    Args:
        run: the resolved run (study, name, backbone, ...).
        categories: COCO categories in label order: `{"id": 1, "name": "person"}`.
        data_digest: sha256 of the training split.
        bits: number of bits that 16-bit training images use.
    """

    run: dict[str, Any]
    categories: list[dict[str, Any]]
    data_digest: str
    bits: int = 16

    def to_metadata(self) -> dict[str, str]:
        """Return the identity as the header of a safetensors file."""
        said = {name: value for name, value in self.__dict__.items() if (name, value) != ("bits", 16)}
        return header_metadata(said)

    @staticmethod
    def from_metadata(metadata: dict[str, str] | None, path: Path) -> "Identity":
        """Read the identity from the header of the safetensors file at `path`; raise UserError if it has none."""
        try:
            said = header_of(path, metadata, hint=None)
            if odd := odd_value(said, _Header, complete=False) or odd_value(
                said.get("categories"), list[SplitCategory], complete=True
            ):
                raise ValueError(odd)
            return Identity(**said)
        except (KeyError, TypeError, ValueError):
            raise UserError(
                path,
                "is not a weights file of fcos: its header is missing or incomplete",
                expected="a file written by `fcos train` or `fcos import-checkpoint`",
            ) from None


def check_finite(state: Mapping[str, Tensor], where: object, hint: str) -> None:
    """Raise if a weight is infinite or NaN: such a network detects nothing, and training does not recover.

    Raises:
        UserError: names the first such tensor and the number of its values that are not finite.
    """
    for name, tensor in state.items():
        if not (finite := tensor.isfinite()).all():
            found = f"{(~finite).sum()} of {finite.numel()} numbers of {name}"
            raise UserError(where, "has weights that are not finite", found=found, expected="finite numbers", hint=hint)


def save_weights(path: Path, state: dict[str, Tensor], identity: Identity) -> None:
    """Write the weights and their identity atomically.

    Raises:
        UserError: the weights are not finite.
    """
    check_finite(state, path, DIVERGED)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    with whole_file(path) as scratch:
        safetensors.torch.save_file(tensors, scratch, metadata=identity.to_metadata())


def read_identity(path: Path, *, hint: str) -> Identity:
    """Return the identity of the weights at `path`; `hint` is the command to run if the file is missing or damaged."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return Identity.from_metadata(file.metadata(), path)
    except FileNotFoundError:
        raise UserError(path, "no such file", expected="trained weights", hint=hint) from None
    except (safetensors.SafetensorError, OSError) as error:
        foreign = path.is_file() and path.suffix != ".safetensors"
        found = kind_of(path) if foreign else error
        hint = f"fcos import-checkpoint {path} --run RUN, if it contains {STATE_DICT}" if foreign else hint
        raise UserError(path, "is not a whole safetensors file", found=found, hint=hint) from None


def load_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file by name.

    Raises:
        UserError: the weights are not finite.
    """
    state = safetensors.torch.load_file(path)
    check_finite(state, path, OTHER)
    return state


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Return the tensors by name of a safetensors file or of torch.save (alone, or under `model` or `state_dict`).

    Raises:
        UserError: the file is neither, or its weights are not finite.
    """
    try:
        if path.suffix == ".safetensors":
            state: Any = safetensors.torch.load_file(path)
        else:
            refuse_compressed(path)
            state = torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except Exception as error:  # torch's reader raises many types
        # torch's message is not shown, since it says how to run the code in an untrusted file.
        found = error if path.suffix == ".safetensors" or isinstance(error, OSError) else kind_of(path)
        raise UserError(path, "cannot be read as a state dict", found=found, expected=STATE_DICT) from None
    for key in ("model", "state_dict"):
        state = state.get(key, state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(map(_is_weight, state, state.values())):
        found = f"keys such as {list(state)[:3]}" if isinstance(state, dict) else type(state).__name__
        raise UserError(path, "is not a state dict", found=found, expected="tensors by name")
    check_finite(state, path, OTHER)
    return state


def _is_weight(name: object, value: object) -> bool:
    """Whether this is a name and a dense tensor with data of its own.

    Sparse, quantised, complex and meta tensors are not, nor are expanded ones, which repeat few numbers without end.
    """
    return (
        isinstance(name, str)
        and isinstance(value, Tensor)
        and value.layout is torch.strided
        and value.device.type == "cpu"
        and not (value.is_quantized or value.is_complex())
        and value.numel() * value.element_size() <= value.untyped_storage().nbytes()
    )


def check_same_classes(path: Path, found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """Raise a UserError unless weights and data have the same category ids and names in the same order."""
    pairs = [[(c["id"], c["name"]) for c in categories] for categories in (found, expected)]
    if pairs[0] != pairs[1]:
        raise UserError(
            path,
            "the classes of the weights differ from those of the data",
            found=f"{len(found)} classes: {_named(found)}",
            expected=f"{len(expected)} classes: {_named(expected)}",
            hint="train again, or prepare the data that the weights were trained on",
        )


def _named(categories: list[dict[str, Any]]) -> str:
    return ", ".join(f"{category['id']} {category['name']}" for category in categories)
