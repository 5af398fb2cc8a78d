"""Text on which the quality of a quantised model is measured: the prose of the documentation."""

from collections.abc import Iterator
from pathlib import Path

from ops.bench.machine import ROOT

DOCS = ROOT / "ops" / "docs"
SOURCE = "paragraphs of ops/docs/*.md"
MIN_WORDS = 12
_FENCE = "```"
_MARKUP = ("|", "#", "<", "!", "[", ">", "---")
"""Starts of lines that aren't prose: tables, headings, HTML, images and links."""


def prose(folder: Path = DOCS) -> str:
    """Return the paragraphs of the Markdown pages in `folder`, without tables and code blocks."""
    pages = [path.read_text() for path in sorted(folder.glob("*.md"))]
    found = [paragraph for page in pages for paragraph in _paragraphs(page)]
    return "\n\n".join(one for one in found if len(one.split()) >= MIN_WORDS)


def _paragraphs(page: str) -> Iterator[str]:
    lines: list[str] = []
    is_code = False
    for line in [*page.splitlines(), ""]:
        is_code ^= line.lstrip().startswith(_FENCE)
        if line.strip() and not is_code and not line.lstrip().startswith((*_MARKUP, _FENCE)):
            lines.append(line.strip())
        elif lines:
            yield " ".join(lines)
            lines = []
