"""Images in shards of an object store: the same images in the same order, whatever happens to the store."""

import errno
import json
import shutil
import tarfile
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT, assert_mistake, write_params
from data_helpers import DATA, STUDY, read, run_prepare, small_yolo, write
from safetensors.torch import load_file

from fcos.commands.doctor import shard_findings
from fcos.commands.prepare import prepare
from fcos.commands.train import train
from fcos.config.section import read_params
from fcos.data import shards
from fcos.data.cache import Images, keep_images
from fcos.data.coco import CocoSplit, read_split
from fcos.data.dataset import DetectionDataset, load_ahead
from fcos.data.shards import SHARD_BYTES, Store, ToWrite, has_secret, write_shards
from fcos.errors import UserError
from fcos.study.layout import Layout
from fcos.system_errors import explain

YOLO = {"source": "yolo", "root": "yolo", "classes": ["cat", "dog"]}
CPU = torch.device("cpu")
LINE = "0 0.5 0.5 0.5 0.5"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def url(tmp_path):
    return f"file://{tmp_path}/store"


KEPT = Path("data/.scratch/shards")


@pytest.fixture
def without_room(monkeypatch):
    """A disk that has no room for shards."""
    monkeypatch.setattr(shards, "DISK_TIMES", float("inf"))


@pytest.fixture
def asked(monkeypatch, without_room):
    """The requests for ranges: how many at a time."""
    counts, ranges = [], Store.ranges

    def counted(self, names, starts, ends):
        counts.append(len(names))
        return ranges(self, names, starts, ends)

    monkeypatch.setattr(Store, "ranges", counted)
    return counts


def many():
    """Ten training images, of about 1 KB each."""
    small_yolo(**{f"image{number}": [LINE] for number in range(8)})


def stored():
    return sorted(path.name for path in Path("store").iterdir())


def from_files():
    """The training split as it would be without shards."""
    split = read_split(DATA, "train")
    return CocoSplit(list(split.images), split.categories, list(split.annotations), split.image_dir)


@pytest.mark.parametrize("shard_bytes", [1, 4000, SHARD_BYTES])
@pytest.mark.parametrize("cache", ["none", "ram", "disk"])
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("room", [True, False])
def test_shards_give_the_images_of_the_files(request, monkeypatch, url, shard_bytes, cache, workers, room):
    many()
    if not room:
        request.getfixturevalue("without_room")
    monkeypatch.setattr(shards, "SHARD_BYTES", shard_bytes)
    manifest = run_prepare(**YOLO, shards=url)
    names = [name for split in ("train", "test") for name in manifest["splits"][split]["shards"]["files"]]
    assert sorted(names) == stored() and len(set(names)) == {1: 11, SHARD_BYTES: 2}.get(shard_bytes, len(names))
    whole = Images(from_files())
    expected = [whole[index].clone() for index in range(len(whole))]
    shutil.rmtree("yolo")
    shutil.rmtree(KEPT, ignore_errors=True)
    images = keep_images(read_split(DATA, "train"), cache, device=CPU, folder=Path("scratch"))
    order = [[3, 1], [9, 0, 7], [2], [3, 4, 5, 6, 8, 1]]
    dataset = DetectionDataset(read_split(DATA, "train"), images)
    for indices, samples in zip(order, load_ahead(dataset, order, workers=workers), strict=True):
        assert all(torch.equal(sample.image, expected[index]) for index, sample in zip(indices, samples, strict=True))
    names = manifest["splits"]["train"]["shards"]["files"]
    assert sorted(path.name for path in KEPT.glob("*.tar")) == (sorted(names) if room else [])


def test_a_shard_is_fetched_once_by_all_processes_of_a_machine(monkeypatch, url):
    many()
    (name,) = run_prepare(**YOLO, shards=url)["splits"]["train"]["shards"]["files"]
    fetched, download = [], Store.download
    monkeypatch.setattr(Store, "download", lambda *given: fetched.append(given[1]) or download(*given))
    for _ in range(2):  # as two processes would
        split = read_split(DATA, "train")
        for image in split.images:
            split.pixels(image)
    assert fetched == [name]
    (KEPT / name).unlink()  # which people may do at any time
    split.pixels(split.images[0])
    read_split(DATA, "train").pixels(split.images[0])
    assert fetched == [name, name]


def test_neighbours_are_fetched_by_one_request(monkeypatch, url, asked):
    many()
    run_prepare(**YOLO, shards=url)
    dataset = DetectionDataset(read_split(DATA, "train"))
    for _ in load_ahead(dataset, [[0, 1, 2, 3], [9, 8, 7, 6]], workers=0):
        pass
    assert asked == [1, 1]
    monkeypatch.setattr(shards, "GAP", 0)
    asked.clear()
    for _ in load_ahead(DetectionDataset(read_split(DATA, "train")), [[0, 4, 9]], workers=0):
        pass
    assert asked == [3]  # three ranges, of one call


