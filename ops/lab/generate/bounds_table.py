"""Generates the tables of bounds in SECURITY.md: `python -m ops.lab.generate.bounds_table`."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from api.app import create_app
from api.http.guards import Guards, Work
from ops.lab.generate.bounds import BOUNDS, STORED, WORK
from shared.settings import ApiSettings

PAGE = Path(__file__).parents[3] / "SECURITY.md"
START = "<!-- `python -m ops.lab.generate.bounds_table` generates the tables. -->\n"
END = "<!-- The tables end here. -->\n"


def page() -> str:
    """Return the text of SECURITY.md with current tables."""
    head, _, rest = PAGE.read_text().partition(START)
    return head + START + "\n" + tables() + "\n" + END + rest.partition(END)[2]


def tables() -> str:
    """Return the tables as Markdown."""
    guards: Guards = create_app(ApiSettings.model_validate({})).state.guards
    bounds = ([work.value, b.num_bytes, b.items, b.time, b.account] for work, b in BOUNDS.items())
    stored = ([_code(each.kinds), each.bound, each.account] for each in STORED)
    tasks = ([_code([name]), each.items, each.end] for name, each in WORK.items())
    return "\n\n".join(
        [
            _table(
                ["work of a request", "bytes", "items", "time", "counted for its tenant"], bounds
            ),
            _table(["work", "routes"], ([work.value, _routes(guards, work)] for work in Work)),
            _table(["keys in Redis", "bound", "counted for"], stored),
            _table(["task of the control process", "items at a time", "ended by"], tasks),
        ]
    )


def _routes(guards: Guards, work: Work) -> str:
    methods: dict[str, list[str]] = {}
    for (method, path), guard in guards.operations.items():
        if guard.work is work and method != "HEAD":
            methods.setdefault(path, []).append(method)
    return ", ".join(f"`{'/'.join(names)} {path}`" for path, names in sorted(methods.items()))


def _code(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(page())
