"""Downloads of data sets, from a local server with small archives in the layout of the real ones."""

import gzip
import hashlib
import io
import os
import re
import shutil
import stat
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from data_helpers import CAT, DATA, DOG, assert_refused, read, run_prepare, small_coco, snapshot, write, write_voc

import fcos.data.sources.download
from fcos.config.data import CocoData, VocData
from fcos.config.section import parse_section
from fcos.data.sources.download import ARCHIVES, Archive, download
from fcos.errors import UserError
from fcos.study.places import place_root

ROOT = Path("downloaded")
STORE = ROOT / ".downloads"
TRAINVAL, TEST = "VOCtrainval_06-Nov-2007.tar", "VOCtest_06-Nov-2007.tar"
VOC2007 = {"source": "voc", "root": str(ROOT), "download": "voc2007"}
COCO2017 = {"source": "coco", "root": str(ROOT), "download": "coco2017"}


class Server(ThreadingHTTPServer):
    """A server of `files` that records every request as (name, Range header)."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.requests: list[tuple[str, str | None]] = []
        self.knows_ranges = True
        self.states_length = True
        self.break_after: dict[str, int] = {}  # ends the connection after so many bytes, once for each name
        self.pages: set[str] = set()  # answered with a web page and code 200, as firewalls do
        self.silent: set[str] = set()  # never answered
        self.headers: dict[str, dict[str, str]] = {}  # sent in place of the usual ones
        self.over = threading.Event()

    def archive(self, name: str) -> Archive:
        md5 = hashlib.md5(self.files.get(name, b"")).hexdigest()
        return Archive(name, md5, (self.url(name),))

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"

    def archives(self) -> list[Archive]:
        return [self.archive(name) for name in self.files]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        name, wanted = self.path.lstrip("/"), self.headers.get("Range")
        self.server.requests.append((name, wanted))
        whole = self.server.files.get(name)
        if name in self.server.silent:
            self.server.over.wait()
            return
        if name in self.server.pages:
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(b"<html>Your access has been blocked")
            return
        if whole is None:
            self.send_error(404)
            return
        if headers := self.server.headers.get(name):
            self.send_response(302 if "Location" in headers else 200)
            for header, value in headers.items():
                self.send_header(header, value)
            self.end_headers()
            if "Location" not in headers:
                self.wfile.write(whole)
            return
        start = 0
        if wanted and self.server.knows_ranges:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(whole):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(whole) - 1}/{len(whole)}")
        else:
            self.send_response(200)
        if self.server.states_length:
            self.send_header("Content-Length", str(len(whole) - start))
        self.end_headers()
        self.wfile.write(whole[start:][: self.server.break_after.pop(name, len(whole))])

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield serving
        serving.over.set()
        serving.shutdown()
        thread.join()


@pytest.fixture
def voc(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """Serve VOC2007 as two tars that share their folders, and make `prepare` download from here."""
    for name, split, stems in ((TRAINVAL, "trainval", ("000005", "000007")), (TEST, "test", ("000001",))):
        made = Path(f"made-{split}")
        write_voc(made / "VOCdevkit/VOC2007", {split: {stem: [CAT, DOG] for stem in stems}})
        with tarfile.open(f"{split}.tar", "w") as tar:
            tar.add(made / "VOCdevkit", "VOCdevkit")
        server.files[name] = Path(f"{split}.tar").read_bytes()
    monkeypatch.setitem(ARCHIVES, "voc2007", server.archives())
    return server


@pytest.fixture
def coco(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """Serve COCO2017 as three zips, and make `prepare` download from here."""
    made = small_coco(Path("made-coco"))
    zips = (("annotations_trainval2017.zip", "annotations"), ("val2017.zip", "val2017"), ("train2017.zip", "train2017"))
    for name, folder in zips:
        with zipfile.ZipFile(name, "w") as archive:
            for path in sorted((made / folder).iterdir()):
                archive.write(path, f"{folder}/{path.name}")
        server.files[name] = Path(name).read_bytes()
    monkeypatch.setitem(ARCHIVES, "coco2017", server.archives())
    return server


def refusal(archives: list[Archive]) -> str:
    with pytest.raises(UserError) as refused:
        download(archives, ROOT)
    return str(refused.value)


def parse_data(section: dict[str, str]) -> VocData | CocoData:
    return parse_section({"data": section}, "data", VocData | CocoData)  # type: ignore[arg-type]


def unpacked() -> dict[str, str]:
    """Return what was unpacked: everything in the root except the store."""
    return {name: digest for name, digest in snapshot(ROOT).items() if not name.startswith(".downloads")}


def made(*folders: str) -> dict[str, str]:
    return {name: digest for folder in folders for name, digest in snapshot(Path(folder)).items()}


# The whole way --------------------------------------------------------------------------------------------------------


def test_both_tars_are_fetched_and_unpacked_into_one_folder(voc: Server) -> None:
    download(voc.archives(), ROOT)
    assert unpacked() == made("made-trainval", "made-test")
    assert [name for name, _ in voc.requests] == [TRAINVAL, TEST]
    assert sorted(path.name for path in STORE.iterdir()) == [f"{TEST}.unpacked", f"{TRAINVAL}.unpacked"]


def test_zips_are_fetched_and_unpacked(coco: Server) -> None:
    download(coco.archives(), ROOT)
    assert unpacked() == made("made-coco")
    assert [name for name, _ in coco.requests] == ["annotations_trainval2017.zip", "val2017.zip", "train2017.zip"]


def test_prepare_fetches_voc2007_once(voc: Server) -> None:
    manifest = run_prepare(**VOC2007)
    assert [manifest["splits"][split]["num_images"] for split in ("train", "test")] == [2, 1]
    assert [image["id"] for image in read("train")["images"]] == [5, 7]
    assert len(voc.requests) == 2
    assert run_prepare(**VOC2007) == manifest
    assert len(voc.requests) == 2


def test_prepare_fetches_coco2017_once(coco: Server) -> None:
    manifest = run_prepare(**COCO2017)
    assert [manifest["splits"][split]["num_images"] for split in ("train", "test")] == [2, 1]
    assert run_prepare(**COCO2017) == manifest
    assert len(coco.requests) == 3


def test_data_that_are_there_already_are_not_fetched(voc: Server) -> None:
    write_voc(ROOT / "VOCdevkit/VOC2007", {"trainval": {"000005": [CAT]}, "test": {"000001": [DOG]}})
    run_prepare(**VOC2007)
    assert voc.requests == []
    assert not STORE.exists()


def test_archive_put_there_by_hand_is_used_without_network(voc: Server) -> None:
    for name in (TRAINVAL, TEST):
        (STORE / name).parent.mkdir(parents=True, exist_ok=True)
        (STORE / name).write_bytes(voc.files[name])
    archives = voc.archives()
    voc.files.clear()
    download(archives, ROOT)
    assert unpacked() == made("made-trainval", "made-test")
    assert voc.requests == []


def test_the_second_archive_alone_is_fetched_where_the_first_is_done(voc: Server) -> None:
    trainval, test = voc.archives()
    download([trainval], ROOT)
    run_prepare(**VOC2007)  # VOCdevkit/ exists but is incomplete
    assert [name for name, _ in voc.requests] == [TRAINVAL, TEST]
    assert test in ARCHIVES["voc2007"]


# Broken connections ---------------------------------------------------------------------------------------------------


def test_broken_fetch_goes_on_where_it_stopped(voc: Server) -> None:
    voc.break_after[TRAINVAL] = 3000
    assert f"after 3000 of {len(voc.files[TRAINVAL])} bytes" in refusal(voc.archives())
    assert (STORE / f"{TRAINVAL}.part").read_bytes() == voc.files[TRAINVAL][:3000]
    assert unpacked() == {}
    download(voc.archives(), ROOT)
    assert voc.requests == [(TRAINVAL, None), (TRAINVAL, "bytes=3000-"), (TEST, None)]
    assert unpacked() == made("made-trainval", "made-test")


def test_a_fetch_that_breaks_twice_still_becomes_whole(voc: Server) -> None:
    for sent in (3000, 2000):
        voc.break_after[TRAINVAL] = sent
        refusal(voc.archives())
    download(voc.archives(), ROOT)
    assert [wanted for _, wanted in voc.requests] == [None, "bytes=3000-", "bytes=5000-", None]
    assert unpacked() == made("made-trainval", "made-test")


def test_break_without_a_stated_length_is_found_by_the_checksum(voc: Server) -> None:
    voc.break_after[TRAINVAL] = 3000
    voc.states_length = False
    assert "wrong checksum" in refusal(voc.archives())
    download(voc.archives(), ROOT)
    assert unpacked() == made("made-trainval", "made-test")


def test_server_without_ranges_starts_again(voc: Server) -> None:
    voc.break_after[TRAINVAL] = 3000
    voc.knows_ranges = False
    refusal(voc.archives())
    download(voc.archives(), ROOT)
    assert voc.requests[:2] == [(TRAINVAL, None), (TRAINVAL, "bytes=3000-")]
    assert unpacked() == made("made-trainval", "made-test")


def test_part_that_is_the_whole_already_is_taken(voc: Server) -> None:
    # The run stopped between the last byte and the renaming, so the server answers 416.
    write(STORE / "marker", "").with_name(f"{TRAINVAL}.part").write_bytes(voc.files[TRAINVAL])
    download(voc.archives(), ROOT)
    assert voc.requests == [(TRAINVAL, f"bytes={len(voc.files[TRAINVAL])}-"), (TEST, None)]
    assert unpacked() == made("made-trainval", "made-test")


def test_part_of_another_file_is_found_by_its_checksum_and_fetched_anew(voc: Server) -> None:
    write(STORE / f"{TRAINVAL}.part", "x" * 1000)
    download(voc.archives(), ROOT)
    assert voc.requests == [(TRAINVAL, "bytes=1000-"), (TRAINVAL, None), (TEST, None)]
    assert unpacked() == made("made-trainval", "made-test")


def test_unpacking_that_broke_off_is_repeated_from_the_fetched_archive(voc: Server) -> None:
    trainval, test = voc.archives()
    (STORE / TRAINVAL).parent.mkdir(parents=True)
    (STORE / TRAINVAL).write_bytes(voc.files[TRAINVAL])
    write(ROOT / "VOCdevkit/VOC2007/Annotations/000005.xml", "<anno")  # incomplete, since the run stopped here
    download([trainval, test], ROOT)
    assert [name for name, _ in voc.requests] == [TEST]
    assert unpacked() == made("made-trainval", "made-test")


# What goes wrong ------------------------------------------------------------------------------------------------------


def test_wrong_checksum_deletes_the_archive_and_nothing_else(voc: Server) -> None:
    right = voc.archives()
    voc.files[TEST] = voc.files[TEST].replace(b"cat", b"cow")
    served = hashlib.md5(voc.files[TEST]).hexdigest()
    before = (write(ROOT / "mine.txt", "mine"), write(Path("data/other/train.json"), "{}"))
    message = refusal(right)
    assert f"md5 {served}" in message
    assert f"md5 {right[1].md5}" in message
    assert "it was deleted" in message
    assert sorted(path.name for path in STORE.iterdir()) == [f"{TRAINVAL}.unpacked"]
    assert unpacked() == {**made("made-trainval"), "mine.txt": hashlib.sha256(b"mine").hexdigest()}
    assert [path.read_text() for path in before] == ["mine", "{}"]


def test_server_that_is_gone_says_what_to_fetch_and_where_to_put_it(voc: Server) -> None:
    closed = voc.archives()[0]
    voc.shutdown()
    voc.socket.close()
    message = refusal([closed])
    for part in (*closed.sources, closed.md5, TRAINVAL, str(STORE), "nothing else was changed", "Connection refused"):
        assert part in message
    assert unpacked() == {}
    assert list(STORE.iterdir()) == []


def test_address_that_is_gone_leaves_prepared_data_as_they_are(voc: Server) -> None:
    voc.files.clear()
    assert_refused("404", TRAINVAL, TEST, "fetch by hand", str(STORE), **VOC2007)
    assert sorted(path.name for path in DATA.parent.iterdir()) == ["pets"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_full_disk_while_fetching(voc: Server) -> None:
    STORE.mkdir(parents=True)
    part = STORE / f"{TRAINVAL}.part"
    part.symlink_to("/dev/full")  # every write fails with "no space left on device"
    message = refusal(voc.archives())
    assert "the disk is full" in message
    assert "GB free" in message
    assert "it resumes" in message
    assert unpacked() == {}
    part.unlink()
    download(voc.archives(), ROOT)
    assert unpacked() == made("made-trainval", "made-test")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_full_disk_while_unpacking_keeps_what_was_fetched(coco: Server) -> None:
    in_the_way = ROOT / "val2017/000000000003.jpg"
    in_the_way.parent.mkdir(parents=True)
    in_the_way.symlink_to("/dev/full")
    assert "the disk is full" in refusal(coco.archives())
    assert (STORE / "val2017.zip").is_file()
    in_the_way.unlink()
    download(coco.archives(), ROOT)
    assert [name for name, _ in coco.requests].count("val2017.zip") == 1
    assert unpacked() == made("made-coco")


def test_root_that_is_a_file_is_refused(voc: Server) -> None:
    write(ROOT, "mine")
    assert "cannot be stored" in refusal(voc.archives())
    assert ROOT.read_text() == "mine"
    assert voc.requests == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_root_that_cannot_be_written_is_refused(voc: Server) -> None:
    ROOT.mkdir()
    ROOT.chmod(0o555)
    assert "Permission denied" in refusal(voc.archives())


def member(name: str, content: bytes = b"evil", /, **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def tar_of(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def zip_of(*members: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return stream.getvalue()


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, b"", type=kind, linkname=target)


def links_longer_than_a_path() -> bytes:
    """CVE-2025-4517: links whose real path is too long to be resolved lead Python's `data` filter out of the folder."""
    folder, members = "", []
    for step in "abcdefghijklmnop":
        members += [member(f"{folder}{'d' * 247}", b"", type=tarfile.DIRTYPE), link(f"{folder}{step}", "d" * 247)]
        folder += "d" * 247 + "/"
    far = f"{'/'.join('abcdefghijklmnop')}/{'l' * 254}"
    return tar_of(*members, link(far, "../" * 16), link("out", f"{far}/.."), member("out/outside.txt"))


