"""What the site has besides the Markdown in docs/: pages made from the code, and the links between them and the files.

mkdocs calls the functions `on_...`; whatever is missing or stale is an error, which stops the build.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from commands_page import commands_page
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from params_page import params_page

DOCS = Path(__file__).resolve().parents[1]
ROOT = DOCS.parent
COPIES = {"contributing.md": "CONTRIBUTING.md", "changes.md": "CHANGELOG.md"}  # page -> file of the repository
# Page -> title and modules.
PYTHON = {
    "network": (
        "Network and losses",
        "structures boxes model.locations assignment losses postprocess model.detector model.head model.backbone "
        "model.checkpoint training.step",
    ),
    "scoring": (
        "Scoring and comparing",
        "detections scoring.protocol scoring.truth scoring.results scoring.folders scoring.diagnosis scoring.matching "
        "scoring.average_precision scoring.numbers scoring.bootstrap "
        "scoring.comparison scoring.errors scoring.analysis",
    ),
    "data": ("Data", "data.coco data.dataset data.transforms data.cache data.sources.description"),
    "settings": ("Settings and errors", "config.params config.section config.runs errors files"),
}
PAGE_OF = {f"fcos.{module}": f"reference/{page}.md" for page, (_, all_) in PYTHON.items() for module in all_.split()}
LINK = re.compile(r"\]\((?P<target>(?!https?:|#)[^)\s]+)\)")


def on_config(config: MkDocsConfig) -> None:
    """Fill in the parts of the navigation that are lists of files."""
    python = [{title: f"reference/{page}.md"} for page, (title, _) in PYTHON.items()]
    decisions = [path.relative_to(DOCS).as_posix() for path in sorted((DOCS / "decisions").glob("*.md"))]
    config.nav = _filled(config.nav, {"PYTHON": python, "DECISIONS": decisions})


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the pages that are not files in docs/."""
    pages = {
        "reference/commands.md": commands_page(),
        "reference/params.md": params_page(),
        **{page: (ROOT / source).read_text(encoding="utf-8") for page, source in COPIES.items()},
        **{f"reference/{page}.md": python_page(title, modules) for page, (title, modules) in PYTHON.items()},
    }
    for uri, text in pages.items():
        files.append(File.generated(config, uri, content=text))


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:
    """Turn links to files of the repository into links to their pages: one Markdown reads well in both places."""
    uri = page.file.src_uri
    folder = posixpath.dirname(COPIES.get(uri, f"docs/{uri}"))

    def on_site(link: re.Match[str]) -> str:
        path, hash_, anchor = link["target"].partition("#")
        target = posixpath.normpath(posixpath.join(folder, path))
        return f"]({posixpath.relpath(_page_of(target), posixpath.dirname(uri))}{hash_}{anchor})"

    return LINK.sub(on_site, markdown)


def _page_of(path: str) -> str:
    """Return the page, relative to docs/, for a file of the repository; the path itself stops the build."""
    pages = {source: page for page, source in COPIES.items()}
    module = path.removesuffix(".py").replace("/", ".")
    if module in PAGE_OF:
        return f"{PAGE_OF[module]}#{module}"
    return pages.get(path, posixpath.relpath(path, "docs"))


def _filled(nav: Any, lists: dict[str, list[Any]]) -> Any:
    """Return `nav` with each placeholder replaced by its list."""
    if isinstance(nav, list):
        return [_filled(entry, lists) for entry in nav]
    if isinstance(nav, dict):
        return {title: _filled(entry, lists) for title, entry in nav.items()}
    return lists.get(nav, nav)


def python_page(title: str, modules: str) -> str:
    """Return a page of modules, which mkdocstrings fills from their docstrings."""
    return "\n\n".join([f"# {title}", *(f"::: fcos.{module}" for module in modules.split())]) + "\n"
