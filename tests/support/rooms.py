"""Counts the rooms of each folder, the arrows between them, and those that run upwards.

A room is a file, or a folder with everything in it. An arrow leads from a room to one that it
imports, for type checkers or at run time. Floors follow from the arrows: a room stands above all
that it imports. Arrows that close a circle run upwards, whatever the floors are.

    python tests/support/rooms.py          # api, worker, shared and ops
    python tests/support/rooms.py api      # and each arrow of api that runs upwards
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

Arrows = Mapping[tuple[str, str], tuple[str, ...]]
"""Imports by the room that imports and the room that is imported."""


@dataclass(frozen=True)
class Plan:
    """Rooms of one folder.

    Attributes:
        folder: Path from the repository's root.
        rooms: Names of its rooms, the highest first.
        arrows: Arrows between them, with the imports that each consists of.
        upward: Arrows to a room that stands above, as few as the order of `rooms` allows.
        floors: Number of rooms on the longest path that runs downwards.
    """

    folder: str
    rooms: tuple[str, ...]
    arrows: Arrows
    upward: tuple[tuple[str, str], ...]
    floors: int


def plan(folder: str, root: Path = ROOT) -> Plan:
    """Measures one folder.

    Args:
        folder: Path from `root`, such as `api/http`.
        root: Root of the repository.
    """
    arrows = _arrows(folder, root)
    rooms = _ordered(_rooms(root / folder), arrows)
    place = {room: index for index, room in enumerate(rooms)}
    upward = tuple(sorted(arrow for arrow in arrows if place[arrow[0]] > place[arrow[1]]))
    height: dict[str, int] = {}
    for room in reversed(rooms):
        below = [height[b] for a, b in arrows if a == room and (a, b) not in upward]
        height[room] = 1 + max(below, default=0)
    return Plan(folder, rooms, arrows, upward, max(height.values(), default=0))


def plans(root: Path = ROOT, packages: tuple[str, ...] = PACKAGES) -> Iterator[Plan]:
    """Measures the packages and all their folders with Python files."""
    for package in packages:
        folders = {path.parent for path in (root / package).rglob("*.py")}
        for folder in sorted({root / package, *folders}):
            yield plan(folder.relative_to(root).as_posix(), root)


def _rooms(folder: Path) -> set[str]:
    files = {path.name for path in folder.glob("*.py") if path.name != "__init__.py"}
    return files | {path.name for path in folder.iterdir() if any(path.rglob("*.py"))}


def _arrows(folder: str, root: Path) -> Arrows:
    arrows: dict[tuple[str, str], list[str]] = defaultdict(list)
    rooms = _rooms(root / folder)
    for path in sorted((root / folder).rglob("*.py")):
        importing = path.relative_to(root / folder).parts[0]
        for module in _imported(path):
            imported = _room(module, folder, rooms)
            if importing in rooms and imported not in (None, importing):
                assert imported is not None
                text = f"{path.relative_to(root).as_posix()} imports {module}"
                arrows[importing, imported].append(text)
    return {arrow: tuple(imports) for arrow, imports in arrows.items()}


@cache
def _imported(path: Path) -> tuple[str, ...]:
    """The full names that a file imports."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return tuple(names)


def _room(module: str, folder: str, rooms: set[str]) -> str | None:
    """The room of `folder` that defines a module; None: it is none of its rooms."""
    prefix = folder.replace("/", ".") + "."
    if not module.startswith(prefix):
        return None
    name = module.removeprefix(prefix).split(".")[0]
    return next((room for room in (name, f"{name}.py") if room in rooms), None)


def _ordered(rooms: set[str], arrows: Arrows) -> tuple[str, ...]:
    """Rooms in an order in which few arrows run upwards; none, if there is no circle.

    Source: Eades, Lin and Smyth, "A fast and effective heuristic for the feedback arc set
    problem", 1993.
    """
    left, high, low = set(rooms), list[str](), list[str]()
    while left:
        out = {room: sum(a == room and b in left for a, b in arrows) for room in left}
        into = {room: sum(b == room and a in left for a, b in arrows) for room in left}
        if lowest := [room for room in sorted(left) if not out[room]]:
            low.append(lowest[0])
            left.remove(lowest[0])
            continue
        room = max(sorted(left), key=lambda r: (not into[r], out[r] - into[r]))
        high.append(room)
        left.remove(room)
    return (*high, *reversed(low))


def main(packages: tuple[str, ...]) -> None:
    """Prints a line for each folder, and each import that runs upwards in those that are named."""
    print(f"{'folder':40}{'rooms':>8}{'floors':>8}{'arrows':>8}{'upwards':>9}")
    for found in plans(packages=packages or PACKAGES):
        sizes = f"{len(found.rooms):8}{found.floors:8}{len(found.arrows):8}{len(found.upward):9}"
        print(f"{found.folder:40}{sizes}")
        for arrow in found.upward if packages else ():
            print("".join(f"    {text}\n" for text in found.arrows[arrow]), end="")


if __name__ == "__main__":
    main(tuple(sys.argv[1:]))
