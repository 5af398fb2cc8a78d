"""The check of a batch's input file."""

import io
from typing import Any

import orjson
import pytest
from body_checks import CHECKS
from body_shapes import MAX_BYTES, Shape, assert_bounded, shape_at, shapes
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ops.control.batches.lines import MAX_ERRORS, LineCheck, decode_lines, encode_lines

CHAT = "/v1/chat/completions"


def line(custom_id: Any = "a", **changes: Any) -> bytes:
    body = {"model": "extract", "messages": []}
    fields = {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": body, **changes}
    return orjson.dumps({name: value for name, value in fields.items() if value is not ...})


def line_with(value: bytes) -> bytes:
    """Return a line with a value in its body that may not be JSON."""
    return line().replace(b'"messages":[]', b'"temperature":' + value)


NESTED = orjson.loads("[" * 130 + "]" * 130)
"""JSON that is nested more deeply than requests may be."""
SMALL_LINE = orjson.loads(line(body=CHECKS[CHAT].valid))


def checked(content: bytes, *, max_bytes: int = 1000, step: int = 1 << 20) -> LineCheck:
    """Check a file in steps, and return the complete check."""
    check = LineCheck(io.BytesIO(content), CHAT, max_bytes=max_bytes)
    while not check.step(step):
        pass
    return check


def test_each_line_is_found_again_by_its_offset() -> None:
    content = b"\n".join([line("1"), b"", line("2", body={"model": "sql"}), b"  ", line("3")])
    found = checked(content)
    assert found.errors == []
    assert [each.number for each in found.lines] == [0, 1, 2]
    read = [
        orjson.loads(content[each.offset : each.offset + each.num_bytes]) for each in found.lines
    ]
    assert [each["custom_id"] for each in read] == ["1", "2", "3"]
    assert [each.model for each in found.lines] == ["extract", "sql", "extract"]


@pytest.mark.parametrize(
    ("raw", "code", "param"),
    [
        (b"{", "invalid_json_line", None),
        (b"[1]", "invalid_json_line", None),
        (line(body={"model": "a", "x": NESTED}), "invalid_json_line", None),
        (b"\xff\xfe", "invalid_json_line", None),
        (line_with(b"NaN"), "invalid_json_line", None),
        (line_with(b"-Infinity"), "invalid_json_line", None),
        (line_with(b"[" * 300 + b"]" * 300), "invalid_json_line", None),
        (line(...), "invalid_custom_id", "custom_id"),
        (line(7), "invalid_custom_id", "custom_id"),
        (line(""), "invalid_custom_id", "custom_id"),
        (line("b" * 513), "invalid_custom_id", "custom_id"),
        (line("first"), "duplicate_custom_id", "custom_id"),
        (line(method="GET"), "invalid_method", "method"),
        (line(url="/v1/completions"), "mismatched_url", "url"),
        (line(body="text"), "invalid_body", "body"),
        (line(body={}), "missing_model", "body.model"),
        (line(body={"model": 3}), "missing_model", "body.model"),
        (line(body={"model": "m" * 257}), "missing_model", "body.model"),
        (line(body={"model": "a", "stream": True}), "unsupported_field", "body.stream"),
        (line(body={"model": "a", "background": True}), "unsupported_field", "body.background"),
        (line(body={"model": "a", "text": "x" * 1000}), "line_too_large", None),
    ],
)
def test_a_fault_names_its_line(raw: bytes, code: str, param: str | None) -> None:
    found = checked(b"\n".join([line("first"), raw, line("last")]))
    assert found.lines == []
    assert [(each.code, each.param, each.line) for each in found.errors] == [(code, param, 2)]


def test_a_long_line_does_not_hide_the_next() -> None:
    found = checked(b"\n".join([b"x" * 5000, b"{", line("a")]))
    assert [(each.code, each.line) for each in found.errors] == [
        ("line_too_large", 1),
        ("invalid_json_line", 2),
    ]


def test_only_the_first_faults_are_reported() -> None:
    found = checked(b"{\n" * 100)
    assert [each.line for each in found.errors] == list(range(1, MAX_ERRORS + 1))


def test_an_empty_file_is_a_fault() -> None:
    assert [each.code for each in checked(b"\n \n").errors] == ["empty_file"]


def test_too_many_requests_are_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ops.control.batches.lines.MAX_LINES", 2)
    content = [line(str(number)) for number in range(3)]
    assert [each.code for each in checked(b"\n".join(content)).errors] == ["too_many_requests"]
    assert checked(b"\n".join(content[:2])).errors == []


@given(st.integers(1, 5000))
def test_a_check_in_steps_finds_the_same(step: int) -> None:
    content = b"\n".join([line("1"), b"{", b"x" * 3000, b"", line("2")] * 3)
    assert checked(content, step=step).errors == checked(content).errors
    content = b"\n".join(line(str(number)) for number in range(20))
    assert checked(content, step=step).lines == checked(content).lines


@given(st.lists(st.sampled_from(["a", "b", "\u00e9"]), min_size=1, max_size=40))
def test_lines_are_read_as_they_were_kept(models: list[str]) -> None:
    rows = [line(str(i), body={"model": model}) for i, model in enumerate(models)]
    lines = checked(b"\n".join(rows)).lines
    assert decode_lines(encode_lines(lines)) == lines


@given(shapes(SMALL_LINE))
@example(shape_at(SMALL_LINE, ("body", "messages"), "items", b"1", b""))
@settings(max_examples=1, deadline=None)
def test_the_check_of_a_line_is_linear_and_bounded(shape: Shape) -> None:
    """Try the body that took longest, and another one. Those of requests have more tries."""
    assert_bounded(lambda raw: checked(raw, max_bytes=MAX_BYTES, step=1 << 40), shape)
