"""Request bodies: JSON within bounds, their size limit, and compressed ones."""

import gzip
import json
import zlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import orjson
import pytest
from api_support import ScriptedWorker, error_of
from hypothesis import given
from hypothesis import strategies as st
from raw_client import BODY, CHAT

from api.http.body import Decoder, parse_json_object
from shared.errors import ErrorCode, JobFailed
from shared.json_budget import MAX_DEPTH, MAX_NODES, MAX_VALUES, JsonBudget, TooComplex


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nope",
        b'{"a": 1,}',
        b"\xff\xfe",
        b'{"a": "\\ud800"}',
        b'{"a": "\\ud800", "b": NaN}',
        b'{"a": "NaN \\ud800"}',
        b'{"a": "\\ud800", "b": 1e999}',
        '{"a": 1}'.encode("utf-16"),
        '{"a": NaN}'.encode("utf-16"),
        b"[" * 100_000,
        b"NaN" + b"[" * 100_000,
        b"[]",
        b"1",
        b"null",
        b'"text"',
    ],
)
def test_only_json_objects_are_accepted(body: bytes) -> None:
    with pytest.raises(JobFailed) as caught:
        parse_json_object(body)
    assert caught.value.error.code is ErrorCode.INVALID_VALUE
    assert "JSON" in caught.value.error.message


@pytest.mark.parametrize("number", ["5", "NaN", "-Infinity", "1e999", "-1e999"])
def test_a_json_object_may_have_numbers_that_are_not_finite(number: str) -> None:
    parsed = parse_json_object(f'{{"ä": [1, "x"], "n": {number}}}'.encode())
    assert (parsed["ä"], parsed.keys()) == ([1, "x"], {"ä", "n"})


async def test_the_limit_of_a_body_holds_with_and_without_content_length(
    http: httpx.AsyncClient,
) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(11):
            yield b"x" * 1000

    for content in (b"x" * 10_001, chunks()):
        assert error_of(await http.post(CHAT, content=content))[:2] == (413, "request_too_large")
    assert error_of(await http.post(CHAT, content=b" " * 10_000))[:2] == (400, "invalid_value")


TEXT = st.text(alphabet='ab"\\[]{},: \n\u00e9', max_size=8)
VALUES = st.recursive(
    st.none() | st.integers(-9, 9) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


def num_nodes(value: Any) -> int:
    if isinstance(value, list):
        return 1 + sum(map(num_nodes, value))
    if isinstance(value, dict):
        return 1 + sum(1 + num_nodes(member) for member in value.values())
    return int(isinstance(value, str))


@given(VALUES)
def test_nodes_are_counted_exactly(value: Any) -> None:
    budget = JsonBudget()
    budget.spend(orjson.dumps(value))
    assert budget.num_nodes == num_nodes(value)


def test_texts_share_a_budget() -> None:
    budget = JsonBudget(max_nodes=4)
    budget.spend(b'["a"]')
    with pytest.raises(TooComplex, match="has more than 4 arrays, objects and strings"):
        budget.spend(b'["a",["b"]]')


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":"' + b"[{}]," * 500_000 + b'"}',
        b'{"a":"' + rb"\"[\\" * 500_000 + b'"}',
        b'{"a":[' + b"1," * (MAX_VALUES - 1) + b"1]}",
        b'{"a":[' + b"{}," * (MAX_NODES - 4) + b"{}]}",
        b'{"a":' + b"[" * (MAX_DEPTH - 1) + b"]" * (MAX_DEPTH - 1) + b"}",
    ],
)
def test_bodies_within_the_bounds_are_accepted_and_can_be_written_again(body: bytes) -> None:
    assert orjson.dumps({"job": [parse_json_object(body)]})


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"a":[' + b"{}," * MAX_NODES + b"{}]}", "arrays, objects and strings"),
        (b'{"a":[' + b'"",' * MAX_NODES + b'""]}', "arrays, objects and strings"),
        (b'{"a":[' + b"{}," * MAX_NODES + b"NaN]}", "arrays, objects and strings"),
        (b'{"a":[' + b"1," * MAX_VALUES + b"1,1]}", "values"),
        (b'{"a":' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}", "nested in more than 128 levels"),
        (b'{"a":' + b"[" * MAX_DEPTH + b"NaN" + b"]" * MAX_DEPTH + b"}", "nested in more than"),
    ],
)
def test_bodies_beyond_a_bound_are_refused(body: bytes, reason: str) -> None:
    with pytest.raises(JobFailed, match=reason):
        parse_json_object(body)


PLAIN = json.dumps({**BODY, "background": True}).encode()
PACKED = gzip.compress(PLAIN, mtime=0)


async def test_a_gzip_body_is_decompressed_and_a_plain_one_may_say_so(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    for encoding in ("gzip", "GZIP", "x-gzip", "identity"):
        content = PLAIN if encoding == "identity" else PACKED
        reply = await http.post(CHAT, content=content, headers={"Content-Encoding": encoding})
        assert reply.status_code == 202, encoding


async def test_the_limit_of_a_body_holds_for_its_decompressed_size(
    http: httpx.AsyncClient,
) -> None:
    gzipped = {"Content-Encoding": "gzip"}
    fits = await http.post(CHAT, content=gzip.compress(b" " * 10_000), headers=gzipped)
    assert error_of(fits)[0] == 400
    for size in (10_001, 50_000_000):
        reply = await http.post(CHAT, content=gzip.compress(b" " * size), headers=gzipped)
        assert error_of(reply)[:2] == (413, "request_too_large")


async def test_a_body_that_is_not_valid_gzip_data_is_a_400(direct: httpx.AsyncClient) -> None:
    broken = (PACKED[:-1], PACKED[:5], PACKED + b"x", PACKED + PACKED)
    for content in (b"", b"{}", *broken, zlib.compress(b"{}")):
        reply = await direct.post(CHAT, content=content, headers={"Content-Encoding": "gzip"})
        assert error_of(reply)[:2] == (400, "invalid_value"), content
        assert "gzip" in reply.json()["error"]["message"]


async def test_other_encodings_are_a_415(direct: httpx.AsyncClient) -> None:
    for encoding in ("br", "deflate", "gzip, gzip", "zstd"):
        reply = await direct.post(CHAT, content=b"{}", headers={"Content-Encoding": encoding})
        assert error_of(reply)[:2] == (415, "unsupported_content_encoding"), encoding


def test_a_body_may_arrive_in_any_pieces() -> None:
    decoder = Decoder("gzip", 1000)
    pieces = [decoder.decode(PACKED[n : n + 1]) for n in range(len(PACKED))]
    decoder.finish()
    assert b"".join(pieces) == PLAIN


def test_no_more_than_the_limit_and_one_byte_is_decompressed() -> None:
    bomb = gzip.compress(b" " * 10_000_000)
    decoder = Decoder("gzip", 1000)
    assert len(decoder.decode(bomb)) == 1001
