"""The caches of decoded images and their batches: every mode gives the same numbers."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT, Watcher, write_params
from data_helpers import save_image
from PIL import Image
from torch.nn.functional import interpolate

from fcos.commands.prepare import prepare
from fcos.commands.train import train
from fcos.data.cache import Images, choose, decoded_bytes, keep_images
from fcos.data.coco import CocoSplit
from fcos.data.dataset import DetectionDataset, load_ahead
from fcos.data.images import read_image
from fcos.data.transforms import IMAGENET_MEAN, IMAGENET_STD, View, make_batch
from fcos.errors import UserError
from fcos.files import sha256_file
from fcos.study.layout import Layout

CPU = torch.device("cpu")
SIZES = [(40, 60), (40, 60), (33, 47), (64, 32), (40, 60)]  # (height, width)
KEPT = ["ram", "disk"]


@pytest.fixture
def split(tmp_path):
    """Five images of three sizes with 0 to 4 boxes each."""
    images, annotations = [], []
    for number, (height, width) in enumerate(SIZES):
        save_image(tmp_path / "photos" / f"{number}.png", height=height, width=width)
        images.append({"id": 10 + number, "file_name": f"{number}.png", "height": height, "width": width})
        annotations += [
            {"image_id": 10 + number, "category_id": 3, "bbox": [1.3 + k, 2.1, 20.7, 15 + k / 3], "iscrowd": k % 2}
            for k in range(number)
        ]
    return CocoSplit(images, [{"id": 3, "name": "cat"}], annotations, tmp_path / "photos")


@pytest.fixture
def keep(split, tmp_path):
    return lambda cache, of=split: keep_images(of, cache, device=CPU, folder=tmp_path / ".scratch")


def file_of(folder):
    (file,) = (folder / ".scratch").glob("*.rgb")
    return file


def on_a_device(split):
    """Return decoded images as with `gpu`, on a device that every machine has."""
    return Images(split, torch.empty(decoded_bytes(split), dtype=torch.uint8, device=CPU))


def images_of(split, keep):
    return {"gpu": on_a_device(split), **{cache: keep(cache) for cache in ("auto", "ram", "disk", "none")}}


def test_every_mode_gives_the_same_samples(split, keep):
    expected = [read_image(split.path_of(image)) for image in split.images]
    for cache, images in images_of(split, keep).items():
        dataset = DetectionDataset(split, images)
        for _ in range(2):  # decoded first, then from the cache
            for batch in load_ahead(dataset, [[4, 0, 2], [1, 3]], workers=2):
                for sample in batch:
                    pixels = sample.image
                    assert torch.equal(pixels, torch.from_numpy(expected[sample.image_id - 10])), cache
                    assert (pixels.dtype, len(sample.ground_truth.labels)) == (torch.uint8, sample.image_id - 10)


@pytest.mark.parametrize("cache", ["ram", "disk", "none"])
def test_photographs_are_kept_at_a_fraction_of_their_size_and_boxes_stay_where_they_are(split, tmp_path, cache, capsys):
    """At a target of 20 x 30, images of 40 x 60 and 64 x 32 are halved; one of 33 x 47 is less than twice as large."""
    whole, small = (
        keep_images(split, cache, device=CPU, folder=tmp_path / ".scratch", shown=shown) for shown in (None, (20, 30))
    )
    assert [tuple(small[index].shape[:2]) for index in range(5)] == [(20, 30), (20, 30), (33, 47), (32, 16), (20, 30)]
    assert "; 4 downscaled: more than twice the size the network gets" in capsys.readouterr().err
    samples = [DetectionDataset(split, images)[4] for images in (whole, small)]
    batches = [make_batch([sample], [View((20, 30), flipped=True)], CPU) for sample in samples]
    assert torch.equal(batches[0].gt_boxes, batches[1].gt_boxes)
    assert samples[1].size == (40, 60)
    # Smaller images are equal bit for bit.
    assert torch.equal(whole[2], small[2])


@pytest.mark.parametrize("cache", KEPT)
def test_a_kept_image_is_decoded_once(split, keep, cache):
    images = keep(cache)
    first = images[1].clone()
    Image.new("RGB", (60, 40)).save(split.path_of(split.images[1]))
    assert torch.equal(images[1], first)
    assert not keep("none")[1].any()


# In a separate process, since other tests start threads too. With one thread, torch would copy without a pool.
READS_AHEAD = """
import os, threading
from pathlib import Path

import torch
from conftest import wait_until
from fcos.data.cache import Images, decoded_bytes
from fcos.data.coco import CocoSplit
from fcos.data.dataset import DetectionDataset, load_ahead

def threads_of_torch():
    return set(os.listdir("/proc/self/task")) - {str(thread.native_id) for thread in threading.enumerate()}

