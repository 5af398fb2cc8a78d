"""The architecture picture shows its texts, and names folders that exist."""

import xml.etree.ElementTree as ET
from pathlib import Path

from ops.lab.generate.architecture_picture import (
    PICTURE,
    SOURCE,
    read_drawing,
)

ROOT = Path(__file__).parents[4]
DRAWING = read_drawing(SOURCE.read_text())


def test_the_picture_shows_every_text_and_its_folders_exist() -> None:
    shown = {element.text for element in ET.fromstring(PICTURE.read_text()).iter() if element.text}
    for box in DRAWING.boxes:
        assert {box.title, *(text for _, text in box.rows)} <= shown
        assert [each for each, _ in box.rows if not (ROOT / box.folder / each).exists()] == []
    assert {arrow.label for arrow in DRAWING.arrows} <= shown