def negative_size(size: int) -> bytes:
    """A member of less than no bytes: the next one begins before it, or is it again."""
    header = bytearray(tarfile.TarInfo("x").tobuf(tarfile.GNU_FORMAT))
    header[124:136] = (size % 256**12).to_bytes(12, "big")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + bytes(1024)


def changed(data: bytes, before: bytes, after: bytes) -> bytes:
    assert before in data
    return data.replace(before, after)


def linked_zip() -> bytes:
    info = zipfile.ZipInfo("link")
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return zip_of((info, b"../outside.txt"))


def locked_zip() -> bytes:
    data = bytearray(zip_of(("a", b"evil")))
    for flags in (6, data.index(b"PK\1\2") + 8):
        data[flags] |= 1
    return bytes(data)


EVIL = {
    "upwards.tar": lambda: tar_of(member("../outside.txt")),
    "absolute.tar": lambda: tar_of(member(str(Path("outside.txt").resolve()))),
    "backslash.tar": lambda: tar_of(member("..\\outside.txt")),
    "link.tar": lambda: tar_of(link("up", ".."), member("up/outside.txt")),
    "longlinks.tar": links_longer_than_a_path,
    "hardlink.tar": lambda: tar_of(link("mine", "../mine.txt", tarfile.LNKTYPE), member("mine")),
    "link-inside.tar": lambda: tar_of(member("a"), link("b", "a")),
    "fifo.tar": lambda: tar_of(member("fifo", b"", type=tarfile.FIFOTYPE)),
    "device.tar": lambda: tar_of(member("zero", b"", type=tarfile.CHRTYPE, devmajor=1, devminor=5)),
    "sparse.tar": lambda: tar_of(
        member("a", pax_headers={"GNU.sparse.map": "0,1", "GNU.sparse.size": f"{1 << 40}", "GNU.sparse.numblocks": "1"})
    ),
    "odd-sparse.tar": lambda: tar_of(member("a", pax_headers={"GNU.sparse.map": "a,b", "GNU.sparse.size": "1"})),
    "twice.tar": lambda: tar_of(member("a"), member("A", b"more evil")),
    "nul.tar": lambda: tar_of(member("a", pax_headers={"path": "a\0b"})),
    "backwards.tar": lambda: negative_size(-1024),
    "endless.tar": lambda: negative_size(-512),
    "huge.tar": lambda: negative_size(2**94),
    "cut.tar": lambda: tar_of(member("a", b"x" * 5000))[:3000],
    "compressed.tar": lambda: gzip.compress(tar_of(member("a", bytes(10**7)))),
    "done.tar": lambda: tar_of(member(".downloads/other.zip.unpacked")),
    "upwards.zip": lambda: zip_of(("../outside.txt", b"evil")),
    "absolute.zip": lambda: zip_of((str(Path("outside.txt").resolve()), b"evil")),
    "backslash.zip": lambda: zip_of(("..\\outside.txt", b"evil")),
    "link.zip": linked_zip,
    "locked.zip": locked_zip,
    "twice.zip": lambda: zip_of(("a", b"evil"), ("A", b"more evil")),
    "file-and-folder.zip": lambda: zip_of(("a/b", b"evil"), ("a", b"evil")),
    "nul.zip": lambda: changed(zip_of(("aXb", b"evil")), b"aXb", b"a\0b"),
    "root.zip": lambda: zip_of((".", b"evil")),
    "letters.zip": lambda: changed(zip_of(("\xe9", b"evil")), "\xe9".encode(), b"\xff\xfe"),
    "bomb.zip": lambda: zip_of(("a", bytes(10**7))),
    "cut.zip": lambda: zip_of(("a", os.urandom(5000)))[:-30],
}


