"""Unknown and unused fields of objects that are validated without a class."""

from typing import Any

import pytest

from api.requests.object_kinds import Kinds, ObjectKind, unknown_in, unused_in

SHAPE = ObjectKind(fields=("type", "size"), unused=("colour",))
KINDS: Kinds = {
    "circle": SHAPE,
    "group": ObjectKind(fields=("type", "members"), parts={"members": {None: SHAPE}}),
}


def unknown(value: Any) -> list[str]:
    return [field.path for field in unknown_in(value, "a", KINDS)]


def test_unknown_fields_are_found_at_any_depth() -> None:
    assert unknown({"type": "circle", "size": 1, "x": 1}) == ["a.x"]
    group = {"type": "group", "y": 1, "members": [{"size": {"any": 1}}, {"x": 1}]}
    assert unknown([{"type": "circle"}, group]) == ["a[1].y", "a[1].members[1].x"]
    assert unknown({"type": "group", "members": {"x": 1}}) == ["a.members.x"]


@pytest.mark.parametrize(
    "value", [None, "text", 7, [7, [{"x": 1}]], {"x": 1}, {"type": ["circle"], "x": 1}]
)
def test_values_of_no_known_kind_have_no_unknown_fields(value: Any) -> None:
    assert unknown(value) == []


def test_an_unknown_field_is_compared_with_the_known_ones_of_its_kind() -> None:
    (field,) = unknown_in({"type": "circle", "sise": 1}, "a", KINDS)
    assert field.known == ("type", "size", "colour")


def test_unused_fields_are_found_if_they_ask_for_something() -> None:
    circles = [{"type": "circle", "colour": value} for value in ("red", None, False, "")]
    assert list(unused_in(circles, "a", KINDS)) == ["a[0].colour"]
    assert unknown(circles) == []
