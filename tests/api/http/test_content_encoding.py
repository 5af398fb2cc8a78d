"""Compressed request bodies."""

import gzip
import json
import zlib

import httpx
from api_support import ScriptedWorker, error_of

from api.http.body import Decoder

CHAT = "/v1/chat/completions"
BODY = {"model": "extract", "messages": [{"role": "user", "content": "hi"}], "background": True}
PACKED = gzip.compress(json.dumps(BODY).encode(), mtime=0)


async def test_a_gzip_body_is_decompressed_and_a_plain_one_may_say_so(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    plain = json.dumps(BODY).encode()
    for encoding, content in (
        *(("gzip", PACKED), ("GZIP", PACKED), ("x-gzip", PACKED)),
        ("identity", plain),
    ):
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
    assert json.loads(b"".join(pieces)) == BODY


def test_no_more_than_the_limit_and_one_byte_is_decompressed() -> None:
    bomb = gzip.compress(b" " * 10_000_000)
    decoder = Decoder("gzip", 1000)
    assert len(decoder.decode(bomb)) == 1001
