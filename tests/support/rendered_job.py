"""A job and its stream, as the front end writes them in OpenAI's format."""

from dataclasses import replace
from typing import Any

from queue_support import make_job
from sse_events import sse_events

from api.render.stream_writer import StreamWriter
from shared.protocol.answers import AnswerSpec
from shared.protocol.ids import JobId
from shared.protocol.jobs import Endpoint, Job


def job(endpoint: Endpoint = Endpoint.CHAT, n: int = 1) -> Job:
    return make_job("m@1", n=n, id=JobId("a1"), endpoint=endpoint, fingerprint="fp_1", created_s=5)


def spec(endpoint: Endpoint = Endpoint.CHAT, **fields: Any) -> AnswerSpec:
    """Return the specification of the job's answer, changed by `fields`."""
    return replace(AnswerSpec.of(job(endpoint)), **fields)


def writer(endpoint: Endpoint = Endpoint.CHAT, **fields: Any) -> StreamWriter:
    """Return a writer that has sent the opening chunks."""
    opened = StreamWriter(spec(endpoint, **fields))
    opened.chunks([])
    return opened


def events(raw: bytes) -> list[Any]:
    return [event.json for event in sse_events(raw.decode())]
