"""Bodies that are built to be expensive: their checks are bounded, and hold up no other client."""

import gzip
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_processes import api_process, is_healthy
from api_support import free_port, until
from body_checks import CHECKS
from body_shapes import Shape, assert_bounded, shape_at, shapes
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from api.app import create_app
from api.openapi.document import MANAGEMENT_REQUESTS, REQUESTS, TOKENIZER_REQUESTS
from api.schema.batches import CreateBatchRequest
from api.schema.generate import GenerateRequest
from api.schema.job_actions import JobActionRequest
from shared.settings import ApiSettings
from shared.store.adapters.registry import Registry

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


@pytest.mark.slow
@given(ROUTES_AND_SHAPES)
@settings(MEASURED, max_examples=8)
def test_every_check_is_linear_and_bounded(drawn: tuple[str, Shape]) -> None:
    path, shape = drawn
    assert_bounded(CHECKS[path], shape)


@pytest.mark.long
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


@pytest.mark.slow
@pytest.mark.parametrize("name", KNOWN)
def test_bodies_that_have_taken_long_are_checked_in_linear_time(name: str) -> None:
    path, place, kind, unit = KNOWN[name]
    assert_bounded(CHECKS[path], shape_at(CHECKS[path].valid, place, kind, unit, b""))


MAX_WAIT_S = 1.0
MAX_GROWTH_BYTES = 64 << 20
ATTEMPTS = 3
FIELDS = b'"model":"extract","messages":[{"role":"user","content":"hi"}]'
ITEM = b'{"type":"function_call","call_id":"","name":"","arguments":""}'
ERRORS = b'{"model":"extract","messages":[' + b"1," * 1_990_000 + b"1]}"
UNKNOWN = b"{" + FIELDS + b"".join(b',"%x":1' % number for number in range(380_000)) + b"}"
CALLS = b'{"model":"extract","input":[' + (ITEM + b",") * 60_000 + ITEM + b"]}"
NAN = b'{"a":[' + b"{}," * 1_300_000 + b"NaN]}"
LARGEST = b'{"model":"extract","messages":[' + b'{"role":"user","content":""},' * 9_999 + b"1]}"
EXPENSIVE = {
    "an error for each message": (CHAT, ERRORS),
    "unknown fields": (CHAT, UNKNOWN),
    "calls of one message": (RESPONSES, CALLS),
    "NaN at the end": (CHAT, NAN),
    "an invalid message at the end": (CHAT, LARGEST),
}


@dataclass(frozen=True, slots=True)
class FrontEnd:
    port: int
    pid: int

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def memory(self, name: str) -> int:
        """Return a figure of the process in bytes: VmRSS, or VmHWM, the highest RSS so far."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{name}:"))

    def post(self, path: str, body: bytes) -> int:
        headers = {"content-type": "application/json", "content-encoding": "gzip"}
        reply = httpx.post(self.url(path), content=body, headers=headers, timeout=60)
        return reply.status_code

    def longest_wait_s(self, path: str, body: bytes) -> float:
        """Return the longest wait of another client while a body is refused."""
        longest_s = 0.0
        with ThreadPoolExecutor(1) as pool, httpx.Client(timeout=60) as other:
            sent = pool.submit(self.post, path, gzip.compress(body, 1))
            while not sent.done():
                start_s = time.monotonic()
                assert other.get(self.url("/health")).status_code == 200
                longest_s = max(longest_s, time.monotonic() - start_s)
            assert sent.result() == 400
        return longest_s


@pytest.fixture
async def front_end(redis_url: str, pool: str, registry: Registry) -> AsyncIterator[FrontEnd]:
    port = free_port()
    with api_process(redis_url, pool, port) as process:
        await until(lambda: is_healthy(port), 60)
        yield FrontEnd(port, process.pid)


async def test_an_expensive_body_delays_nobody_and_takes_little_memory(
    front_end: FrontEnd,
) -> None:
    for path in (CHAT, RESPONSES):
        assert front_end.post(path, gzip.compress(b"{}")) == 400  # first requests import modules
    before = front_end.memory("VmRSS")
    for name, (path, body) in EXPENSIVE.items():
        # A busy machine may hold up one attempt.
        waits = (front_end.longest_wait_s(path, body) < MAX_WAIT_S for _ in range(ATTEMPTS))
        assert any(waits), name
        assert front_end.memory("VmHWM") - before < MAX_GROWTH_BYTES, name


MODELS = (
    *(*REQUESTS, GenerateRequest, *TOKENIZER_REQUESTS, *MANAGEMENT_REQUESTS),
    *(CreateBatchRequest, JobActionRequest),
)
WRAPPERS = ("function-after", "nullable", "default", "model-field")


def containers(schema: Any, is_counted: bool = False) -> Iterator[tuple[dict[str, Any], bool]]:
    """Yield the lists and objects that pydantic validates, from its schema of a model.

    A plain validator reports one error, whatever the type of its field. The second value says
    whether a validator sees the container before its items are validated.
    """
    if isinstance(schema, list | tuple):
        for child in schema:
            yield from containers(child)
    if not isinstance(schema, dict) or schema.get("type") == "function-plain":
        return
    kind = schema.get("type")
    if kind in ("list", "dict"):
        yield schema, is_counted
    counts = kind == "function-before" or (is_counted and kind in WRAPPERS)
    for name, child in schema.items():
        if name != "metadata" or not isinstance(kind, str):  # of pydantic, not the field metadata
            yield from containers(child, counts)


@pytest.mark.parametrize("model", MODELS)
def test_lists_are_bounded_and_stop_at_their_first_invalid_item(model: type[BaseModel]) -> None:
    for schema, _ in containers(model.__pydantic_core_schema__):
        if schema["type"] == "list":
            assert "max_length" in schema
            assert schema.get("fail_fast") or schema["items_schema"]["type"] == "any"


@pytest.mark.parametrize("model", MODELS)
def test_the_fields_of_objects_with_typed_values_are_counted_first(model: type[BaseModel]) -> None:
    for schema, is_counted in containers(model.__pydantic_core_schema__):
        if schema["type"] == "dict" and schema["values_schema"]["type"] != "any":
            assert is_counted


def test_the_walk_finds_lists_and_objects() -> None:
    class Inner(BaseModel):
        texts: list[str]

    class Outer(BaseModel):
        inner: list[Inner] | None = None
        metadata: dict[str, str]

    found = list(containers(Outer.__pydantic_core_schema__))
    assert [(schema["type"], is_counted) for schema, is_counted in found] == [
        ("list", False),
        ("list", False),
        ("dict", False),
    ]
