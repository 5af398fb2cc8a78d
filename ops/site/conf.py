"""Sphinx's configuration: the Markdown pages of this repository as one site with a search box.

The README's last table is the menu. Links to files that aren't pages of the site become plain text.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

project = "Lorikeet"
root_doc = "README"
include_patterns = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "ops/docs/**.md",
    "ops/decisions/*.md",
    "ops/demo/README.md",
]
exclude_patterns = [
    ".*",
    "api",
    "build",
    "shared",
    "tests",
    "worker",
    "ops/bench",
    "ops/docs/images",
]
extensions = ["myst_parser"]
myst_heading_anchors = 4
suppress_warnings = ["misc.highlighting_failure"]  # shortened JSON, with `...`

html_theme = "alabaster"
html_theme_options = {
    "page_width": "70rem",
    "sidebar_width": "15rem",
    "font_family": "system-ui, sans-serif",
    "head_font_family": "system-ui, sans-serif",
    "show_powered_by": False,
}
html_favicon = "../../api/static/logo.svg"
html_search_scorer = str(Path(__file__).with_name("scorer.js"))
html_title = "Lorikeet"
html_sidebars = {"**": ["searchfield.html", "navigation.html"]}
html_static_path = ["static"]
html_css_files = ["site.css"]
templates_path = ["templates"]
html_copy_source = False
html_show_copyright = False
html_use_index = False

_LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")
_MENU_ROW = re.compile(r"^\| ([a-z ]+) \| (.*\.md\).*) \|$", re.MULTILINE)
_ENTRY = re.compile(r"\[([^\]]+)\]\(([\w./-]+)\.md\)")


def setup(app: Any) -> None:
    """Prepare each page before it is parsed."""
    app.connect("source-read", _prepare)


def _prepare(app: Any, page: str, source: list[str]) -> None:
    text = _LINK.sub(lambda link: _link(app, page, link), source[0])
    source[0] = text + (_menu(text) if page == root_doc else _decisions(page))


def _link(app: Any, page: str, link: re.Match[str]) -> str:
    """Return a link unchanged if its target is in the site; otherwise return its text."""
    words, target = link.groups()
    path = target.partition("#")[0]
    if re.match(r"https?:", target) or not path or path.endswith((".png", ".svg")):
        return link[0]
    name = posixpath.normpath(posixpath.join(posixpath.dirname(page), path))
    is_page = name.removesuffix(".md") in app.project.docnames
    return link[0] if is_page or not (ROOT / name).exists() else words


def _menu(readme: str) -> str:
    """Return a menu with one group for each row of the README's last table."""
    groups = _MENU_ROW.findall(readme)
    return "".join(_toctree(title, _ENTRY.findall(cells)) for title, cells in groups)


def _toctree(title: str, entries: list[tuple[str, str]]) -> str:
    lines = [f"{words[:1].upper()}{words[1:]} </{page}>" for words, page in entries]
    options = f":hidden:\n:caption: {title.capitalize()}\n"
    return "\n\n```{toctree}\n" + options + "\n" + "\n".join(lines) + "\n```\n"


def _decisions(page: str) -> str:
    """Return a menu with all pages in the folder of the index page `page`.

    The menu is empty if `page` isn't an index page.
    """
    if page not in ("ops/decisions/README", "ops/docs/recipes/README"):
        return ""
    return "\n\n```{toctree}\n:hidden:\n:glob:\n\n[!R]*\n```\n"
