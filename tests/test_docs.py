"""The site builds without warnings, lists every command and key, and has no broken link or outdated figure."""

import base64
import doctest
import importlib
import io
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
import yaml
from axe_playwright_python.sync_playwright import Axe
from conftest import READY_MADE, ROOT, wait_until
from mkdocs.exceptions import PluginError
from PIL import Image

from fcos.running.engines.options import EngineOptions

DOCS = ROOT / "docs"
DRAWN = DOCS / "images" / "explained"
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """Return the folder of the built site."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return folder


@pytest.fixture
def made_pages(monkeypatch):
    """Return the modules that generate pages, loaded as by mkdocs."""
    monkeypatch.syspath_prepend(str(DOCS / "site"))
    import commands_page
    import params_page

    return commands_page, params_page


class Parsed(HTMLParser):
    """The ids and links of a page."""

    def __init__(self, path):
        super().__init__()
        self.ids, self.links = set(), []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, _tag, attrs):
        attributes = dict(attrs)
        self.ids.add(attributes.get("id"))
        self.links += [attributes[name] for name in ("href", "src") if attributes.get(name)]


def test_every_command_is_in_the_site(site, made_pages):
    names = [name for name, _ in made_pages[0].commands()]
    assert {"train", "study use", "compare"} <= set(names)
    page = site / "reference" / "commands.html"
    assert {f"fcos-{name.replace(' ', '-')}" for name in names} <= Parsed(page).ids
    text = page.read_text(encoding="utf-8")
    for option in ("--replicates N", "--views test|tta", "--force"):
        assert f"<code>{option}</code>" in text


def test_every_key_of_params_yaml_is_in_the_site(site, made_pages):
    text = (site / "reference" / "params.html").read_text(encoding="utf-8")
    for name in READY_MADE:
        study = ROOT / "studies" / f"{name}.yaml"
        for section, content in yaml.safe_load(study.read_text(encoding="utf-8")).items():
            assert f'id="{section}"' in text
            if section in ("model", "train", "test", "data", "tta", "nms_sweep", "statistics", "tracking"):
                for key in content:
                    assert f"<code>{key}</code>" in text, f"{section}.{key}"
    assert "number, ≥ 0.5, &lt; 1" in text  # statistics.confidence
    assert "<code>[288, 320, 352, 384, 416, 448, 480]</code>" in text  # train.sizes


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda keys: keys.pop("train.optimizer"), "train.optimizer: a key of the schema is not described"),
        (lambda keys: keys.update({"train.optimiser": "?"}), "train.optimiser: no such key"),
    ],
)
def test_a_key_that_nobody_described_or_that_is_gone_stops_the_build(
    made_pages, tmp_path, monkeypatch, change, problem
):
    params_page = made_pages[1]
    keys = yaml.safe_load(params_page.KEYS.read_text(encoding="utf-8"))
    change(keys)
    changed = tmp_path / "keys.yaml"
    changed.write_text(yaml.safe_dump(keys), encoding="utf-8")
    monkeypatch.setattr(params_page, "KEYS", changed)
    with pytest.raises(PluginError, match=problem):
        params_page.params_page()


def test_every_link_within_the_site_leads_somewhere(site):
    pages = {path.resolve(): Parsed(path) for path in site.rglob("*.html")}
    assert len(pages) > 25
    broken, checked = [], 0
    for path, page in pages.items():
        if path.name == "404.html":  # its links work only on a server
            continue
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme:
                assert parts.scheme in ("http", "https"), link
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            checked += 1
            ids = pages[target].ids if target in pages else {parts.fragment}
            if not target.exists() or (parts.fragment and parts.fragment not in ids):
                broken.append(f"{path.relative_to(site)}: {link}")
    assert checked > 1000
    assert broken == []


@pytest.mark.slow
def test_each_promise_of_security_has_its_test():
    named = re.findall(r"`tests/(\w+)\.py::(\w+)`", (DOCS / "security.md").read_text(encoding="utf-8"))
    assert len(named) > 15
    for file, test in named:
        assert f"def {test}(" in (ROOT / "tests" / f"{file}.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("module", ["detections", "data.coco", "commands.score", "commands.compare"])
def test_the_examples_of_docstrings(module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    failed, tried = doctest.testmod(importlib.import_module(f"fcos.{module}"))
    assert failed == 0 and tried >= 2


@pytest.mark.slow
def test_the_figures_are_those_that_the_code_draws(tmp_path):
    command = [sys.executable, "docs/figures", "--out", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    drawn = sorted(path.name for path in tmp_path.iterdir())
    assert drawn == sorted(path.name for path in DRAWN.iterdir())
    for name in drawn:
        new, committed = _content(tmp_path / name), _content(DRAWN / name)
        assert new[0] == committed[0], f"{name} is of other code: make figures"
        # Other processors may round differently; a twentieth of a point is invisible.
        np.testing.assert_allclose(new[1], committed[1], atol=0.05, err_msg=f"{name}: make figures")
        for one, other in zip(new[2], committed[2], strict=True):
            assert np.abs(one - other).mean() < 2


def _content(path):
    """Return an SVG file in parts: its text without numbers and ids, its numbers, and its images."""
    text = path.read_text(encoding="utf-8")
    images = re.findall(r"base64,([^\"]*)", text)
    decoded = [np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))).astype(float) for data in images]
    text = re.sub(r'base64,[^"]*|id="[^"]*"|#[^")]*(?=[")])', "", text)
    return NUMBER.sub("0", text), np.array(NUMBER.findall(text), dtype=float), decoded


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_pages_open_from_the_disk_and_are_accessible(site, page, scheme, width):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 800})
    for name in ("index", "explained"):
        page.goto((site / f"{name}.html").as_uri())
        images = page.locator(".md-content img")
        assert images.count() > 0
        for image in images.all():
            image.scroll_into_view_if_needed()
            assert image.get_attribute("alt")
            assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") > 300
        # Excluded is the theme's own fault: the bars of its copy buttons are landmarks without names.
        context = {"include": [[".md-content"]], "exclude": [[".md-code__nav"]]}
        found = Axe().run(page, context=context, options={"preload": False})
        assert found.violations_count == 0, found.generate_report()


def test_figures_follow_the_palette(site, page):
    page.goto((site / "explained.html").as_uri())
    figure = page.locator("img[src$='focal.svg']")
    light = _mean(figure.screenshot())
    page.evaluate("document.querySelectorAll('[name=__palette]')[1].click()")
    page.wait_for_function("getComputedStyle(document.body).colorScheme === 'dark'")
    page.mouse.move(0, 0)
    assert light > 200
    wait_until(lambda: _mean(figure.screenshot()) < 90)  # colours change gradually


def _mean(screenshot):
    return np.asarray(Image.open(io.BytesIO(screenshot)).convert("L")).mean()


def test_every_setting_of_a_cluster_is_explained():
    text = (ROOT / "docs" / "team.md").read_text()
    assert [name for name in EngineOptions.model_fields if f"`{name}`" not in text] == []


def test_search_works_from_the_disk(site, page):
    page.goto((site / "index.html").as_uri())
    page.get_by_placeholder("Search").first.click()
    page.keyboard.type("centerness")
    found = page.locator(".md-search-result__link[href*='explained.html']").first
    found.wait_for()
    found.click()
    page.get_by_role("heading", name="FCOS in figures").wait_for()


@pytest.mark.slow
def test_nothing_is_wider_than_a_phone(site, page):
    page.set_viewport_size({"width": 360, "height": 740})
    for path in ("index", "explained", "reference/commands", "reference/params", "compare", "performance"):
        page.goto((site / f"{path}.html").as_uri())
        # The theme makes tables scroll only after the page has loaded.
        page.wait_for_function("document.documentElement.scrollWidth <= 360")
