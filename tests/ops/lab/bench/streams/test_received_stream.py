"""Tokens and errors in the answers of the simulated engine."""

import orjson

from ops.lab.bench.streams.received_stream import ReceivedStream


def event(text: str) -> bytes:
    return b"id: 1\ndata: " + orjson.dumps({"choices": [{"text": text}]}) + b"\n\n"


def test_each_token_of_a_chunk_has_its_arrival_time() -> None:
    counted: list[int] = []
    received = ReceivedStream(on_tokens=lambda _, num_new: counted.append(num_new))
    received.begin(200, "job")
    received.receive(b": keep-alive\n\n")
    received.receive(event("00000000") + event("1111111122222222"))
    received.receive(event("") + b"data: [DONE]\n\n")
    assert counted == [3]
    assert len(received.token_s) == 3
    assert received.first_token_s >= 0
    assert received.error is None


def test_errors_are_kept() -> None:
    received = ReceivedStream()
    received.begin(429, "")
    received.receive(b"full")
    assert received.error == "HTTP 429: full"
    received = ReceivedStream()
    received.begin(200, "job")
    received.receive(b'data: {"error": {"code": "internal"}}\n\n')
    assert received.error == "{'code': 'internal'}"
