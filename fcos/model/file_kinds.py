"""Identify a file that is not a checkpoint by its first bytes; its content is never executed."""

import zipfile
from pathlib import Path

from fcos.errors import UserError

MAX_RATIO = 10  # of the unpacked size of a checkpoint to that of its file
_LOOKED_AT = 4096
_BEGINNINGS = (
    (b"\x89HDF", "an HDF5 file, as Keras writes it"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"version https://git-lfs", "a pointer of Git LFS and not the file itself, which `git lfs pull` fetches"),
    (b"\x93NUMPY", "an array of NumPy"),
)
_MORE = "with more than tensors in it, such as a whole module"


def kind_of(path: Path) -> str:
    """Return a short description of what the file at `path` seems to be."""
    with path.open("rb") as stream:
        start = stream.read(_LOOKED_AT)
    if not start:
        return "an empty file"
    for beginning, kind in _BEGINNINGS:
        if start.startswith(beginning):
            return kind
    if start.startswith(b"PK"):
        return _kind_of_zip(path)
    if start[257:262] == b"ustar":
        return "a tar archive"
    if start[8:9] == b"{":
        return "a safetensors file, whose name has to end in .safetensors"
    if start.lstrip()[:1] == b"<":
        return "a web page, or other text in HTML or XML"
    if path.suffix == ".onnx" or b"onnx" in start[:100].lower():
        return "an ONNX model"
    if start.startswith(b"\x80"):
        return f"a pickle {_MORE}"
    return "not a torch.save file"


def refuse_compressed(path: Path) -> None:
    """Raise UserError if torch would unpack far more from this file than it has; torch.save compresses nothing."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        size = sum(member.file_size for member in archive.infolist())
    if size > MAX_RATIO * path.stat().st_size:
        raise UserError(
            path,
            f"would unpack to more than {MAX_RATIO} times its size",
            found=f"{size:,} bytes in {path.stat().st_size:,}",
            expected="a file of torch.save, which compresses nothing",
            hint="save it again with torch.save",
        )


def _kind_of_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.partition("/")[2] or name: name for name in archive.namelist()}
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return "a zip archive, as torch.save writes it, that is cut off or damaged"
    if "constants.pkl" in names:
        return "a TorchScript archive, which holds code"
    if "archive_format" in names or "serialized_exported_program.json" in names:
        return "an archive of torch.export, which holds a program"
    if "data.pkl" in names:
        return f"a file of torch.save {_MORE}"
    return f"a zip archive with {next(iter(names.values()), 'nothing')} in it"