def test_the_file_of_decoded_images_is_filled_in_the_order_of_the_shards(url, asked):
    many()
    run_prepare(**YOLO, shards=url)
    keep_images(read_split(DATA, "train"), "disk", device=CPU, folder=Path("scratch"))
    assert asked == [1]


def test_a_shard_is_a_tar_file_that_is_uploaded_once(monkeypatch, url):
    monkeypatch.setattr(shards, "SHARD_BYTES", 2000)
    many()
    run_prepare(**YOLO, shards=url)
    before = {name: (Path("store") / name).stat().st_mtime_ns for name in stored()}
    for name, shard in zip(read("manifest")["splits"]["test"]["shards"]["files"], ["c.jpg"], strict=True):
        with tarfile.open(Path("store") / name) as tar:
            assert tar.getnames() == [shard]
            assert tar.extractfile(shard).read() == Path("yolo/images/val", shard).read_bytes()
    small_yolo(**{f"image{number}": [LINE] for number in range(9)})  # one more, the last by name
    run_prepare(**YOLO, shards=url)
    after = {name: (Path("store") / name).stat().st_mtime_ns for name in stored()}
    assert before.items() <= after.items() and 1 <= len(after) - len(before) <= 2


def test_a_training_from_shards_has_the_weights_of_one_from_files(url, smoke_params):
    many()
    data = {**YOLO, "validation_fraction": 0.0}
    weights = []
    for of_store in (None, url):
        write_params({**smoke_params, "study": STUDY, "data": {**data, "shards": of_store, "cache": "none"}})
        prepare()
        shutil.rmtree(Layout(STUDY).runs, ignore_errors=True)
        train("one-epoch", None)
        weights.append(load_file(Layout(STUDY).weights("one-epoch")))
    assert read("manifest")["splits"]["train"]["shards"]["url"] == url
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_the_option_writes_shards_once(run, url, smoke_params, capsys):
    many()
    write_params({**smoke_params, "study": STUDY, "data": YOLO})
    done = run("prepare", "--shards", url)
    assert f"train: 10 images, 10 objects; images are read from 1 shard at {url}" in done.stdout
    again = run("prepare")
    assert f"images are now read from files instead of {url}" in again.stderr and url not in again.stdout
    assert "shards" not in read("manifest")["splits"]["train"] and not (DATA / "train.shards.npy").exists()
    assert read_params()["data"] == YOLO


def spoil(path):
    path.write_bytes(path.read_bytes()[:512] + b"x" + path.read_bytes()[513:])


@pytest.mark.parametrize(
    ("damage", "room", "parts"),
    [
        (Path.unlink, True, ["store: the images cannot be read"]),
        (Path.unlink, False, ["store: the images cannot be read"]),
        (lambda path: path.write_bytes(b""), True, [".tar: has changed", "delete it in the store"]),
        (lambda path: path.write_bytes(b""), False, ["has changed", "found:    0 bytes with another sha256"]),
        (spoil, True, [".tar: has changed", "delete it in the store"]),
        (spoil, False, [".tar: a.jpg: has changed", "delete it in the store"]),
    ],
)
def test_a_store_that_lost_an_image_is_told(request, url, damage, room, parts):
    many()
    if not room:
        request.getfixturevalue("without_room")
    (name,) = run_prepare(**YOLO, shards=url)["splits"]["train"]["shards"]["files"]
    damage(Path("store") / name)
    split = read_split(DATA, "train")
    with pytest.raises(UserError) as told:
        split.pixels(split.images[0])
    assert all(part in str(told.value) for part in parts)
    for workers in (0, 2):
        with pytest.raises(UserError):
            list(load_ahead(DetectionDataset(split), [[0], [1]], workers=workers))
    assert not list(KEPT.glob("*.tar"))


def test_a_shard_that_is_damaged_on_the_disk_is_told(url):
    many()
    (name,) = run_prepare(**YOLO, shards=url)["splits"]["train"]["shards"]["files"]
    split = read_split(DATA, "train")
    split.pixels(split.images[0])
    spoil(KEPT / name)
    with pytest.raises(UserError, match=rf"{name}: a.jpg: has changed[\s\S]*delete this file"):
        read_split(DATA, "train").pixels(split.images[0])


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ("no-such://store", ["--shards: is not the URL of a store", "no-such"]),
        ("bucket/pets", ["--shards: is not the URL of a store", "s3://BUCKET/FOLDER"]),
        ("", ["--shards: is not the URL of a store", "found:    ''"]),
        ("s3://", ["--shards: is not the URL of a store"]),
        ("s3:/pets", ["--shards: is not the URL of a store"]),
        ("s3:///pets", ["--shards: is not the URL of a store"]),
        ("file://relative", ["--shards: is not the URL of a store"]),
        ("memory://pets", ["--shards: is not the URL of a store"]),
        ("https://store/a?sig=sesame", ["--shards", "password or a token", "https://store/a"]),
        ("ftp://localhost:1/a", ["ftp://localhost:1/a: the images cannot be read", "refused"]),
        ("s3://key:sesame@store/folder", ["--shards", "password", "s3://***@store/folder", "AWS_ACCESS_KEY_ID"]),
        ("file:///proc/no/such", ["file:///proc/no/such: the images cannot be written"]),
    ],
)
def test_stores_that_cannot_be_used(run, given, parts, smoke_params):
    many()
    write_params({**smoke_params, "study": STUDY, "data": YOLO})
    done = run("prepare", "--shards", given)
    assert_mistake(done, *parts)
    assert "sesame" not in done.stderr and not DATA.exists()


