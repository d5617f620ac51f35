"""Images in shards of an object store: the same images in the same order, whatever happens to the store."""

import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, assert_mistake, write_params
from data_helpers import DATA, STUDY, read, run_prepare, small_yolo, write
from safetensors.torch import load_file

from fcos.commands.prepare import prepare
from fcos.commands.train import train
from fcos.config.section import read_params
from fcos.data import shards
from fcos.data.cache import Images, keep_images
from fcos.data.coco import CocoSplit, read_split
from fcos.data.dataset import DetectionDataset, load_ahead
from fcos.data.shards import SHARD_BYTES, Store
from fcos.errors import UserError
from fcos.study.layout import Layout

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
    fetched, read_shard = [], Store.read
    monkeypatch.setattr(Store, "read", lambda *given: fetched.append(given[1]) or read_shard(*given))
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
    assert f"train: 10 images, 10 objects; images are read from 1 shards at {url}" in done.stdout
    again = run("prepare")
    assert f"the images are read from files again, not from {url}" in again.stderr and url not in again.stdout
    assert "shards" not in read("manifest")["splits"]["train"] and not (DATA / "train.shards.npy").exists()
    assert read_params()["data"] == YOLO


def spoil(path):
    path.write_bytes(path.read_bytes()[:512] + b"x" + path.read_bytes()[513:])


@pytest.mark.parametrize(
    ("damage", "room", "parts"),
    [
        (Path.unlink, True, ["store: the images cannot be read"]),
        (Path.unlink, False, ["store: the images cannot be read"]),
        (lambda path: path.write_bytes(b""), True, [".tar: has changed", "fcos prepare --shards"]),
        (lambda path: path.write_bytes(b""), False, ["has changed", "found:    0 bytes with another sha256"]),
        (spoil, True, [".tar: has changed", "fcos prepare --shards"]),
        (spoil, False, ["a.jpg: has changed", "fcos prepare --shards"]),
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
        ("no-such://store", ["data.shards", "no-such"]),
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
    with pytest.raises(UserError, match="the image folder no longer exists"):
        content = read("manifest")
        for counts in content["splits"].values():
            counts.pop("shards", None)
        write(DATA / "manifest.json", __import__("json").dumps(content))
        read_split(DATA, "train")


def test_the_setting_is_documented():
    assert "`fcos prepare --shards URL`" in (ROOT / "docs/site/keys.yaml").read_text()
