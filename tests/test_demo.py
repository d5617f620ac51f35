"""`fcos demo`: the server, which answers only its own page, and the page in a real browser."""

import contextlib
import http.client
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import tracemalloc
import zlib
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import LIMIT_S, ROOT, wait_until
from data_helpers import exif, pixels
from model_helpers import RUN, make_study
from PIL import Image
from playwright.sync_api import expect

from fcos.config import params
from fcos.errors import UserError
from fcos.inference import demo as demo_module
from fcos.inference import demo_server
from fcos.inference.demo import Demo
from fcos.inference.demo_server import make_server
from fcos.inference.detector import Detector, Weights

WEIGHTS = Path("runs/smoke") / RUN / "model.safetensors"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_study(tmp_path_factory.mktemp("study"), num_test=30)


@pytest.fixture
def study(made, tmp_path, monkeypatch):
    shutil.copytree(made, tmp_path / "study")
    monkeypatch.chdir(tmp_path / "study")


@pytest.fixture
def server(study):
    read = params.read()
    with make_server(Demo(read.study, read.runs, read.test), 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def url(server):
    """Requested before `page`, so that the page is closed before the server."""
    return f"http://127.0.0.1:{server.server_port}/"


def request(server, method, path, body=None, **headers):
    """Return status and body, with JSON as plain data."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=LIMIT_S)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, json.loads(content) if answer.headers["Content-Type"] == "application/json" else content


def png(width=80, height=60, **options):
    stream = io.BytesIO()
    Image.fromarray(pixels("upload", width=width, height=height)).save(stream, "PNG", **options)
    return stream.getvalue()


def detect(server, image, score=0.3, nms=0.6, run=RUN):
    return request(server, "POST", "/detections", json.dumps({"image": image, "run": run, "score": score, "nms": nms}))


# The server ----------------------------------------------------------------------------------------------------------


def test_it_knows_the_runs_with_weights_and_the_test_images(server):
    status, found = request(server, "GET", "/study")
    assert status == 200 and found["study"] == "smoke" and len(found["images"]) == 30
    assert [run["name"] for run in found["runs"]] == ["reference", RUN]
    WEIGHTS.unlink()
    assert [run["name"] for run in request(server, "GET", "/study")[1]["runs"]] == ["reference"]
    assert detect(server, found["images"][0])[0] == 404


def test_its_boxes_are_those_of_detect(server):
    image = request(server, "POST", "/images", png())[1]["image"]
    status, found = detect(server, image, score=0.4, nms=0.5)
    weights = Weights.find(RUN).with_test(score_threshold=0.4, nms_iou_threshold=0.5)
    assert status == 200 and found["detections"] == Detector(weights)([pixels("upload", width=80, height=60)])[0] != []
    assert (found["width"], found["height"]) == (80, 60)


def test_the_network_runs_once_for_an_image_and_a_run(server):
    runs = []
    for image in ("test-17", "test-18"):
        for run in (RUN, "reference"):
            for score, nms in ((0.3, 0.6), (0.5, 0.6), (0.3, 0.2)):
                runs.append(detect(server, image, score, nms, run)[1]["network_runs"])
    assert runs == [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4]
    os.utime(WEIGHTS, (1, 1))  # as after another training
    assert detect(server, "test-17")[1]["network_runs"] == 5


def test_images_are_turned_as_their_exif_says(server):
    name = request(server, "POST", "/images", png(exif=exif(6)))[1]["image"]
    _, shown = request(server, "GET", f"/images/{name}")
    with Image.open(io.BytesIO(shown)) as image:
        assert image.size == (60, 80)
    found = detect(server, name)[1]
    assert (found["width"], found["height"]) == (60, 80)


def test_uploads_that_are_no_images_are_refused(server, monkeypatch):
    assert "not a supported image" in request(server, "POST", "/images", b"hello")[1]["error"]
    assert "damaged" in request(server, "POST", "/images", png()[:300])[1]["error"]
    monkeypatch.setattr(demo_module, "MAX_PIXELS", 1000)
    assert "too large, 80 x 60" in request(server, "POST", "/images", png())[1]["error"]
    status, found = request(server, "POST", "/images", Content_Length=str(10**9))
    assert status == 413 and "33,554,432 bytes are the limit" in found["error"]
    assert request(server, "POST", "/images", Content_Length="-1")[0] == 411


def test_old_uploads_go(server, monkeypatch):
    monkeypatch.setattr(demo_module, "KEPT_UPLOADS", 2)
    names = [request(server, "POST", "/images", png(width=width))[1]["image"] for width in (40, 50, 60)]
    assert [request(server, "GET", f"/images/{name}")[0] for name in names] == [404, 200, 200]


def test_uploads_are_kept_as_files_and_not_as_pixels(server, monkeypatch):
    """Eight images of 4 million pixels and a few kB would take 96 MB when decoded."""
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for shade in range(8):
        stream = io.BytesIO()
        Image.new("RGB", (2000, 2000), (shade, 0, 0)).save(stream, "PNG", compress_level=1)
        assert request(server, "POST", "/images", stream.getvalue())[0] == 200
    kept = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert kept < 12 << 20  # smaller than one of the images
    monkeypatch.setattr(demo_module, "KEPT_BYTES", 3 * len(png()))
    names = [request(server, "POST", "/images", png(height=height))[1]["image"] for height in (59, 60, 61, 62)]
    assert [request(server, "GET", f"/images/{name}")[0] for name in names][0::3] == [404, 200]


@pytest.mark.parametrize(
    "head",
    ["POST /images HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1000000\r\n\r\n", "GET /study HTTP/1.1\r\nX: ", ""],
    ids=["body", "header", "first line"],
)
def test_a_client_that_sends_drop_by_drop_is_left(server, monkeypatch, head):
    monkeypatch.setattr(demo_server, "REQUEST_S", 0.2)
    with socket.create_connection(("127.0.0.1", server.server_port)) as client:
        client.sendall(head.format(host=f"127.0.0.1:{server.server_port}").encode())
        client.setblocking(False)

        def answered():
            try:
                return client.recv(1000) or b"closed"
            except BlockingIOError:
                pass
            except ConnectionError:
                return b"closed"
            with contextlib.suppress(BlockingIOError, ConnectionError):
                client.send(b"x")
            return None

        assert (b" 408 " if "POST" in head else b"closed") in wait_until(answered)


def raw(server, head, body=b""):
    """What a client receives that sends these bytes; {host} is the address of the server."""
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=LIMIT_S) as client:
        client.sendall(head.format(host=f"127.0.0.1:{server.server_port}").replace("\n", "\r\n").encode() + body)
        client.shutdown(socket.SHUT_WR)
        return client.makefile("rb").read()


POST = "POST /detections HTTP/1.1\nHost: {host}\n"
NEXT = "GET /study HTTP/1.1\nHost: {host}\n\n"


AMBIGUOUS = {
    "two lengths": (f"{POST}Content-Length: 4\nContent-Length: 0\n\nnull{NEXT}", 400),
    "a length and parts": (f"{POST}Content-Length: 4\nTransfer-Encoding: chunked\n\nnull{NEXT}", 411),
    "parts": (f"{POST}Transfer-Encoding: chunked\n\n4\nnull\n0\n\n{NEXT}", 411),
    "a length without end": (f"{POST}Content-Length: {'9' * 5000}\n\n{NEXT}", 413),
    "a length below zero": (f"{POST}Content-Length: -4\n\nnull{NEXT}", 411),
    "a signed length": (f"{POST}Content-Length: +4\n\nnull{NEXT}", 411),
    "a body where none belongs": (f"GET /study HTTP/1.1\nHost: {{host}}\nContent-Length: 4\n\n{NEXT}", 400),
    "two hosts": (f"GET /study HTTP/1.1\nHost: {{host}}\nHost: evil.example\n\n{NEXT}", 400),
    "no host": (f"GET /study HTTP/1.0\n\n{NEXT}", 403),
}


@pytest.mark.parametrize(("sent", "status"), AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_a_request_that_can_be_read_in_two_ways_is_refused_and_nothing_after_it_is_read(server, capsys, sent, status):
    answer = raw(server, sent)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode()) and answer.count(b"HTTP/1.1 ") == 1
    assert b"Connection: close" in answer and capsys.readouterr().err == ""


def test_a_body_that_never_comes_is_no_traceback(server, capsys, monkeypatch):
    monkeypatch.setattr(demo_server, "REQUEST_S", 0.2)
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=LIMIT_S) as client:
        client.sendall(f"{POST}Content-Length: 4\n\n".format(host=f"127.0.0.1:{server.server_port}").encode())
        assert b" 408 " in client.recv(1000)
    assert capsys.readouterr().err == ""


def test_requests_sent_at_once_are_answered_in_turn(server):
    asked = json.dumps({"image": "test-17", "run": RUN, "score": 0.3, "nms": 0.6})
    answer = raw(server, NEXT + POST + f"Content-Length: {len(asked)}\n\n", asked.encode()) + raw(server, 3 * NEXT)
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == 5 * [b"200"]


def test_connections_beyond_the_limit_are_closed(server):
    server.connections = threading.BoundedSemaphore(2)
    address = ("127.0.0.1", server.server_port)
    with socket.create_connection(address) as first, socket.create_connection(address):
        with socket.create_connection(address, timeout=LIMIT_S) as third:
            assert third.recv(1) == b""
        first.close()

        def answered():
            with contextlib.suppress(OSError, http.client.HTTPException):
                return request(server, "GET", "/study")[0]

        assert wait_until(answered) == 200


def test_few_uploads_are_in_memory_at_the_same_time(server, monkeypatch):
    server.uploads = threading.BoundedSemaphore(1)
    with monkeypatch.context() as context:
        context.setattr(server.demo, "add", lambda _: str(server.uploads.acquire(blocking=False)))
        assert [request(server, "POST", "/images", png())[1]["image"] for _ in range(2)] == ["False", "False"]
    server.uploads.acquire()
    monkeypatch.setattr(demo_server, "UPLOAD_WAIT_S", 0)
    assert request(server, "POST", "/images", png())[0] == 503
    server.uploads.release()
    assert request(server, "POST", "/images", png())[0] == 200


def test_an_image_that_says_it_is_huge_is_too_large(server):
    header = b"IHDR" + (100_000).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0"
    data = png()[:8] + b"\0\0\0\r" + header + zlib.crc32(header).to_bytes(4, "big") + png()[33:]
    assert "too large: 50 million pixels" in request(server, "POST", "/images", data)[1]["error"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},  # DNS rebinding
        {"Host": "evil.example:80"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
    ],
)
def test_strangers_are_refused(server, headers):
    for method, path in (("GET", "/"), ("GET", "/study"), ("GET", "/images/test-17"), ("POST", "/images")):
        assert request(server, method, path, png() if method == "POST" else None, **headers)[0] == 403
    port = server.server_port
    for own in (f"127.0.0.1:{port}", f"localhost:{port}"):
        assert request(server, "GET", "/study", Host=own, Origin=f"http://{own}")[0] == 200


def test_it_listens_on_this_machine_only(server):
    assert server.socket.getsockname()[0] == "127.0.0.1"


@pytest.mark.parametrize(
    "path",
    ["/../params.yaml", "/images/..%2f..%2fparams.yaml", "/images/%2fetc%2fpasswd", "/demo.html", "/x"],
)
def test_there_are_no_paths_to_files(server, path):
    assert request(server, "GET", path)[0] == 404


@pytest.mark.parametrize(
    "body",
    [
        "",
        "[]",
        "{}",
        '{"image": "test-17", "run": "one-epoch", "score": NaN, "nms": 0.5}',
        '{"image": "test-17", "run": "one-epoch", "nms": 0.5, "score": 1' + 400 * "0" + "}",
        "[" * 3000 + "]" * 3000,
    ],
)
def test_questions_that_make_no_sense_are_refused(server, body):
    status, found = request(server, "POST", "/detections", body)
    assert status == 400 and "score" in found["error"]


def test_a_test_image_that_is_gone_is_said_to_be(server):
    Path("data/smoke/images/test/000017.png").unlink()
    status, found = detect(server, "test-17")
    assert status == 400 and "no such image" in found["error"]


def test_a_study_without_weights_is_told_what_to_do(study):
    shutil.rmtree("runs")
    read = params.read()
    with pytest.raises(UserError, match=r"no run has weights yet(.|\n)*fcos train reference"):
        Demo(read.study, read.runs, read.test)


@pytest.mark.slow
def test_a_port_in_use_and_ctrl_c(server):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "fcos", "demo", "--port"]
    done = subprocess.run([*command, str(server.server_port)], capture_output=True, text=True, env=environment)
    assert done.returncode == 2 and "--port: is in use" in done.stderr and "Traceback" not in done.stderr
    with subprocess.Popen(
        [*command, "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert re.match(r"http://127\.0\.0\.1:\d+ ", process.stdout.readline())
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT_S) == 0 and process.stderr.read() == ""


# The page ------------------------------------------------------------------------------------------------------------


def test_the_best_run_is_chosen_first(url, page):
    for run, ap in (("reference", None), (RUN, 0.314)):
        (Path("runs/smoke") / run / "metrics.json").write_text(json.dumps({"AP": ap}))
    page.goto(url)
    expect(page.locator("#run")).to_have_value(RUN)
    expect(page.locator("#about")).to_contain_text("test AP 31.4")


def upload(page, url, name="photo.png", data=None):
    page.goto(url)
    expect(page.locator(".thumbs button")).to_have_count(24)
    page.set_input_files("#file", {"name": name, "mimeType": "image/png", "buffer": data or png()})


def set_slider(page, name, value):
    page.locator(f"#{name}").fill(str(value))


def test_an_upload_is_shown_with_its_boxes(url, page, server):
    upload(page, url)
    name = request(server, "POST", "/images", png())[1]["image"]
    boxes = detect(server, name, run="reference")[1]["detections"]  # the first run is the default
    expect(page.locator(".box")).to_have_count(len(boxes))
    expect(page.locator("#found-list button")).to_have_count(len(boxes))
    assert len(boxes) > 3 and server.demo.network_runs == 1
    expect(page.locator("#result")).to_contain_text(f"{len(boxes)} boxes · network")
    # The best box is drawn where the server reports it.
    x, y, width, height = boxes[0]["bbox"]
    image = page.locator("#image").bounding_box()
    box = page.locator('.box[data-index="0"]').bounding_box()
    scale = image["width"] / 80
    expected = (image["x"] + x * scale, image["y"] + y * scale, width * scale, height * scale)
    assert [box[key] for key in ("x", "y", "width", "height")] == pytest.approx(expected, abs=1)


def test_sliders_change_the_boxes_and_run_no_network(url, page, server):
    upload(page, url)
    few = detect(server, request(server, "POST", "/images", png())[1]["image"], 0.6, run="reference")[1]
    expect(page.locator(".box")).not_to_have_count(0)
    before = page.locator(".box").count()
    set_slider(page, "score", 0.6)
    expect(page.locator(".box")).to_have_count(len(few["detections"]))
    assert 0 < len(few["detections"]) < before
    set_slider(page, "nms", 0)
    expect(page.locator(".box")).not_to_have_count(len(few["detections"]))
    set_slider(page, "score", 1)
    expect(page.locator("#result")).to_contain_text("0 boxes")
    assert server.demo.network_runs == 1
    page.select_option("#run", RUN)
    set_slider(page, "score", 0.3)
    expect(page.locator(".box")).not_to_have_count(0)
    assert server.demo.network_runs == 2


def test_classes_can_be_hidden(url, page):
    upload(page, url)
    chip = page.locator(".classes label", has_text="square")
    expect(chip).to_be_visible()
    squares, all_boxes = page.locator(".box", has_text="square").count(), page.locator(".box").count()
    assert 0 < squares < all_boxes
    chip.locator("input").uncheck()
    expect(page.locator(".box")).to_have_count(all_boxes - squares)
    expect(page.locator("#result")).to_contain_text(f"({squares} of hidden classes)")
    page.click(".thumbs li:first-child button")  # the choice stays
    expect(page.locator("#image")).to_have_attribute("alt", "Test image 17")
    expect(page.locator(".box", has_text="square")).to_have_count(0)
    chip.locator("input").check()
    expect(page.locator(".box", has_text="square")).not_to_have_count(0)


def test_a_box_is_named_under_the_pointer_and_by_keyboard(url, page):
    upload(page, url)
    expect(page.locator(".box")).not_to_have_count(0)
    page.uncheck("#names")
    expect(page.locator(".box span:visible")).to_have_count(0)
    page.hover("#found-list li:nth-child(2) button")
    expect(page.locator(".box.active")).to_have_attribute("data-index", "1")
    expect(page.locator(".box.active span")).to_have_text(re.compile(r"(circle|square|triangle) 0\.\d\d"))
    page.locator("#found-list li:nth-child(1) button").focus()
    expect(page.locator(".box.active")).to_have_attribute("data-index", "0")
    page.keyboard.press("Tab")
    expect(page.locator(".box.active")).to_have_attribute("data-index", "1")
    smallest = page.locator(".box").last  # drawn on top
    smallest.hover()
    expect(page.locator(".box.active")).to_have_attribute("data-index", smallest.get_attribute("data-index"))


def test_thumbnails_dropped_and_pasted_images(url, page, server):
    page.goto(url)
    page.click("#more")
    expect(page.locator(".thumbs button")).to_have_count(30)
    expect(page.locator("#more")).to_be_hidden()
    page.locator(".thumbs li:nth-child(2) button").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#image")).to_have_attribute("alt", "Test image 18")
    expect(page.locator('.thumbs button[aria-pressed="true"] img')).to_have_attribute("alt", "Test image 18")
    for number, event in enumerate(("drop", "paste"), start=2):
        page.evaluate(
            """async ([type, width]) => {
                const canvas = Object.assign(document.createElement("canvas"), {width, height: 40});
                canvas.getContext("2d").fillRect(5, 5, 20, 20);
                const given = new DataTransfer();
                given.items.add(new File([await new Promise((done) => canvas.toBlob(done))], "given.png"));
                document.dispatchEvent(type === "drop" ? new DragEvent(type, {dataTransfer: given})
                                                       : new ClipboardEvent(type, {clipboardData: given}));
            }""",
            [event, 50 + number],
        )
        expect(page.locator("#result")).to_contain_text(f"{50 + number} \u00d7 40 pixels")
        assert server.demo.network_runs == number


def test_a_file_that_cannot_be_used_is_said_to_be(url, page, server):
    upload(page, url, data=png(width=64))
    expect(page.locator(".box")).not_to_have_count(0)
    page.evaluate("study.max_bytes = 1000")
    page.set_input_files("#file", {"name": "big.png", "mimeType": "image/png", "buffer": png(width=400, height=400)})
    expect(page.get_by_role("alert")).to_contain_text("big.png is too large")
    page.evaluate("study.max_bytes = 1 << 25")
    # Answered in the page, since a browser logs each error response of a server to its console.
    page.evaluate(
        """() => { window.fetch = async () => new Response('{"error": "This is not an image <b>"}', {status: 400}) }"""
    )
    page.set_input_files("#file", {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"hello"})
    expect(page.get_by_role("alert")).to_have_text("notes.txt: This is not an image <b>")
    assert page.locator(".box").count() > 0


def test_names_of_classes_are_text(url, page, server):
    name = '<img src=x onerror="console.error(1)">'
    load = server.demo._load

    def load_with_markup(*arguments):
        detector = load(*arguments)
        detector.categories = [{"id": category["id"], "name": name} for category in detector.categories]
        return detector

    server.demo._load = load_with_markup
    upload(page, url)
    expect(page.locator(".box").first).to_contain_text(name)
    expect(page.locator(".classes label").first).to_contain_text(name)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_is_accessible_and_fits(url, page, scheme, width):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 844})
    page.goto(url)
    expect(page.locator(".thumbs button")).to_have_count(24)
    for _ in range(2):  # empty, and with boxes
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.click(".thumbs li:first-child button")
        expect(page.locator(".box")).not_to_have_count(0)
