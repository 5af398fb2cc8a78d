"""Counts the rooms of each folder, the arrows between them, and those that run upwards.

A room is a file, or a folder with everything in it. An arrow leads from a room to one that it
imports, for type checkers or at run time. The arrows of a circle run upwards.

    python tests/support/rooms.py          # api, worker, shared and ops
    python tests/support/rooms.py api      # and each import of api that runs upwards
"""

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("api", "worker", "shared", "ops")

Arrows = Mapping[tuple[str, str], list[str]]
"""Imports by the room that imports and the room that is imported."""


@dataclass(frozen=True)
class Plan:
    """Rooms of one folder, given by its path from the repository's root."""

    folder: str
    rooms: set[str]
    arrows: Arrows

    @property
    def upward(self) -> list[str]:
        """Imports of the arrows that are part of a circle."""
        return [
            text
            for (importing, imported), texts in self.arrows.items()
            if importing in self._below(imported)
            for text in texts
        ]

    def _below(self, room: str) -> set[str]:
        """Return a room and all that it imports, directly or through others."""
        found, todo = set[str](), [room]
        while todo:
            found.add(room := todo.pop())
            todo += [other for one, other in self.arrows if one == room and other not in found]
        return found


def plan(folder: str, root: Path = ROOT) -> Plan:
    """Return the plan of a folder, which is a path from `root` such as `api/http`."""
    rooms = _rooms(root / folder)
    arrows: dict[tuple[str, str], list[str]] = defaultdict(list)
    for path in sorted((root / folder).rglob("*.py")):
        importing = path.relative_to(root / folder).parts[0]
        for module in imported_names(path):
            imported = _room(module, folder, rooms)
            if importing in rooms and imported not in (None, importing):
                assert imported is not None
                text = f"{path.relative_to(root).as_posix()} imports {module}"
                arrows[importing, imported].append(text)
    return Plan(folder, rooms, arrows)


def plans(packages: tuple[str, ...] = PACKAGES) -> Iterator[Plan]:
    """Yield the plans of packages and of all their folders with Python files."""
    for package in packages:
        folders = {path.parent for path in (ROOT / package).rglob("*.py")}
        for folder in sorted({ROOT / package, *folders}):
            yield plan(folder.relative_to(ROOT).as_posix())


@cache
def imported_names(path: Path, *, for_types: bool = True) -> tuple[str, ...]:
    """Return the full names that a file imports, or those that it imports when it runs."""
    names = []
    for node in _statements(ast.parse(path.read_text()), for_types=for_types):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return tuple(names)


def _statements(node: ast.AST, *, for_types: bool) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        is_if = isinstance(child, ast.If) and not for_types
        is_for_types = is_if and "TYPE_CHECKING" in ast.unparse(child.test)
        if not isinstance(child, ast.expr) and not is_for_types:
            yield child
            yield from _statements(child, for_types=for_types)


def _rooms(folder: Path) -> set[str]:
    files = {path.name for path in folder.glob("*.py") if path.name != "__init__.py"}
    return files | {path.name for path in folder.iterdir() if any(path.rglob("*.py"))}


def _room(module: str, folder: str, rooms: set[str]) -> str | None:
    """Return the room of `folder` that defines a module, or None."""
    prefix = folder.replace("/", ".") + "."
    name = module.removeprefix(prefix).split(".")[0] if module.startswith(prefix) else ""
    return next((room for room in (name, f"{name}.py") if room in rooms), None)


def main(packages: tuple[str, ...]) -> None:
    """Print a line for each folder, and each import that runs upwards in those that are named."""
    print(f"{'folder':40}{'rooms':>8}{'arrows':>8}{'upwards':>9}")
    for found in plans(packages or PACKAGES):
        upward = found.upward
        print(f"{found.folder:40}{len(found.rooms):8}{len(found.arrows):8}{len(upward):9}")
        for text in upward if packages else ():
            print(f"    {text}")


if __name__ == "__main__":
    main(tuple(sys.argv[1:]))
