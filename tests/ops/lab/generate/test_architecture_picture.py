"""The architecture picture is readable, and names folders that exist."""

import xml.etree.ElementTree as ET
from itertools import combinations
from pathlib import Path

import pytest

from ops.lab.generate.architecture_picture import (
    FOLDER_WIDTH,
    PADDING,
    PICTURE,
    SOURCE,
    read_drawing,
)

ROOT = Path(__file__).parents[4]
DRAWING = read_drawing(SOURCE.read_text())
CHARACTER_WIDTH = 7.0
"""Upper estimate of a character's mean width in the picture's font, in pixels."""


def test_the_picture_shows_every_text_and_its_folders_exist() -> None:
    shown = {element.text for element in ET.fromstring(PICTURE.read_text()).iter() if element.text}
    for box in DRAWING.boxes:
        assert {box.title, *(text for _, text in box.rows)} <= shown
        assert [each for each, _ in box.rows if not (ROOT / box.folder / each).exists()] == []
    assert {arrow.label for arrow in DRAWING.arrows} <= shown


def test_texts_fit_into_boxes_and_boxes_into_the_picture_without_overlap() -> None:
    for box in DRAWING.boxes:
        indent = FOLDER_WIDTH if any(folder for folder, _ in box.rows) else 0
        for _, text in box.rows:
            assert PADDING + indent + CHARACTER_WIDTH * len(text) <= box.size[0], text
        assert 0 <= box.left < box.right <= DRAWING.width
        assert 0 <= box.top < box.bottom <= DRAWING.height
    for a, b in combinations(DRAWING.boxes, 2):
        apart = a.right <= b.left or b.right <= a.left or a.bottom <= b.top or b.bottom <= a.top
        assert apart, (a.name, b.name)


def test_arrows_start_and_end_on_the_edges_of_their_boxes() -> None:
    for arrow in DRAWING.arrows:
        for (x, y), box in zip(arrow.ends, (arrow.source, arrow.target), strict=True):
            assert box.left <= x <= box.right, arrow.label
            assert box.top <= y <= box.bottom, arrow.label


def test_an_arrow_to_an_unknown_box_is_refused() -> None:
    source = SOURCE.read_text().replace('to = "redis"', 'to = "nowhere"')
    with pytest.raises(KeyError, match="nowhere"):
        read_drawing(source)
