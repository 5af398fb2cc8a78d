"""All routes that take a JSON body from clients of other APIs, as the table lists them.

`table.json` has the rows of each route. Rows that several routes have in common are under
`shared`, and routes refer to them by name.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any

from ops.lab.generate.conformance.rows import Api, Outcome, Part, Route, Row

TABLE: Mapping[str, Any] = json.loads(Path(__file__).with_name("table.json").read_bytes())


def _rows(entries: Iterable[Mapping[str, Any]]) -> Iterator[Row]:
    for entry in entries:
        if "shared" in entry:
            yield from _rows(TABLE["shared"][entry["shared"]])
        else:
            apis = reduce(or_, (Api[name.upper()] for name in entry["apis"]), Api(0))
            yield Row(**{**entry, "apis": apis, "outcome": Outcome(entry["outcome"])})


def _part(entry: Mapping[str, Any]) -> Part:
    return Part(**{**entry, "rows": tuple(_rows(entry["rows"]))})


ROUTES = tuple(
    Route(
        path=route["path"],
        request=route["request"],
        rows=tuple(_rows(route["rows"])),
        parts=tuple(map(_part, route["parts"])),
    )
    for route in TABLE["routes"]
)