images = [{"id": 1 + n, "file_name": f"{n}.png", "height": 200, "width": 200} for n in range(4)]
split = CocoSplit(images, [{"id": 3, "name": "cat"}], [], Path())
dataset = DetectionDataset(split, Images(split, torch.empty(decoded_bytes(split), dtype=torch.uint8)))
torch.ones(10**6).add_(1)  # the team of this thread
before = threads_of_torch()
assert before
for _ in load_ahead(dataset, [[0], [1], [2], [3]], workers=2):
    wait_until(lambda: threads_of_torch() <= before)
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted in /proc")
def test_reading_ahead_starts_no_threads_of_torch(tmp_path):
    # 200 x 200 x 3 bytes are more than the 32,768 from which on torch copies in parallel.
    for number in range(4):
        save_image(tmp_path / f"{number}.png", height=200, width=200)
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", READS_AHEAD], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_auto_takes_the_first_place_with_room():
    # 100 bytes: a GPU needs 400 free, RAM 300, the disk 200.
    free = {"gpu": 400, "ram": 300, "disk": 200}
    assert choose(100, free) == "gpu"
    assert choose(100, free | {"gpu": 399}) == "ram"
    assert choose(100, free | {"gpu": 399, "ram": 299}) == "disk"
    assert choose(100, free | {"gpu": 399, "ram": 299, "disk": 199}) == "none"
    assert choose(0, free) == "none"


def test_a_gpu_that_is_not_there_is_a_mistake(keep):
    with pytest.raises(UserError, match=r"data.cache: (.|\n)*gpu, on cpu(.|\n)*set `cache: auto`"):
        keep("gpu")


@pytest.mark.parametrize("cache", KEPT)
def test_images_that_cannot_fit_are_a_mistake(split, keep, cache):
    split.images[0]["width"] = 10**15
    with pytest.raises(UserError, match=rf"data.cache: the decoded images do not fit\n.*{cache}, with \d+ MB free"):
        keep(cache)


@pytest.mark.parametrize("cache", ["ram", "disk", "none"])
@pytest.mark.parametrize("wrong", ["broken", "missing", "size"])
def test_a_wrong_image_is_the_same_mistake_in_every_mode(split, keep, cache, wrong, tmp_path):
    path = split.path_of(split.images[3])
    if wrong == "broken":
        path.write_bytes(path.read_bytes()[:60])
    elif wrong == "missing":
        path.unlink()
    else:
        Image.new("RGB", (31, 64)).save(path)
    with pytest.raises(UserError) as expected:
        read_image(path, SIZES[3])
    with pytest.raises(UserError) as found:
        [keep(cache)[index] for index in range(5)]
    assert str(found.value) == str(expected.value)
    assert not list(tmp_path.glob(".scratch/*.rgb")) and not list(tmp_path.glob(".scratch/.*.part"))


def test_the_file_is_written_once_and_anew_where_it_is_not_whole(split, keep, tmp_path):
    keep("disk")
    file = file_of(tmp_path)
    content, written = file.read_bytes(), file.stat().st_mtime_ns
    assert len(content) == decoded_bytes(split) == sum(3 * height * width for height, width in SIZES)
    keep("disk")
    assert file.stat().st_mtime_ns == written
    left = file.with_name(f".{file.name}.12345.part")  # of a writer that was killed
    left.touch()
    os.truncate(file, 1000)
    assert torch.equal(keep("disk")[4], torch.from_numpy(read_image(split.path_of(split.images[4]))))
    assert file.read_bytes() == content and not left.exists()


def test_other_images_have_a_file_of_their_own(split, keep, tmp_path):
    keep("disk")
    split.images[0]["sha256"] = "other"
    keep("disk", CocoSplit(split.images, split.categories, split.annotations, split.image_dir))
    assert len(list((tmp_path / ".scratch").glob("*.rgb"))) == 2


def test_a_folder_that_cannot_be_written_is_a_mistake(split, tmp_path):
    (tmp_path / "taken").touch()
    with pytest.raises(UserError, match=r"(?s)cannot be written.*set `cache: none`"):
        keep_images(split, "disk", device=CPU, folder=tmp_path / "taken" / ".scratch")


@pytest.mark.slow
def test_processes_at_once_share_one_file(workspace):
    prepare()
    code = (
        "import torch; from pathlib import Path; from fcos.data.cache import keep_images; from fcos.files import *;"
        "from fcos.data.coco import read_split; split = read_split(Path('data/smoke'), 'train');"
        "kept = keep_images(split, 'disk', device=torch.device('cpu'), folder=Path('data/.scratch'));"
        "print(sha256_bytes(b''.join(kept[i].numpy().tobytes() for i in range(len(kept)))))"
    )
    command, env = [sys.executable, "-c", code], {**os.environ, "PYTHONPATH": str(ROOT)}
    running = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = {process.communicate()[0].strip() for process in running}
    assert said == {sha256_file(next(Path("data/.scratch").glob("*.rgb")))}


# Batches -------------------------------------------------------------------------------------------------------------