def test_names_of_containers_are_no_secrets():
    assert not has_secret("abfs://my-training-images@account.dfs.core.windows.net/pets")
    assert has_secret("s3://key:sesame@store/a") and has_secret("https://store/a?x=1&access_token=ab")


def test_a_shard_that_was_cut_off_is_uploaded_again(url):
    many()
    (name,) = run_prepare(**YOLO, shards=url)["splits"]["train"]["shards"]["files"]
    whole = (Path("store") / name).read_bytes()
    (Path("store") / name).write_bytes(whole[:700])
    run_prepare(**YOLO, shards=url)
    assert (Path("store") / name).read_bytes() == whole


def test_an_image_that_changes_while_it_is_prepared_is_refused(url):
    many()
    images = [ToWrite(1, "a.jpg", Path("yolo/images/train/a.jpg"), "another sha256")]
    with pytest.raises(UserError, match=r"a\.jpg: changed while it was prepared"):
        write_shards(url, images, "train")


def test_shards_keep_no_files_open(monkeypatch, url):
    """A machine may allow 1,024 open files, and a data set have more shards."""
    many()
    monkeypatch.setattr(shards, "SHARD_BYTES", 1)
    run_prepare(**YOLO, shards=url)
    split = read_split(DATA, "train")
    split.pixels(split.images[0])
    before = len(list(Path("/proc/self/fd").iterdir()))
    for image in split.images:
        split.pixels(image)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


def test_a_full_disk_is_no_fault_of_the_store_and_may_be_cleared(monkeypatch, url):
    many()
    run_prepare(**YOLO, shards=url)
    split = read_split(DATA, "train")
    with monkeypatch.context() as patch:
        full = OSError(errno.ENOSPC, "No space left on device", "shard.tar")
        patch.setattr(type(split.shards.store._files), "get_file", lambda *_, **__: (_ for _ in ()).throw(full))
        with pytest.raises(OSError, match="No space left") as told:
            split.pixels(split.images[0])
        assert "no space left on its disk" in str(explain(told.value))
    assert split.pixels(split.images[0]).shape == (40, 60, 3)  # the same reader tries again


def test_an_empty_shard_on_the_disk_is_fetched_again(url):
    """As a power failure may leave it; so is one that another version left shorter."""
    many()
    (name,) = run_prepare(**YOLO, shards=url)["splits"]["train"]["shards"]["files"]
    for left in (b"", b"short"):
        write(KEPT / name, left.decode())
        write(KEPT / f".{name}.other-1.part", "of a killed process")
        split = read_split(DATA, "train")
        assert split.pixels(split.images[0]).shape == (40, 60, 3)
        assert not list(KEPT.glob(".*.part"))