@pytest.mark.parametrize("name", EVIL)
def test_an_archive_that_is_not_plain_files_is_refused_before_anything_is_written(server: Server, name: str) -> None:
    mine = write(Path("mine.txt"), "mine")
    server.files[name] = EVIL[name]()
    message = refusal(server.archives())
    assert f"{name}: cannot be unpacked\n  found: " in message and "hint: " in message
    assert mine.read_text() == "mine" and sorted(path.name for path in Path().iterdir()) == ["downloaded", "mine.txt"]
    assert unpacked() == {} and [path.name for path in ROOT.iterdir()] == [".downloads"]
    assert not list(STORE.glob("*.unpacked"))


@pytest.mark.parametrize("name", ["method.zip", "content.zip", "longer.zip"])
def test_an_archive_with_damaged_content_is_no_traceback(server: Server, name: str) -> None:
    """Checked as it is written: another program may have made the archive, with a checksum of its own."""
    whole = zip_of(("a", b"x" * 50))
    size = whole.index(b"PK\1\2") + 24
    server.files[name] = {
        "method.zip": whole[:8] + b"\x63\0" + whole[10 : size - 14] + b"\x63\0" + whole[size - 12 :],
        "content.zip": whole[:31] + b"\xff\xff" + whole[33:],
        "longer.zip": whole[:size] + b"\x33" + whole[size + 1 :],  # says 51 bytes and has 50
    }[name]
    assert f"{name}: cannot be unpacked" in refusal(server.archives())
    assert not list(STORE.glob("*.unpacked"))


