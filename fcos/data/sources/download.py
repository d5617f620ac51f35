"""Fetching public data sets: resumed where they broke off, checked, then unpacked."""

import errno
import hashlib
import http.client
import shutil
import tarfile
import urllib.error
import urllib.request
import zipfile
from dataclasses import dataclass
from pathlib import Path

from fcos.errors import UserError
from fcos.progress import Progress, track

CHUNK = 1 << 20


@dataclass(frozen=True)
class Archive:
    url: str
    md5: str

    @property
    def name(self) -> str:
        return self.url.rsplit("/", 1)[-1]


# Addresses and checksums as published by the data sets' owners; VOC2007's are those of torchvision.datasets.
_VOC = "https://thor.robots.ox.ac.uk/pascal/VOC/voc2007"
_COCO = "http://images.cocodataset.org"
ARCHIVES = {
    "voc2007": [
        Archive(f"{_VOC}/VOCtrainval_06-Nov-2007.tar", "c52e279531787c972589f7e41ab4ae64"),
        Archive(f"{_VOC}/VOCtest_06-Nov-2007.tar", "b6e924de25625d8de591ea690078ad9f"),
    ],
    "coco2017": [
        Archive(f"{_COCO}/annotations/annotations_trainval2017.zip", "f4bbac642086de4f52a3fdda2de5fa2c"),
        Archive(f"{_COCO}/zips/val2017.zip", "442b8da7639aecaf257c1dceb8ba8c80"),
        Archive(f"{_COCO}/zips/train2017.zip", "cced6f7f71b7629ddf16f17bbcfab6b2"),
    ],
}


def download(archives: list[Archive], root: Path) -> None:
    """Fetch and unpack what `root` does not have yet; every step can be repeated after it broke off."""
    store = root / ".downloads"
    try:
        store.mkdir(parents=True, exist_ok=True)
        for archive in archives:
            done = store / f"{archive.name}.unpacked"
            if done.exists():
                continue
            _unpack(_fetch(archive, store), root)
            done.touch()
            (store / archive.name).unlink()
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                root,
                "the data set cannot be stored here",
                found=error,
                expected="a folder that can be written",
                do="correct data.root, or what stands in its way, and repeat the command",
            ) from None
        free = shutil.disk_usage(root).free / 1e9
        raise UserError(
            root,
            "the disk is full; what was fetched is kept, the data set is not ready",
            found=f"{free:.1f} GB free",
            do="make room and repeat the command: it goes on where it stopped",
        ) from None


def _fetch(archive: Archive, store: Path) -> Path:
    """The whole, checked archive; a part that is there already is not fetched again."""
    target = store / archive.name
    part = store / f"{archive.name}.part"
    if not target.exists():
        _append(archive, part)
        part.rename(target)
    md5 = _md5(target)
    if md5 != archive.md5:
        target.unlink()
        raise UserError(
            archive.url,
            "the archive has a wrong checksum; it was deleted, nothing else was changed",
            found=f"md5 {md5}",
            expected=f"md5 {archive.md5}",
            do="repeat the command",
        )
    return target


def _append(archive: Archive, part: Path) -> None:
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(archive.url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT
            have = have if resumed else 0
            expected = have + int(response.headers.get("Content-Length") or 0)
            progress = Progress(f"fetch {archive.name}", expected >> 20, unit="MB", done=have >> 20)
            with part.open("ab" if resumed else "wb") as stream:
                while chunk := response.read(CHUNK):
                    stream.write(chunk)
                    have += len(chunk)
                    progress.update((have >> 20) - progress.done)
            progress.close()
    except urllib.error.HTTPError as error:
        error.close()  # it is the answer too, and holds the connection
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # the part is the whole
        raise _unreachable(archive, part, error) from None
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise _unreachable(archive, part, error) from None
    if expected and have < expected:
        raise _unreachable(archive, part, f"the connection ended after {have} of {expected} bytes")


def _unreachable(archive: Archive, part: Path, error: object) -> UserError:
    return UserError(
        archive.url,
        "cannot be fetched; nothing was changed",
        found=error,
        expected=f"the archive {archive.name} with md5 {archive.md5}",
        do=f"repeat the command, or fetch it by hand and put it at {part.with_suffix('')}",
    )


def _md5(path: Path) -> str:
    digest = hashlib.md5()
    progress = Progress(f"check {path.name}", path.stat().st_size >> 20, unit="MB")
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
            progress.update(len(chunk) >> 20)
    progress.close()
    return digest.hexdigest()


def _unpack(path: Path, root: Path) -> None:
    try:
        if path.suffix == ".tar":
            with tarfile.open(path) as archive:
                members = archive.getmembers()
                for member in track(members, f"unpack {path.name}", total=len(members), unit="files"):
                    archive.extract(member, root, filter="data")
        else:
            with zipfile.ZipFile(path) as zipped:
                names = zipped.namelist()
                for name in track(names, f"unpack {path.name}", total=len(names), unit="files"):
                    zipped.extract(name, root)
    except (EOFError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise UserError(path, "cannot be unpacked", found=error, do="delete it and repeat the command") from None
