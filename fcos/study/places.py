"""Find the source data of a study on this machine, download them if the study says so, and link them.

The study reads its source through links in data/.source/STUDY/. Therefore no file of the study names a folder of this
machine, and DVC sees the source under paths that are equal on every machine: see
docs/decisions/2026-11-25-the-source-is-linked.md.
"""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from fcos.config.data import CocoData, DataConfig, FilesData, GroundTruthData, ShapesData, VocData
from fcos.data.groups import names_table
from fcos.data.sources.download import ARCHIVES, download
from fcos.data.sources.voc import find_voc_folder
from fcos.errors import UserError
from fcos.files import in_project, project_root, write_text
from fcos.study.layout import Layout

# Names of the links; stages/source/dvc.yaml lists them as outputs, stages/prepare/dvc.yaml as dependencies.
_SUFFIXES = {"train": "", "validation": "-validation", "test": "-test"}
SLOTS = (*(part + suffix for part in ("images", "labels", "lists") for suffix in _SUFFIXES.values()), "groups")
UNUSED = "nothing of the source\n"  # not empty, since DVC warns about empty outputs
HERE = "fcos source --at FOLDER"
NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS)  # what FAT, SMB and FUSE say to a symlink
NAMED = 5  # entries of a wrong folder that an error lists


def fetch(config: DataConfig) -> None:
    """Make the files of the source available, by downloading them if the study says so.

    Raises:
        UserError: the folder is not found, or the download failed.
    """
    if isinstance(config, ShapesData):
        return
    root = in_project(config.root)
    if isinstance(config, VocData | CocoData) and config.download:
        # A folder .downloads/ means that a download was started here and may be incomplete.
        if _find_data(config, root) is None or (root / ".downloads").is_dir():
            download(ARCHIVES[config.download], root, _archives(config))
    elif not root.is_dir():
        raise UserError(
            "params.yaml: data.root",
            "no such folder; nothing was changed",
            found=config.root,
            expected="the folder of the images and annotations",
            hint=f"correct data.root, put the data there, or give their folder on this machine: {HERE}",
        )


def _find_data(config: VocData | CocoData, folder: Path) -> Path | None:
    """Return the folder for `data.root` if `folder` already has the data of `data.download`, else None."""
    if isinstance(config, CocoData):
        return folder if (folder / "annotations").is_dir() else None
    inside = (folder / "VOC2007", folder / "VOCdevkit" / "VOC2007")
    if any((part / "JPEGImages").is_dir() for part in (folder, *inside)):
        # The folder of the year is returned, since `folder` may have other years beside it and be ambiguous.
        return next((part for part in inside if (part / "JPEGImages").is_dir()), folder)
    return None


def _archives(config: VocData | CocoData) -> Path | None:
    """Return the folder with archives that the user already has, or None."""
    if config.archives is None:
        return None
    folder = in_project(config.archives)
    if not folder.is_dir():
        raise UserError(
            "params.yaml: data.archives",
            "no such folder; nothing was changed",
            found=config.archives,
            expected=f"the folder of {' or '.join(archive.name for archive in ARCHIVES[str(config.download)])}",
            hint="correct data.archives, or remove it to download everything",
        )
    return folder


def find_places(config: DataConfig) -> dict[str, Path]:
    """Return the folders and files of the source that are used, by the name of their link; each appears once."""
    if isinstance(config, ShapesData):
        return {}
    places: dict[str, Path] = {}
    for slot, place in _parts(config):
        if place not in places.values():
            places[slot] = place
    return places


def _parts(config: FilesData | GroundTruthData) -> Iterator[tuple[str, Path]]:
    """Yield the links and paths of the images, annotations and lists of each split, and of the table of groups."""
    folder = in_project(config.root)
    if config.groups is not None and names_table(config.groups):
        yield "groups", folder / config.groups
    if isinstance(config, GroundTruthData):
        yield "labels-test", folder / config.annotations
        if config.images is not None:
            yield "images-test", folder / config.images
        return
    if isinstance(config, VocData):
        folder = find_voc_folder(folder, config.train_annotations or config.annotations)
    for split, suffix in _SUFFIXES.items():
        images, annotations, labels, listed, named = (
            getattr(config, f"{split}_{part}", None) for part in ("images", "annotations", "labels", "list", "split")
        )
        if isinstance(config, VocData) and (split == "train" or named or annotations):
            images, annotations = images or config.images, annotations or config.annotations
            listed = config.lists if named else None
        for slot, name in (("images", images), ("labels", annotations or labels), ("lists", listed)):
            if name is not None:
                yield slot + suffix, folder / name