def test_rights_in_an_archive_are_not_taken_over(server: Server) -> None:
    server.files["rights.tar"] = tar_of(member("a", mode=0o6777, mtime=10**30, uid=5, uname="root"))
    download(server.archives(), ROOT)
    assert (ROOT / "a").stat().st_mode & 0o7111 == 0 and (ROOT / "a").stat().st_uid == os.geteuid()


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Length": "many"},
        {"Content-Length": "9" * 5000},
        {"Content-Length": "-5"},
        {"Location": "http://[x/"},
        {"Location": f"http://{'x' * 70}.example/"},
        {"Location": "file:///etc/passwd"},
    ],
)
def test_a_source_with_odd_headers_is_skipped_or_read_all_the_same(voc: Server, headers: dict[str, str]) -> None:
    archive = sources(voc, "odd", "good")
    voc.files["odd"] = voc.files["good"]
    voc.headers["odd"] = headers
    download([archive], ROOT)
    assert unpacked() == made("made-trainval")


def test_archive_that_is_none_is_refused(server: Server) -> None:
    server.files["page.tar"] = b"<html>" * 100
    server.files["page.zip"] = b"<html>" * 100
    for archive in server.archives():
        assert "cannot be unpacked" in refusal([archive])
    shutil.rmtree(STORE)
    assert unpacked() == {}