def one_by_one(samples, views, height, width):
    """The images of a batch, each image on its own: the arithmetic that `make_batch` must keep to the last bit."""
    images = torch.zeros(len(samples), 3, height, width)
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    for image, sample, view in zip(images, samples, views, strict=True):
        pixels = sample.image.permute(2, 0, 1)[None].float() / 255
        if pixels.shape[2:] != view.size:
            pixels = interpolate(pixels, size=view.size, mode="bilinear", align_corners=False, antialias=False)
        shown = (pixels[0] - mean) / std
        image[:, : view.size[0], : view.size[1]] = shown.flip(-1) if view.flipped else shown
    return images


VIEWS = {
    "one size": [View((64, 96), flipped) for flipped in (False, True, False, True, False)],
    "as they are": [View(size) for size in SIZES],
    "mixed": [View((48, 72)), View((48, 72), True), View((90, 61)), View((31, 70), True), View((80, 120))],
}


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("views", VIEWS.values(), ids=VIEWS)
def test_a_batch_has_the_bits_of_its_images_one_by_one(split, views, memory_format):
    dataset = DetectionDataset(split)
    samples = [dataset[index] for index in range(5)]
    batch = make_batch(samples, views, CPU, memory_format)
    height, width = batch.images.shape[2:]
    assert batch.images.dtype == torch.float32 and batch.images.is_contiguous(memory_format=memory_format)
    assert torch.equal(batch.images, one_by_one(samples, views, height, width))
    assert batch.image_sizes.tolist() == [list(view.size) for view in views]


def test_boxes_of_a_batch_are_padded(split):
    dataset = DetectionDataset(split)
    views = VIEWS["one size"]
    batch = make_batch([dataset[index] for index in range(5)], views, CPU)
    assert (batch.gt_boxes.shape, batch.gt_boxes.dtype) == ((5, 4, 4), torch.float32)
    for row, (view, (height, width)) in enumerate(zip(views, SIZES, strict=True)):
        truth = dataset.ground_truth(row)
        scale = torch.tensor([view.size[1] / width, view.size[0] / height]).repeat(2)
        x1, y1, x2, y2 = (truth.boxes * scale).unbind(1)
        left, right = (view.size[1] - x2, view.size[1] - x1) if view.flipped else (x1, x2)
        assert torch.equal(batch.gt_boxes[row, :row], torch.stack((left, y1, right, y2), dim=1))
        assert batch.gt_labels[row].tolist() == [0] * row + [-1] * (4 - row)
        assert batch.gt_ignored[row].tolist() == [k % 2 == 1 and k < row for k in range(4)]
        assert not batch.gt_boxes[row, row:].any()


def test_a_batch_without_boxes(split):
    batch = make_batch([DetectionDataset(split)[0]], [View((32, 32))], CPU)
    assert (batch.gt_boxes.shape, batch.gt_labels.shape, batch.gt_ignored.shape) == ((1, 0, 4), (1, 0), (1, 0))


def test_every_mode_gives_the_same_batches(split, keep):
    for views in VIEWS.values():
        batches = [
            make_batch([DetectionDataset(split, images)[index] for index in range(5)], views, CPU)
            for images in images_of(split, keep).values()
        ]
        for batch in batches[1:]:
            for name in ("images", "image_sizes", "gt_boxes", "gt_labels", "gt_ignored"):
                assert torch.equal(getattr(batch, name), getattr(batches[0], name))


def test_a_batch_for_training_after_one_for_prediction(split):
    """Tensors that are cached in inference mode must not be used by autograd."""
    samples, views = [DetectionDataset(split)[0]], [View((32, 64))]
    with torch.inference_mode():
        make_batch(samples, views, CPU)
    network = torch.nn.Conv2d(3, 1, 3)
    network(make_batch(samples, views, CPU).images).sum().backward()
    assert network.weight.grad is not None


# Training ------------------------------------------------------------------------------------------------------------


def test_the_mode_changes_no_loss_no_weight_and_no_record(workspace, smoke_params, capfd):
    smoke_params["data"]["num_train"] = 4  # 1 + 1 epochs of one step
    results = []
    for cache in ("auto", "ram", "disk", "none"):
        smoke_params["data"]["cache"] = cache
        write_params(smoke_params)
        manifest = prepare()
        assert "cache" not in json.dumps(manifest)
        capfd.readouterr()
        shutil.rmtree("runs", ignore_errors=True)  # also the finished training, which would be restored
        watcher = Watcher()
        train("one-epoch", watcher)
        assert capfd.readouterr().err.count("images: 4 ") == 1
        losses = [{name: value for name, value in row.items() if name != "images_per_s"} for row in watcher.seen]
        assert len(losses) == 2
        results.append((losses, watcher.key, sha256_file(Layout("smoke").weights("one-epoch")), manifest["splits"]))
    assert results[1:] == results[:-1]
    assert list(Path("data/.scratch").glob("*.rgb")) and not list(Path("data/smoke").rglob("*.rgb"))
