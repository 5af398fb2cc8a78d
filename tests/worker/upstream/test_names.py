"""A name that upstream took away is an error at start that names package, version and name."""

import ast
import importlib
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest

import worker.upstream
from shared.errors import UpstreamChanged
from worker.upstream import changes
from worker.upstream.changes import check_names, names_of

ROOM = Path(worker.upstream.__path__[0])


def borrowed() -> Iterator[tuple[str, str, str]]:
    """Yield module of the room, module of the package, and name, for each name that is borrowed."""
    for path in sorted(ROOM.glob("*.py")):
        for block in ast.parse(path.read_text()).body:
            if isinstance(block, ast.With):
                for line in block.body:
                    assert isinstance(line, ast.ImportFrom), path
                    assert line.module, path
                    yield from ((path.stem, line.module, each.name) for each in line.names)


BORROWED = list(borrowed())


@pytest.mark.parametrize(("module", "source", "name"), BORROWED, ids=[each[2] for each in BORROWED])
def test_a_name_that_is_missing_is_named_with_its_package_and_version(
    module: str, source: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_names()
    kept = [other for _, place, other in BORROWED if place == source and other != name]
    without = ModuleType(source)
    for other in kept:
        setattr(without, other, getattr(sys.modules[source], other))
    monkeypatch.setitem(sys.modules, source, without)
    monkeypatch.delitem(sys.modules, f"worker.upstream.{module}")
    package = source.partition(".")[0]
    with pytest.raises(UpstreamChanged) as caught:
        check_names()
    text = str(caught.value)
    assert text.startswith(f"{package} {version(package)} (tested: >=")
    assert f"cannot import name '{name}' from '{source}';" in text
    assert f"`pip install '{package}>=" in text


def test_every_module_of_the_room_is_checked_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[str] = []
    monkeypatch.setattr(changes, "import_module", checked.append)
    check_names()
    assert {f"worker.upstream.{module}" for module, *_ in BORROWED} <= set(checked)


def test_a_module_that_is_missing_is_named() -> None:
    with (
        pytest.raises(UpstreamChanged, match=r"No module named 'transformers\.gone'"),
        names_of("transformers"),
    ):
        importlib.import_module("transformers.gone")
