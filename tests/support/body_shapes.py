"""Families of JSON bodies: a valid body in which one place grows with the size."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from hypothesis import strategies as st
from linear_time import assert_linear

from shared.errors import JobFailed
from shared.json_budget import JsonBudget
from shared.settings import ApiSettings

PLACE = "\N{SNOWMAN}"
"""Text in a body in whose place a part is written that grows with the size."""
MAX_BYTES = ApiSettings().max_body_bytes
STEP_BYTES = MAX_BYTES >> 10
"""Precision to which the largest body within the bounds of JSON is searched."""
NEW = "new"
"""Name of a field that a valid body doesn't have."""
Path = tuple[str | int, ...]

_OPENINGS = (b"[", b'{"a":', b"[0,", b'{"a":0,"b":[')
_CLOSINGS = {b"[": b"]", b'{"a":': b"}", b"[0,": b"]", b'{"a":0,"b":[': b"]}"}
_TEXTS = (b"a", b'\\"', b"\\\\", b"\\u00e9", b"\\u0000", b"[{,", b" ", "e\u0301".encode(), b"1")
_LASTS = (b"NaN", b"1", b"{")
_SCALARS = (b"1", b"-1.5e300", b"true", b"null", b'""', b'"a"', b"[]", b"{}", b"[[1]]", b'{"a":1}')


@dataclass(frozen=True, slots=True)
class Shape:
    """A family of bodies."""

    before: bytes
    """The body before the part that grows."""
    after: bytes
    kind: str
    """How the part grows: a list with more items, an object with more members, an object that
    exists with more fields, a longer text, more levels, or a text with a longer list as JSON."""
    unit: bytes
    last: bytes = b""
    """A last item."""

    def body(self, num_bytes: int) -> bytes:
        """Return a body of at most `num_bytes`, and nearly as many, unless they are too few."""
        left = num_bytes - len(self.before) - len(self.after) - len(self.last) - 8
        return self.before + getattr(self, f"_{self.kind}")(max(0, left)) + self.after

    def _items(self, left: int) -> bytes:
        units = (self.unit + b",") * (left // (len(self.unit) + 1))
        return b"[" + (units + self.last if self.last else units[:-1]) + b"]"

    def _members(self, left: int) -> bytes:
        return b"{" + self._fields(left) + b"}"

    def _fields(self, left: int) -> bytes:
        width = len(b'"f000000":,') + len(self.unit)
        names = range(left // width)
        return b",".join(b'"f%06x":%s' % (name, self.unit) for name in names)

    def _text(self, left: int) -> bytes:
        return b'"' + self.unit * (left // len(self.unit)) + b'"'

    def _levels(self, left: int) -> bytes:
        number = left // (len(self.unit) + len(_CLOSINGS[self.unit]) + 1)
        return self.unit * number + b"1" + _CLOSINGS[self.unit] * number

    def _json(self, left: int) -> bytes:
        escaped = orjson.dumps(self.unit.decode())[1:-1]
        number = left // (len(escaped) + 1)
        return b'"[' + ((escaped + b",") * number)[:-1] + b']"'


def assert_bounded(check: Callable[[bytes], object], shape: Shape) -> None:
    """Measure a check of a family of bodies.

    The sizes grow up to the byte limit, and up to the largest body that keeps the bounds of JSON.

    Raises:
        NotLinear: as `assert_linear`.
    """
    largest = _largest(shape)
    is_bounded_by_bytes = largest >= MAX_BYTES - STEP_BYTES
    for limit in (MAX_BYTES,) if is_bounded_by_bytes else (MAX_BYTES, largest):
        assert_linear(check, shape.body, max_bytes=limit, refusals=JobFailed)


def _largest(shape: Shape) -> int:
    """Return the size in bytes up to which bodies keep the bounds of JSON."""
    low, high = 0, MAX_BYTES
    while high - low > STEP_BYTES:
        middle = (low + high) // 2
        try:
            JsonBudget().spend(shape.body(middle))
            low = middle
        except ValueError:
            high = middle
    return low


def paths(value: Any, path: Path = ()) -> Iterator[Path]:
    """Yield the path of each value in a body, except of the body itself."""
    items: Any = value.items() if isinstance(value, dict) else ()
    for key, child in enumerate(value) if isinstance(value, list) else items:
        yield (*path, key)
        yield from paths(child, (*path, key))


def at(value: Any, path: Path) -> Any:
    for key in path:
        value = value[key]
    return value


def placed(body: Mapping[str, Any], path: Path, value: Any) -> Any:
    """Return a copy of a body with another value at a path, which may be that of a new field."""
    changed = orjson.loads(orjson.dumps(body))  # a deep copy whose parts aren't shared
    at(changed, path[:-1])[path[-1]] = value
    return changed


def shape_at(body: Mapping[str, Any], path: Path, kind: str, unit: bytes, last: bytes) -> Shape:
    """Return the family of bodies in which the value at a path grows, or the object if the kind is
    fields."""
    is_object = kind == "fields"
    text = orjson.dumps(placed(body, (*path, NEW) if is_object else path, PLACE))
    name = orjson.dumps(NEW) + b":" if is_object else b""
    before, after = text.split(name + orjson.dumps(PLACE))
    return Shape(before, after, kind, unit, last)


@st.composite
def shapes(draw: st.DrawFn, body: Mapping[str, Any]) -> Shape:
    """Draw a family of bodies that grow from a valid one."""
    kind = draw(st.sampled_from(["copies", "items", "members", "fields", "text", "levels", "json"]))
    if kind == "copies":
        return draw(_copies(body))
    values = st.sampled_from([*_SCALARS, *(orjson.dumps(at(body, path)) for path in paths(body))])
    lists = values.map(lambda value: b"[" + b",".join([value] * 30) + b"]")
    units = {"levels": st.sampled_from(_OPENINGS), "text": st.sampled_from(_TEXTS)}
    last = draw(st.sampled_from((b"", *_LASTS))) if kind == "items" else b""
    unit = draw(units.get(kind, values | lists))
    places = _objects(body) if kind == "fields" else _places(body)
    return shape_at(body, draw(st.sampled_from(places)), kind, unit, last)


@st.composite
def _copies(draw: st.DrawFn, body: Mapping[str, Any]) -> Shape:
    """Draw a family of bodies in which an item of a list is repeated."""
    items = [path for path in paths(body) if isinstance(path[-1], int)]
    if not items:
        return shape_at(body, (NEW,), "items", b"1", b"")
    path = draw(st.sampled_from(items))
    last = draw(st.sampled_from((b"", *_LASTS)))
    return shape_at(body, path[:-1], "items", orjson.dumps(at(body, path)), last)


def _places(body: Mapping[str, Any]) -> list[Path]:
    """Return the path of each value, and of a new field of each object."""
    return [*paths(body), *((*path, NEW) for path in _objects(body))]


def _objects(body: Mapping[str, Any]) -> list[Path]:
    return [(), *(path for path in paths(body) if isinstance(at(body, path), dict))]
