"""Sends a request to a pool, and gets its whole answer even if connections and front ends fail.

Copy `answer`, or run this file with the front ends' URLs and a request, streamed or not:

    python -m ops.examples.resume http://a:23333 http://b:23333 \
      --body '{"model": "extract", "stream": true, "messages": [{"role": "user", "content": "hi"}]}'
"""

import argparse
import itertools
import json
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx


@dataclass
class Progress:
    """How much of an answer has arrived, and when to send the next request."""

    job: str = ""
    last_id: str = ""
    is_done: bool = False
    wait_s: float = 1.0
    """Seconds until the next attempt."""
    received_at: float = field(default_factory=time.monotonic)


def answer(
    urls: Sequence[str], path: str, body: dict[str, Any], *, api_key: str, give_up_s: float
) -> Iterator[dict[str, Any]]:
    """Yield each chunk of a streamed answer exactly once, or the body of an unstreamed answer.

    Raises:
        TimeoutError: nothing arrived for `give_up_s` seconds, and the last attempt failed.
        RuntimeError: a front end refused the request, or the job failed.
    """
    progress = Progress()
    headers = {"Authorization": f"Bearer {api_key}", "X-Lorikeet-On-Disconnect": "continue"}
    headers["Idempotency-Key"] = str(uuid.uuid4())  # each attempt is answered by the same job
    with httpx.Client(headers=headers, timeout=30) as http:  # streams send comments every 10 s
        for url in itertools.cycle(urls):
            last = {"Last-Event-ID": progress.last_id}
            again = "GET", f"{url}/v1/jobs/{progress.job}/stream"
            target, sent = (again, None) if progress.job else (("POST", url + path), body)
            try:
                with http.stream(*target, json=sent, headers=last) as reply:
                    yield from _received(reply, progress)
            except httpx.TransportError:
                pass
            if progress.is_done:
                return
            if time.monotonic() - progress.received_at > give_up_s:
                raise TimeoutError(f"no answer within {give_up_s:g} s")
            time.sleep(progress.wait_s)


def _received(reply: httpx.Response, progress: Progress) -> Iterator[dict[str, Any]]:
    if reply.status_code in (429, 502, 503):
        progress.wait_s = float(reply.headers.get("Retry-After", 1))
    elif reply.is_error:
        raise RuntimeError(reply.read().decode())
    elif reply.headers["Content-Type"].startswith("application/json"):
        yield json.loads(reply.read())
        progress.is_done = True
    else:
        progress.job = reply.headers["X-Lorikeet-Job"]
        yield from _chunks(reply, progress)


def _chunks(reply: httpx.Response, progress: Progress) -> Iterator[dict[str, Any]]:
    event_id = ""
    for line in _lines(reply):
        progress.received_at = time.monotonic()
        name, _, value = line.partition(": ")
        if name == "id":
            event_id = value
        elif name == "retry":
            progress.wait_s = int(value) / 1000
        elif value == "[DONE]":
            progress.is_done = True
        elif name == "data":
            chunk = json.loads(value)
            if error := chunk.get("error"):
                if error["code"] == "server_stopping":  # another front end has the rest
                    return
                raise RuntimeError(error["message"])
            progress.last_id = event_id
            yield chunk


def _lines(reply: httpx.Response) -> Iterator[str]:
    rest = b""
    for piece in reply.iter_bytes():  # `iter_lines` also splits at U+2028, which JSON may contain
        *lines, rest = (rest + piece).split(b"\n")
        yield from (line.decode() for line in lines)


def main() -> None:
    """Print the text of the first choice while it arrives."""
    parser = argparse.ArgumentParser()
    parser.add_argument("urls", nargs="+")
    parser.add_argument("--body", type=json.loads, required=True)
    parser.add_argument("--path", default="/v1/chat/completions")
    parser.add_argument("--api-key", default="none")
    parser.add_argument("--give-up-s", type=float, default=600)
    for chunk in answer(**vars(parser.parse_args())):
        for choice in chunk["choices"][:1]:
            part = choice.get("delta") or choice.get("message") or {"content": choice.get("text")}
            sys.stdout.write(part.get("content") or "" if choice["index"] == 0 else "")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