def test_every_archive_has_several_sources_of_its_own_name() -> None:
    for archives in ARCHIVES.values():
        for archive in archives:
            assert re.fullmatch("[0-9a-f]{32}", archive.md5)
            assert len(set(archive.sources)) == len(archive.sources) >= 3
            assert all(source.startswith("http") and source.endswith(f"/{archive.name}") for source in archive.sources)
    assert [archive.name for archive in ARCHIVES["voc2007"]] == [TRAINVAL, TEST]


# Several sources ------------------------------------------------------------------------------------------------------


def sources(server: Server, *names: str) -> Archive:
    """Return the trainval archive with a source of each name; `wrong` has another archive."""
    whole = server.files[TRAINVAL]
    md5 = hashlib.md5(whole).hexdigest()
    server.files |= {"good": whole, "breaks": whole, "wrong": whole.replace(b"cat", b"cow")}
    server.break_after["breaks"] = 3000
    server.pages.add("page")
    return Archive(TRAINVAL, md5, tuple(server.url(name) for name in names))


def test_sources_are_tried_in_turn_and_what_broke_off_is_resumed(voc: Server) -> None:
    download([sources(voc, "gone", "breaks", "good")], ROOT)
    assert voc.requests == [("gone", None), ("breaks", None), ("good", "bytes=3000-")]
    assert unpacked() == made("made-trainval")
    assert [path.name for path in STORE.iterdir()] == [f"{TRAINVAL}.unpacked"]


