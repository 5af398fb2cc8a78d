"""The documentation's site, as `make docs` built it: it links all pages, and finds them."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
GUIDE = ROOT / "api" / "guide"
INLINE = re.compile(r"<script(?![^>]*\bsrc=)[^>]*>|<style|\sstyle=|\son\w+=\"")


@pytest.fixture(scope="module")
def site() -> Path:
    if not GUIDE.exists():
        pytest.skip("`make docs` builds the site")
    return GUIDE


def test_every_page_is_in_the_site_its_menu_and_its_search_index(site: Path) -> None:
    menu = (site / "README.html").read_text()
    for page in (ROOT / "ops" / "docs").glob("*.md"):
        assert (site / "ops" / "docs" / f"{page.stem}.html").exists()
        assert f'href="ops/docs/{page.stem}.html"' in menu
    index = (site / "searchindex.js").read_text()
    assert "idempot" in index
    assert '"ops/docs/jobs"' in index


def test_the_site_is_small_and_has_no_inline_code_that_the_policy_of_its_headers_forbids(
    site: Path,
) -> None:
    found = {page.name: INLINE.findall(page.read_text()) for page in site.rglob("*.html")}
    assert {name: code for name, code in found.items() if code} == {}
    assert sum(file.stat().st_size for file in site.rglob("*") if file.is_file()) < 8 * 2**20