def test_room_is_that_of_the_missing_shards(monkeypatch, url):
    many()
    monkeypatch.setattr(shards, "SHARD_BYTES", 1)
    run_prepare(**YOLO, shards=url)
    sizes = [path.stat().st_size for path in Path("store").iterdir()]
    for free, kept in ((2 * sum(sizes), True), (10_000, False)):
        monkeypatch.setattr(shards.shutil, "disk_usage", lambda _, free=free: SimpleNamespace(free=free))
        assert read_split(DATA, "train").shards._keeps_whole == kept
    split = read_split(DATA, "train")
    monkeypatch.setattr(shards.shutil, "disk_usage", lambda _: SimpleNamespace(free=2 * sum(sizes)))
    split.pixels(split.images[0])
    monkeypatch.setattr(shards.shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    assert not read_split(DATA, "train").shards._keeps_whole
    for image in split.images:
        split.pixels(image)
    assert read_split(DATA, "train").shards._keeps_whole


def test_an_end_does_not_wait_for_what_was_asked_for(monkeypatch, url):
    many()
    monkeypatch.setattr(shards, "SHARD_BYTES", 1)
    run_prepare(**YOLO, shards=url)
    begun, go_on, download = [], threading.Event(), Store.download

    def slow(self, name, path):
        begun.append(name)
        assert go_on.wait(60)
        download(self, name, path)

    split = read_split(DATA, "train")
    dataset = DetectionDataset(split)
    split.pixels(split.images[0])
    monkeypatch.setattr(Store, "download", slow)
    batches = load_ahead(dataset, [[index] for index in range(10)], workers=0)
    next(batches)  # of a shard that is there; eight others are asked for
    batches.close()
    go_on.set()
    split.shards._pool.shutdown(wait=True)
    assert 0 < len(begun) <= shards.FETCHING


def test_an_image_that_is_asked_for_twice_is_fetched_once(url, asked):
    many()
    run_prepare(**YOLO, shards=url)
    dataset = DetectionDataset(read_split(DATA, "train"))
    order = [[0], [1], [0], [0]]
    assert [[sample.image_id for sample in of] for of in load_ahead(dataset, order, workers=0)] == [[1], [2], [1], [1]]
    assert sum(asked) == 2 and not dataset.split.shards._coming


def test_the_parent_of_a_store_must_exist(run, tmp_path, smoke_params):
    """It may be a share that is not mounted, in whose place the local disk would be filled."""
    many()
    write_params({**smoke_params, "study": STUDY, "data": YOLO})
    assert_mistake(run("prepare", "--shards", f"file://{tmp_path}/mnt/share"), "cannot be written", "parent folder")
    assert not Path("mnt").exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda shards_of: shards_of.update(files=["../../passwd"]),
        lambda shards_of: shards_of.update(files=[]),
        lambda _: np.save(DATA / "train.shards.npy", np.load(DATA / "train.shards.npy")[::-1]),
        lambda _: np.save(DATA / "train.shards.npy", np.zeros(10, shards.PLACES)),
    ],
)
def test_places_that_were_changed_are_refused(url, damage):
    many()
    run_prepare(**YOLO, shards=url)
    content = read("manifest")
    damage(content["splits"]["train"]["shards"])
    write(DATA / "manifest.json", json.dumps(content))
    with pytest.raises(UserError, match=r"is damaged|is in no shard"):
        split = read_split(DATA, "train")
        split.pixels(split.images[0])


def test_the_doctor_asks_the_store(url):
    many()
    splits = run_prepare(**YOLO, shards=url)["splits"]
    assert [(of.value, of.problem) for of in shard_findings(splits)] == [(f"{s}: 1 at {url}", None) for s in splits]
    (Path("store") / splits["test"]["shards"]["files"][0]).unlink()
    train, test = shard_findings(splits)
    assert train.problem is None and "missing in the store" in test.problem


def test_json_that_was_changed_by_hand_keeps_its_shards(url):
    many()
    run_prepare(**YOLO, shards=url)
    shutil.rmtree("yolo")
    content = read("train")
    content["annotations"] = []
    write(DATA / "train.json", json.dumps(content))
    split = read_split(DATA, "train")
    assert len(split.annotations) == 0 and split.pixels(split.images[3]).shape == (40, 60, 3)
    with pytest.raises(UserError, match="an image is in no shard"):
        split.pixels({**split.images[0], "id": 77})


def test_drawn_images_need_no_shards(run, url, smoke_params):
    write_params(smoke_params)
    assert_mistake(run("prepare", "--shards", url), "--shards: has no effect", "data.source: shapes")


def test_shards_without_their_folder_are_shown_by_the_demo_and_the_report(url):
    many()
    run_prepare(**YOLO, shards=url)
    expected = from_files().pixels(from_files().images[2])
    shutil.rmtree("yolo")
    split = read_split(DATA, "train")
    assert np.array_equal(split.pixels(split.images[2]), expected)
    content = read("manifest")
    for counts in content["splits"].values():
        counts.pop("shards")
    write(DATA / "manifest.json", json.dumps(content))
    with pytest.raises(UserError, match="the image folder no longer exists"):
        read_split(DATA, "train")


def test_the_setting_is_documented():
    assert "`fcos prepare --shards URL`" in (ROOT / "docs/site/keys.yaml").read_text()


@pytest.mark.parametrize("room", [True, False])
def test_a_reading_that_ends_in_the_middle_of_another_one(request, monkeypatch, url, room):
    """A generator that reads ahead may be collected at any time, also while this thread asks for images."""
    many()
    if not room:
        request.getfixturevalue("without_room")
    run_prepare(**YOLO, shards=url)
    split = read_split(DATA, "train")
    submit = split.shards._pool.submit
    monkeypatch.setattr(split.shards._pool, "submit", lambda *given: split.shards.cancel() or submit(*given))
    batches = load_ahead(DetectionDataset(split), [[0, 1], [1, 2], [2, 2]], workers=0)
    assert [[sample.image_id for sample in batch] for batch in batches] == [[1, 2], [2, 3], [3, 3]]
