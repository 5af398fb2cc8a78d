"""The check of a body takes linear CPU time, and at most half a second, whatever the body is."""

import pytest
from body_checks import CHECKS
from body_shapes import Shape, assert_bounded, shape_at, shapes
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from api.app import create_app
from shared.settings import ApiSettings

CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
MESSAGES = "/v1/messages"


def test_all_routes_with_json_bodies_are_measured() -> None:
    app = create_app(ApiSettings())
    takes_json = {
        path.replace(":path}", "}")
        for path, operations in app.state.openapi(with_keys=False)["paths"].items()
        for operation in operations.values()
        if "application/json" in operation.get("requestBody", {}).get("content", {})
    }
    assert takes_json == CHECKS.keys()


@pytest.mark.parametrize("path", CHECKS)
def test_the_bodies_that_grow_are_valid_at_first(path: str) -> None:
    CHECKS[path].check_object(CHECKS[path].valid)


MEASURED = settings(deadline=None, phases=[Phase.explicit, Phase.generate])
"""Hypothesis traces what it repeats, so a repeated body would take longer."""
ROUTES_AND_SHAPES = st.sampled_from(list(CHECKS)).flatmap(
    lambda path: st.tuples(st.just(path), shapes(CHECKS[path].valid))
)


@given(ROUTES_AND_SHAPES)
@settings(MEASURED, max_examples=8)
def test_every_check_is_linear_and_bounded(drawn: tuple[str, Shape]) -> None:
    path, shape = drawn
    assert_bounded(CHECKS[path], shape)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@given(ROUTES_AND_SHAPES)
@settings(MEASURED, max_examples=120)
def test_every_check_of_many_bodies_is_linear_and_bounded(drawn: tuple[str, Shape]) -> None:
    """Try 120 shapes: of a fault in one shape of 40, 95 runs of 100 find one.

    The faults that it has found were in one shape of 8 (unknown fields), and in one of 40 (lists of
    messages; schemas). `KNOWN` has them all, with those of rarer shapes.
    """
    path, shape = drawn
    assert_bounded(CHECKS[path], shape)


_USER = b'{"role":"user","content":""}'
_CALL = b'{"type":"function_call","call_id":"","name":"","arguments":""}'
_RESULT = b'{"type":"tool_result","tool_use_id":"","content":""}'
_OTHER = b'{"role":"user","content":"","b":1,"c":1,"d":1}'
KNOWN = {
    "an error for each message": (CHAT, ("messages",), "items", b"1"),
    "unknown fields": (CHAT, (), "fields", b"1"),
    "unknown fields of messages": (CHAT, ("messages",), "items", _OTHER),
    "calls of one message": (RESPONSES, ("input",), "items", _CALL),
    "small messages": (CHAT, ("messages",), "items", _USER),
    "results of tools": (MESSAGES, ("messages", 2, "content"), "items", _RESULT),
    "a schema as text": (COMPLETIONS, ("structured_outputs", "json"), "json", b"{}"),
    "a schema": (COMPLETIONS, ("structured_outputs", "json"), "members", b"1.25"),
    "token ids": (COMPLETIONS, ("prompt",), "items", b"123456"),
}
"""Bodies that have taken long, or do per byte."""
SIMILAR = {
    "unknown fields of a message": (CHAT, ("messages", 0), "fields", b"1"),
    "unknown fields of items": (RESPONSES, ("input",), "items", _OTHER),
    "strings as parts": (CHAT, ("messages", 1, "content"), "items", b'"a"'),
    "small items": (RESPONSES, ("input",), "items", _USER),
    "arguments of calls": (RESPONSES, ("input", 3, "arguments"), "json", b"{}"),
    "variables of the template": (CHAT, ("chat_template_kwargs", "a"), "items", b"1.25"),
    "metadata": (CHAT, ("metadata",), "members", b"1"),
}
"""Bodies in other fields that take the same time for the same reasons."""
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in SIMILAR]


@pytest.mark.parametrize("name", [*KNOWN, *SLOW])
def test_bodies_that_have_taken_long_are_checked_in_linear_time(name: str) -> None:
    path, place, kind, unit = (KNOWN | SIMILAR)[name]
    assert_bounded(CHECKS[path], shape_at(CHECKS[path].valid, place, kind, unit, b""))
