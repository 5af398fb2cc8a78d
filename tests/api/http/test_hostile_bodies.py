"""Bodies that are built to be expensive hold up no other client, and take little memory."""

import gzip
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from api_processes import api_process, is_healthy
from api_support import free_port, until

from shared.store.adapters.registry import Registry

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
MAX_WAIT_S = 1.0
MAX_GROWTH_BYTES = 64 << 20
ATTEMPTS = 3
MESSAGES = b'"model":"extract","messages":[{"role":"user","content":"hi"}]'
CALL = b'{"type":"function_call","call_id":"","name":"","arguments":""}'
ERRORS = b'{"model":"extract","messages":[' + b"1," * 1_990_000 + b"1]}"
UNKNOWN = b"{" + MESSAGES + b"".join(b',"%x":1' % number for number in range(380_000)) + b"}"
CALLS = b'{"model":"extract","input":[' + (CALL + b",") * 60_000 + CALL + b"]}"
NAN = b'{"a":[' + b"{}," * 1_300_000 + b"NaN]}"
LARGEST = b'{"model":"extract","messages":[' + b'{"role":"user","content":""},' * 9_999 + b"1]}"
CASES = {
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
    for name, (path, body) in CASES.items():
        # A busy machine may hold up one attempt.
        waits = (front_end.longest_wait_s(path, body) < MAX_WAIT_S for _ in range(ATTEMPTS))
        assert any(waits), name
        assert front_end.memory("VmHWM") - before < MAX_GROWTH_BYTES, name
