"""The count of rooms, arrows and upward imports."""

from pathlib import Path

from rooms import plan


def written(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = (root / "house" / name.replace("__", "/")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_an_import_for_type_checkers_closes_a_circle_as_any_other(tmp_path: Path) -> None:
    root = written(
        tmp_path,
        top="from house.low import things",
        low__things="if TYPE_CHECKING:\n    from house.top import T",
        outside="import house.top",
    )
    assert plan("house", root).upward == [
        "house/low/things.py imports house.top.T",
        "house/top.py imports house.low.things",
    ]
    assert plan("house/low", root).upward == []
