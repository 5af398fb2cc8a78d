"""A job and its stream, as the front end writes them in OpenAI's format."""

from typing import Any

import orjson

from api.render.openai_chunks import StreamWriter, format_of
from shared.protocol.ids import AdapterVersion, ApiId, JobId
from shared.protocol.jobs import Endpoint, Job, SamplingParams


def job(endpoint: Endpoint = Endpoint.CHAT, n: int = 1) -> Job:
    return Job(
        id=JobId("a1"),
        endpoint=endpoint,
        model="m",
        version=AdapterVersion("m@1"),
        fingerprint="fp_1",
        sampling=SamplingParams(seed=1, n=n),
        created_s=5,
        deadline_ms=1,
        cost=1,
        reply_to=ApiId("api"),
    )


def writer(endpoint: Endpoint = Endpoint.CHAT, *, include_usage: bool = False) -> StreamWriter:
    return StreamWriter(
        format_of(job(endpoint), stream=True), job(endpoint), include_usage=include_usage
    )


def events(raw: bytes) -> list[Any]:
    """Return the parsed events of a stream."""
    return [orjson.loads(part.removeprefix(b"data: ")) for part in raw.split(b"\n\n") if part]
