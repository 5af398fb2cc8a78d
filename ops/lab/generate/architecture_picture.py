"""Draws ops/docs/architecture.svg: `python -m ops.lab.generate.architecture_picture`.

The source is ops/docs/architecture.toml, a list of boxes and arrows. The picture has colours for
light and for dark pages.
"""

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

DOCS = Path(__file__).parents[2] / "docs"
SOURCE = DOCS / "architecture.toml"
PICTURE = DOCS / "architecture.svg"

PADDING = 12
TITLE_HEIGHT = 44
"""Height of the part of a box that shows its title and folder, in pixels."""
ROW_HEIGHT = 24
FOLDER_WIDTH = 80
"""Width in pixels of a box's first column, which shows the names of subfolders."""
REPLICA_OFFSET = 6
LABEL_GAP = 7
"""Distance between an arrow and its label, in pixels."""

STYLE = """
  .page { fill: #ffffff; }
  .box { fill: #f6f8fa; stroke: #8c959f; }
  .blue { fill: #ddf4ff; stroke: #0969da; }
  .red { fill: #ffebe9; stroke: #cf222e; }
  .green { fill: #dafbe1; stroke: #1a7f37; }
  text { font: 13px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1f2328; }
  .title { font-size: 14px; font-weight: 600; }
  .folder { font-family: ui-monospace, Consolas, "DejaVu Sans Mono", monospace; fill: #57606a; }
  .label { text-anchor: middle; }
  .upward { text-anchor: start; }
  .arrow { stroke: #57606a; stroke-width: 1.5; }
  .head { fill: #57606a; }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117; }
    .box { fill: #161b22; stroke: #8b949e; }
    .blue { fill: #0c2d6b; stroke: #58a6ff; }
    .red { fill: #5a1e1c; stroke: #ff7b72; }
    .green { fill: #0f3d1f; stroke: #3fb950; }
    text { fill: #f0f6fc; }
    .folder { fill: #b1bac4; }
    .arrow { stroke: #b1bac4; }
    .head { fill: #b1bac4; }
  }
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A rectangle with a title and rows of text."""

    name: str
    colour: str
    title: str
    position: tuple[int, int]
    """Upper left corner: x and y, in pixels."""
    size: tuple[int, int]
    """Width and height, in pixels."""
    rows: tuple[tuple[str, str], ...]
    """Rows as pairs `(subfolder, text)`. The name of the subfolder may be empty."""
    folder: str = ""
    replicas: bool = False
    """Whether a second rectangle behind the box indicates several instances."""

    @property
    def left(self) -> int:
        """X coordinate of the left edge, in pixels."""
        return self.position[0]

    @property
    def right(self) -> int:
        """X coordinate of the right edge, in pixels."""
        return self.position[0] + self.size[0]

    @property
    def top(self) -> int:
        """Y coordinate of the upper edge, in pixels."""
        return self.position[1]

    @property
    def bottom(self) -> int:
        """Y coordinate of the lower edge, in pixels."""
        return self.position[1] + self.size[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrow:
    """A straight arrow between two boxes."""

    source: Box
    target: Box
    across: int
    """Y coordinate of a horizontal arrow, or x coordinate of a vertical arrow, in pixels."""
    label: str

    @property
    def ends(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Start point and end point as `(x, y)` in pixels. They lie on the boxes' facing edges."""
        source, target, across = self.source, self.target, self.across
        if source.right <= target.left:
            return (source.right, across), (target.left, across)
        if target.right <= source.left:
            return (source.left, across), (target.right, across)
        if source.bottom <= target.top:
            return (across, source.bottom), (across, target.top)
        return (across, source.top), (across, target.bottom)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """A parsed picture: its size, boxes and arrows."""

    width: int
    height: int
    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]


def read_drawing(text: str) -> Drawing:
    """Parse the source of a picture.

    Raises:
        KeyError: the picture or an arrow lacks a value, or an arrow names an unknown box.
        TypeError: a box has an unknown value, or lacks a required value.
    """
    source = tomllib.loads(text)
    boxes = {box["name"]: Box(**box) for box in source["box"]}
    arrows = tuple(
        Arrow(
            source=boxes[arrow["from"]],
            target=boxes[arrow["to"]],
            across=arrow["across"],
            label=arrow["label"],
        )
        for arrow in source["arrow"]
    )
    return Drawing(
        width=source["width"], height=source["height"], boxes=tuple(boxes.values()), arrows=arrows
    )


def draw(drawing: Drawing) -> str:
    """Return the picture as SVG."""
    size = f'width="{drawing.width}" height="{drawing.height}"'
    shapes = [
        f'<rect class="page" {size} rx="8"/>',
        *(line for box in drawing.boxes for line in _draw_box(box)),
        *(line for arrow in drawing.arrows for line in _draw_arrow(arrow)),
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {drawing.width} '
            f'{drawing.height}" {size} role="img">',
            "<!-- Generated from architecture.toml by ops.lab.generate.architecture_picture. -->",
            "<title>Lorikeet's processes and folders</title>",
            f"<style>{STYLE}</style>",
            '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
            'markerHeight="7" orient="auto"><path class="head" d="M0 0 8 4 0 8z"/></marker></defs>',
            *shapes,
            "</svg>\n",
        ]
    )


def _draw_box(box: Box) -> Iterator[str]:
    if box.replicas:
        yield _rectangle(box, REPLICA_OFFSET)
    yield _rectangle(box, 0)
    yield _text("title", box.left + PADDING, box.top + 20, box.title)
    if box.folder:
        yield _text("folder", box.left + PADDING, box.top + 38, box.folder)
    has_folders = any(folder for folder, _ in box.rows)
    y = box.top + (TITLE_HEIGHT if box.folder else TITLE_HEIGHT - 20) + 16
    for folder, text in box.rows:
        if folder:
            yield _text("folder", box.left + PADDING, y, folder)
        yield _text("", box.left + PADDING + (FOLDER_WIDTH if has_folders else 0), y, text)
        y += ROW_HEIGHT


def _rectangle(box: Box, offset: int) -> str:
    kind = "box" if box.colour == "grey" else f"box {box.colour}"
    width, height = box.size
    return (
        f'<rect class="{kind}" x="{box.left + offset}" y="{box.top - offset}" '
        f'width="{width}" height="{height}" rx="6"/>'
    )


def _draw_arrow(arrow: Arrow) -> Iterator[str]:
    (x1, y1), (x2, y2) = arrow.ends
    yield (f'<line class="arrow" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" marker-end="url(#head)"/>')
    if y1 == y2:
        yield _text("label", (x1 + x2) // 2, y1 - LABEL_GAP, arrow.label)
    else:
        yield _text("upward", x1 + LABEL_GAP, (y1 + y2) // 2 + 4, arrow.label)


def _text(kind: str, x: int, y: int, text: str) -> str:
    attribute = f' class="{kind}"' if kind else ""
    return f'<text{attribute} x="{x}" y="{y}">{escape(text)}</text>'


if __name__ == "__main__":
    PICTURE.write_text(draw(read_drawing(SOURCE.read_text())))
