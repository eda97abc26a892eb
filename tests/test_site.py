"""The site builds without a warning, its links lead somewhere, and it fetches nothing from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from click import Context, Group, Option

import crnn_deploy
from crnn_deploy.cli.main import main

ROOT = Path(__file__).parents[1]
FETCHED = {"src", "srcset", "poster", "data"}  # attributes of what a browser loads by itself
NEEDED = ("mkdocs", "material", "mkdocstrings_handlers")

pytestmark = pytest.mark.skipif(
    any(find_spec(module) is None for module in NEEDED), reason="the extra docs is not installed"
)


class Page(HTMLParser):
    """What a page links to, loads, and can be linked to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        self.loads += [value for name, value in given.items() if name in FETCHED]
        if tag == "link" and given.get("rel") not in ("canonical", "prev", "next"):
            self.loads.append(given.get("href", ""))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("site")
    made = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(built)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
    return built


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}


def test_every_link_within_the_site_leads_to_a_page_and_an_anchor(pages: dict[Path, Page]) -> None:
    wrong = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or path.name == "404.html":
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            there = target.is_file() and (not parts.fragment or target.suffix != ".html")
            there = there or (target in pages and unquote(parts.fragment) in pages[target].anchors)
            wrong += [] if there else [f"{path.name}: {link}"]
    assert wrong == []


def test_nothing_is_fetched_from_elsewhere(site: Path, pages: dict[Path, Page]) -> None:
    loaded = {link for page in pages.values() for link in page.loads}
    assert {
        link for link in loaded if urlsplit(link).scheme not in ("", "data") or link.startswith("//")
    } == set()
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*['\"]?(https?:)?//", sheet.read_text(encoding="utf-8")), (
            sheet
        )


def test_every_command_and_option_is_on_its_page(site: Path) -> None:
    text = (site / "reference" / "commands.html").read_text(encoding="utf-8")
    assert "Sentinel" not in text
    context = Context(main, info_name="crnn-deploy")
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        assert command is not None
        nested = command.commands if isinstance(command, Group) else {"": command}
        for inner, one in nested.items():
            place = f"{name} {inner}".strip().replace(" ", "-")
            assert f'id="{place}"' in text
            for option in one.params:
                if isinstance(option, Option) and not option.hidden and option.name not in ("help", "debug"):
                    assert f'id="{place}-{str(option.name).replace("_", "-")}"' in text


def test_every_public_name_is_in_the_reference(pages: dict[Path, Page]) -> None:
    anchors = {
        anchor for path, page in pages.items() if path.parent.name == "reference" for anchor in page.anchors
    }
    public = {f"crnn_deploy.{name}" for name in crnn_deploy.__all__} - {"crnn_deploy.__version__"}
    assert public - anchors == set()


def test_docstrings_do_not_run_together(site: Path) -> None:
    for path in (site / "reference").glob("python-*.html"):
        for text in re.findall(r"<p>(.*?)</p>", path.read_text(encoding="utf-8"), re.DOTALL):
            assert not re.search(r"\n(<code>)?[a-z_]+(</code>)?: |\nRaises |&gt;&gt;&gt;", text), text
            assert "__reduce__" not in text


def test_every_committed_result_is_on_a_page(pages: dict[Path, Page]) -> None:
    suites = {path.stem.split("--")[0] for path in (ROOT / "benchmarks" / "results").glob("*.json")}
    shown = {
        anchor for path, page in pages.items() if path.parent.name == "results" for anchor in page.anchors
    }
    assert suites - shown == set()
