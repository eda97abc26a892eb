"""Every code block of the documents does what its page says, or the page says why it is not run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from code_blocks import PAGES, PARSED, ROOT, RUN, Failed, blocks_of, run_page

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@pages
def test_every_block_is_run_or_says_why_not(page: Path) -> None:
    for block in blocks_of(page):
        known = block.language in (*RUN, *PARSED) or "output" in block.marks
        assert known or block.not_run, f"{block.place} is neither run nor says why: <!-- not run: REASON -->"
        assert block.not_run is None or len(block.not_run) > 8, f"{block.place} gives no reason"
    fenced = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    assert "```" not in fenced, f"{page}: a block that is indented or not closed"
    assert not re.search(r"\n\n    [a-z$]", fenced), f"{page}: an indented block; fence it"


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if any(block.not_run is None for block in blocks_of(page))],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_what_is_run_does_what_its_page_says(page: Path, tmp_path: Path) -> None:
    for _ in run_page(page, tmp_path, slow=False):
        pass


@pytest.mark.parametrize(
    ("page", "why"),
    [
        ("```sh\nfalse\n```\n", "ends with 1, not 0"),
        ("```\nwords\n```\n", "neither run nor says why"),
        ("<!-- quick -->\n```sh\ntrue\n```\n", "no mark is called 'quick'"),
        ("```sh\necho one\n```\n<!-- output -->\n```text\ntwo\n```\n", "shows what is not printed"),
        ("```json\n{\n```\n", "is no json"),
        ("```sh\npip install 'crnn-deploy[cpu,magic]'\n```\n", "no extras ['magic']"),
        ("```sh\ncrnn-deploy infer nothing.png\n```\n", "ends with"),
    ],
)
def test_what_is_wrong_is_found(page: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("code_blocks.Block.place", "page.md:1")
    file = tmp_path / "page.md"
    file.write_text(page, encoding="utf-8")
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(Failed, match=re.escape(why)):
        list(run_page(file, folder, slow=True))