def test_dead_broken_wrong_good(voc: Server) -> None:
    """A partial file that the wrong source completed is deleted twice; then the good source sends the whole archive."""
    download([sources(voc, "gone", "breaks", "wrong", "good")], ROOT)
    wrong = [("wrong", "bytes=3000-"), ("wrong", None)]
    assert voc.requests == [("gone", None), ("breaks", None), *wrong, ("good", None)]
    assert unpacked() == made("made-trainval")


def test_a_source_that_answers_nothing_is_skipped(voc: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcos.data.sources.download, "TIMEOUT_S", 0.2)
    voc.silent.add("silent")
    download([sources(voc, "silent", "good")], ROOT)
    assert [name for name, _ in voc.requests] == ["silent", "good"]
    assert unpacked() == made("made-trainval")


def test_a_web_page_is_no_archive_and_leaves_what_was_fetched(voc: Server) -> None:
    download([sources(voc, "breaks", "page", "good")], ROOT)
    assert voc.requests == [("breaks", None), ("page", "bytes=3000-"), ("good", "bytes=3000-")]
    assert unpacked() == made("made-trainval")


def test_when_all_fail_each_source_is_named_with_its_answer(voc: Server) -> None:
    first, second = sources(voc, "gone", "wrong", "page", "breaks"), voc.archive(TEST)
    message = refusal([first, second])
    answers = [line.strip() for line in message.splitlines() if "http://" in line]
    assert answers[0] == f"found:    {voc.url('gone')}: HTTP Error 404: Not Found"
    wrong = hashlib.md5(voc.files["wrong"]).hexdigest()
    assert answers[1] == f"{voc.url('wrong')}: wrong checksum: md5 {wrong}; it was deleted"
    assert answers[2] == f"{voc.url('page')}: a web page instead of the archive"
    assert answers[3] == f"{voc.url('breaks')}: the connection ended after 3000 of {len(voc.files[TRAINVAL])} bytes"
    assert len(answers) == 4
    by_hand = f"{TRAINVAL} (md5 {first.md5}) and {TEST} (md5 {second.md5}) and put them into {STORE}"
    assert by_hand in message and "data.archives" in message and "fcos source --at FOLDER" in message
    assert (STORE / f"{TRAINVAL}.part").read_bytes() == voc.files[TRAINVAL][:3000]
    assert unpacked() == {}


# What one has already -------------------------------------------------------------------------------------------------


def own_archives(server: Server, *names: str) -> dict[str, str]:
    """Write copies into mine/, named by their digests."""
    for name in names:
        write(Path("mine/there"), "").with_name(name).write_bytes(server.files[name])
    return snapshot(Path("mine"))


def test_archives_that_one_has_are_read_where_they_lie(voc: Server) -> None:
    before = own_archives(voc, TRAINVAL, TEST)
    manifest = run_prepare(**VOC2007, archives="mine")
    assert [manifest["splits"][split]["num_images"] for split in ("train", "test")] == [2, 1]
    assert voc.requests == []
    assert snapshot(Path("mine")) == before
    assert sorted(path.name for path in STORE.iterdir()) == [f"{TEST}.unpacked", f"{TRAINVAL}.unpacked"]