def place_root(config: DataConfig, at: Path) -> None:
    """Make `data.root` a link to `at`, the folder that has the data of the study on this machine."""
    where = "params.yaml: data.root"
    if isinstance(config, ShapesData):
        raise UserError("params.yaml: data.source", "shapes are generated and have no folder", hint="omit --at")
    root = Path(config.root)
    if not at.is_dir():
        raise UserError(at, "no such folder; nothing was changed", expected="the folder of the images and annotations")
    if root.is_absolute():
        hint = "write a path in this project, such as datasets/mine, into data.root"
        raise UserError(where, "is an absolute path, so --at cannot change it", found=root, hint=hint)
    here = project_root() / root
    if here.is_symlink() or not here.exists() or not here.samefile(at):
        link_root(here, _unpacked(config, at))


def _unpacked(config: DataConfig, at: Path) -> Path:
    """Return the folder to link: `at`, or for a study that downloads its data, the folder below `at` that has them.

    Raises:
        UserError: `at` has other files, among which the download should not be unpacked.
    """
    if not isinstance(config, VocData | CocoData) or config.download is None or (at / ".downloads").is_dir():
        return at
    found, names = _find_data(config, at), sorted(path.name for path in at.iterdir() if path.name[0] != ".")
    if found is None and names:
        voc = "a VOCdevkit, its VOC2007, or the folder of the VOCdevkit"
        raise UserError(
            at,
            f"does not have {config.download}; nothing was changed",
            found=", ".join([*names[:NAMED], *(["..."] if len(names) > NAMED else [])]),
            expected=voc if config.download == "voc2007" else "a folder with annotations/, train2017/ and val2017/",
            hint="give another folder, an empty one for the download, or set data.archives to that of the archives",
        )
    return found or at


def link_root(root: Path, at: Path) -> None:
    """Make `root` a link to the folder `at`; an existing link is replaced, an existing folder is not.

    Raises:
        UserError: `root` is a folder other than `at`.
    """
    if root.exists() and root.samefile(at):
        return
    if root.exists() and not root.is_symlink():
        hint = "move that folder, or omit --at to use it"
        raise UserError(root, "already exists and is another folder; nothing was changed", found=at, hint=hint)
    make_link(root, at)


def link_places(config: DataConfig, layout: Layout) -> None:
    """Create the links in data/.source/STUDY/; correct links are left unchanged.

    Raises:
        UserError: a place is not found, or contains this project itself.
    """
    places = find_places(config)
    for place in places.values():
        _check_place(place)
    for slot in SLOTS:
        link = layout.source / slot
        if slot in places:
            make_link(link, places[slot])
        elif link.is_symlink() or not link.is_file():
            _clear(link)
            write_text(link, UNUSED)


def drop_dangling(layout: Layout) -> None:
    """Remove dangling links, which DVC cannot hash; DVC creates missing outputs again."""
    of_runs = (link for pattern in ("checkpoints/*", "results/*/*") for link in layout.source.glob(pattern))
    for link in [*(layout.source / slot for slot in SLOTS), *of_runs]:
        if link.is_symlink() and not link.exists():
            link.unlink()


def _check_place(place: Path) -> None:
    if not place.exists():
        hint = f"correct data.root and the other keys of data, or give the folder of the data: {HERE}"
        raise UserError(place, "no such file or folder; nothing was changed", hint=hint)
    if Path.cwd().is_relative_to(place.resolve()):
        hint = "move the data into a folder of their own"
        raise UserError(place, "contains this project itself, whose files change all the time", hint=hint)


def make_link(link: Path, target: Path) -> None:
    """Link `link` to `target`: relatively if both are in the project, which may be moved, else absolutely."""
    absolute, place = Path.cwd() / target, Path.cwd() / link
    inside = absolute.is_relative_to(Path.cwd()) and place.is_relative_to(Path.cwd())
    wanted = os.path.relpath(absolute, place.parent) if inside else os.path.normpath(absolute)
    if link.is_symlink() and str(link.readlink()) == wanted:
        return
    link.parent.mkdir(parents=True, exist_ok=True)
    _clear(link)
    try:
        link.symlink_to(wanted)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        raise UserError(
            link,
            "its file system has no symbolic links",
            found=error.strerror,
            expected="a file system with them for a study of data of your own",
            hint="move the project to a local disk, the data may stay; see docs/how-to/resume.md",
        ) from None


def _clear(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def name_of_place(image_dir: Path, places: Mapping[str, Path], layout: Layout) -> str:
    """Return the name of an image folder in manifest.json: its path through the links, relative to data/STUDY/."""
    for slot, place in places.items():
        with contextlib.suppress(ValueError):
            return os.path.relpath(layout.source / slot / image_dir.relative_to(place), layout.data)
    raise AssertionError(f"{image_dir} is in none of {places}")
