import pytest

from ops.demo import words


@pytest.mark.parametrize(
    ("one", "several"),
    [
        ("desk lamp", "desk lamps"),
        ("box of tea", "boxes of tea"),
        ("battery", "batteries"),
        ("tray", "trays"),
        ("metal shelf", "metal shelves"),
        ("wrench", "wrenches"),
    ],
)
def test_goods_have_plurals(one: str, several: str) -> None:
    assert words.plural(one) == several
