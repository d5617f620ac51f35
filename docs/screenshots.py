"""The images of README and docs, taken in chromium: `make screenshots` after `make repro`.

The report comes from reports/STUDY/, the demo from a server that is started here and stopped again.
"""

import contextlib
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from fcos.tracking.ui import pages_of

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
STUDY = "shapes"
SHOWN = ("resnet18-e12-c3", "resnet34-e12-c4", "resnet34-e30-c3")  # shown in the gallery, which has room for three


def main() -> None:
    """Take all screenshots."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-background-networking"]
        )
        page = browser.new_page(viewport={"width": 1280, "height": 860})
        take_report(page)
        with serving("fcos", "demo", "--port", "{port}") as url:
            take_demo(page, url)
        with serving("fcos", "ui", "--port", "{port}") as url:
            take_mlflow(page, int(url.rpartition(":")[2]))
        browser.close()


def take_report(page: Page) -> None:
    page.goto((ROOT / "reports" / STUDY / "index.html").as_uri())
    page.wait_for_selector("html[data-charts]")
    save(page.screenshot(), "report")
    page.evaluate("document.querySelector('.runs').style.position = 'static'")  # it would cover the table
    page.locator("#table-4").scroll_into_view_if_needed()
    save(page.locator("#table-4").screenshot(), "report-table")
    for run in page.locator('input[name="run"]').all():
        run.set_checked(run.get_attribute("value") in SHOWN)
    page.locator("#gallery-controls").get_by_label("score").fill("0.4")
    page.evaluate("document.querySelectorAll('.strip').forEach((strip, place) => place > 2 && strip.remove())")
    page.evaluate("document.querySelectorAll('.image-name').forEach((name, place) => place > 2 && name.remove())")
    save(page.locator("#gallery").screenshot(), "report-gallery")


def take_demo(page: Page, url: str) -> None:
    page.goto(url)
    page.locator("#thumbs button").nth(5).click()
    page.locator("#found-list li").first.wait_for()
    page.wait_for_timeout(500)
    save(page.screenshot(), "demo")


def take_mlflow(page: Page, port: int) -> None:
    """Take the first view as a table and as charts, without the UI's other panels."""
    page.set_viewport_size({"width": 1700, "height": 900})
    for name, line in zip(("mlflow-table", "mlflow-charts"), pages_of(STUDY, port).splitlines(), strict=True):
        page.goto(line.partition(": ")[2].strip())
        page.reload()  # the other address differs after the # only
        page.get_by_text("matching runs").wait_for()
        page.wait_for_timeout(3000)
        for panel in ("Close", "Hide banner"):  # MLflow's assistant stays closed once it is
            for button in page.get_by_role("button", name=panel, exact=True).all():
                button.click()
        page.wait_for_timeout(3000)
        save(page.screenshot(), name)


@contextlib.contextmanager
def serving(*command: str) -> Iterator[str]:
    """Run a server on a free port of this machine until the block ends; yield its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    words = [sys.executable, "-m", *(word.format(port=port) for word in command)]
    with subprocess.Popen(words, cwd=ROOT, start_new_session=True) as server:
        try:
            url = f"http://127.0.0.1:{port}"
            for _ in range(120):
                assert server.poll() is None, f"{command[0]} has ended"
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(url, timeout=5)
                    break
                time.sleep(0.5)
            yield url
        finally:
            os.killpg(server.pid, signal.SIGTERM)


def save(png: bytes, name: str) -> None:
    """Write docs/images/NAME.png with a palette, which takes a third of the size."""
    image = Image.open(io.BytesIO(png)).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    image.save(IMAGES / f"{name}.png", optimize=True)
    print(f"docs/images/{name}.png: {image.width} x {image.height}")


if __name__ == "__main__":
    main()