def test_what_the_archives_lack_is_fetched_and_a_wrong_one_is_left_alone(
    coco: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    own_archives(coco, "train2017.zip")
    Path("mine/val2017.zip").write_bytes(b"broken")
    run_prepare(**COCO2017, archives="mine")
    assert [name for name, _ in coco.requests] == ["annotations_trainval2017.zip", "val2017.zip"]
    assert Path("mine/val2017.zip").read_bytes() == b"broken"
    said = capsys.readouterr().err
    assert f"mine/val2017.zip: wrong checksum: md5 {hashlib.md5(b'broken').hexdigest()}" in said
    assert "mine/annotations_trainval2017.zip: no such file" in said
    coco.files.clear()
    shutil.rmtree(ROOT)
    assert_refused("mine/annotations_trainval2017.zip: no such file", **COCO2017, archives="mine")


def test_archives_are_a_folder_of_a_download(voc: Server) -> None:
    assert_refused("data.archives", "no such folder", TRAINVAL, "mine", **VOC2007, archives="mine")
    assert_refused("data.archives", "no effect without `download`", **{**VOC2007, "download": None}, archives="mine")
    assert voc.requests == []


@pytest.mark.parametrize("given", ["elsewhere", "elsewhere/VOCdevkit", "elsewhere/VOCdevkit/VOC2007"])
def test_a_vocdevkit_elsewhere_is_used_in_place(voc: Server, given: str) -> None:
    for year in ("VOC2007", "VOC2012"):
        splits = {"trainval": {f"{year[3:]}_1": [CAT]}, "test": {f"{year[3:]}_2": [DOG]}}
        write_voc(Path("elsewhere/VOCdevkit") / year, splits)
    before = snapshot(Path("elsewhere"))
    config = parse_data(VOC2007)
    place_root(config, Path(given).resolve())
    manifest = run_prepare(**VOC2007)
    assert [manifest["splits"][split]["num_images"] for split in ("train", "test")] == [1, 1]
    assert [image["file_name"] for image in read("train")["images"]] == ["2007_1.jpg"]
    assert voc.requests == [] and snapshot(Path("elsewhere")) == before
    place_root(config, Path(given).resolve())  # a second time
    assert ROOT.resolve() == Path("elsewhere/VOCdevkit/VOC2007").resolve()


@pytest.mark.parametrize("root", ["elsewhere", "elsewhere/VOCdevkit", "elsewhere/VOCdevkit/VOC2007"])
def test_data_root_may_be_any_of_a_vocdevkits_folders(voc: Server, root: str) -> None:
    write_voc(Path("elsewhere/VOCdevkit/VOC2007"), {"trainval": {"1": [CAT]}, "test": {"2": [DOG]}})
    before = snapshot(Path("elsewhere"))
    run_prepare(**{**VOC2007, "root": root})
    assert voc.requests == [] and snapshot(Path("elsewhere")) == before


def test_a_coco_folder_elsewhere_is_used_in_place(coco: Server) -> None:
    before = snapshot(Path("made-coco"))
    place_root(parse_data(COCO2017), Path("made-coco").resolve())
    run_prepare(**COCO2017)
    assert coco.requests == [] and snapshot(Path("made-coco")) == before


@pytest.mark.parametrize("data", [VOC2007, COCO2017])
def test_nothing_is_unpacked_into_a_folder_of_something_else(server: Server, data: dict[str, str]) -> None:
    write(Path("elsewhere/thesis/chapter.txt"), "1")
    with pytest.raises(UserError, match=rf"(?s)does not have {data['download']}.*thesis.*data.archives"):
        place_root(parse_data(data), Path("elsewhere").resolve())
    assert not ROOT.is_symlink()


def test_an_empty_folder_elsewhere_is_downloaded_into(voc: Server) -> None:
    Path("elsewhere").mkdir()
    config = parse_data(VOC2007)
    place_root(config, Path("elsewhere").resolve())
    run_prepare(**VOC2007)
    assert len(voc.requests) == 2 and Path("elsewhere/VOCdevkit/VOC2007/JPEGImages").is_dir()
    place_root(config, Path("elsewhere").resolve())  # a download was started here
    assert ROOT.resolve() == Path("elsewhere").resolve()


def test_the_folder_of_the_data_itself_stays_as_it_is(voc: Server) -> None:
    write_voc(ROOT / "VOCdevkit/VOC2007", {"trainval": {"000005": [CAT]}, "test": {"000001": [DOG]}})
    place_root(parse_data(VOC2007), ROOT.resolve())
    assert ROOT.is_dir() and not ROOT.is_symlink()
