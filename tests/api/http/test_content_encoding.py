"""Compressed request bodies."""

import gzip
import json
import zlib

import httpx
import pytest
from api_support import ScriptedWorker, error_of

from api.http.content_encoding import Decoder
from shared.errors import JobFailed

CHAT = "/v1/chat/completions"
BODY = {"model": "extract", "messages": [{"role": "user", "content": "hi"}], "background": True}
PACKED = gzip.compress(json.dumps(BODY).encode(), mtime=0)


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "x-gzip"])
async def test_a_gzip_body_is_decompressed(
    http: httpx.AsyncClient, worker: ScriptedWorker, encoding: str
) -> None:
    reply = await http.post(CHAT, content=PACKED, headers={"Content-Encoding": encoding})
    assert reply.status_code == 202


async def test_a_body_that_is_not_encoded_may_say_so(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    content = json.dumps(BODY).encode()
    reply = await http.post(CHAT, content=content, headers={"Content-Encoding": "identity"})
    assert reply.status_code == 202


async def test_the_limit_of_a_body_holds_for_its_decompressed_size(
    http: httpx.AsyncClient,
) -> None:
    gzipped = {"Content-Encoding": "gzip"}
    fits = await http.post(CHAT, content=gzip.compress(b" " * 10_000), headers=gzipped)
    assert error_of(fits)[0] == 400
    for size in (10_001, 50_000_000):
        reply = await http.post(CHAT, content=gzip.compress(b" " * size), headers=gzipped)
        assert error_of(reply)[:2] == (413, "request_too_large")


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", PACKED[:-1], PACKED[:5], PACKED + b"x", PACKED + PACKED, zlib.compress(b"{}")],
)
async def test_a_body_that_is_not_valid_gzip_data_is_a_400(
    direct: httpx.AsyncClient, content: bytes
) -> None:
    reply = await direct.post(CHAT, content=content, headers={"Content-Encoding": "gzip"})
    assert error_of(reply)[:2] == (400, "invalid_value")
    assert "gzip" in reply.json()["error"]["message"]


@pytest.mark.parametrize("encoding", ["br", "deflate", "gzip, gzip", "zstd"])
async def test_other_encodings_are_a_415(direct: httpx.AsyncClient, encoding: str) -> None:
    reply = await direct.post(CHAT, content=b"{}", headers={"Content-Encoding": encoding})
    assert error_of(reply)[:2] == (415, "unsupported_content_encoding")


def test_a_body_may_arrive_in_any_pieces() -> None:
    decoder = Decoder("gzip", 1000)
    pieces = [decoder.decode(PACKED[n : n + 1]) for n in range(len(PACKED))]
    decoder.finish()
    assert json.loads(b"".join(pieces)) == BODY


def test_no_more_than_the_limit_and_one_byte_is_decompressed() -> None:
    bomb = gzip.compress(b" " * 10_000_000)
    decoder = Decoder("gzip", 1000)
    assert len(decoder.decode(bomb)) == 1001


def test_an_unknown_encoding_is_refused_before_the_body_is_read() -> None:
    with pytest.raises(JobFailed, match="send gzip or none"):
        Decoder("br", 1)
