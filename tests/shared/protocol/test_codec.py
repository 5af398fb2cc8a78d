"""Compatibility of messages between this release and its neighbours."""

from dataclasses import replace
from typing import Any

import orjson
import pytest
from queue_support import make_job, tokens

from shared.errors import ProtocolMismatch
from shared.protocol.codec import (
    PROTOCOL_VERSION,
    decode_events,
    decode_job,
    decode_result,
    encode_events,
    encode_job,
    encode_result,
)
from shared.protocol.events import End, Retry
from shared.protocol.jobs import JobState
from shared.protocol.results import Result, Usage

JOB = make_job(messages=({"role": "user", "content": "hi"},), tools=None)
EVENTS = [
    tokens(JOB, 0, [1], "a"),
    Retry(job=JOB.id, try_=1),
    End(job=JOB.id, try_=2, state=JobState.EXPIRED),
]
RESULT = Result(job=JOB.id, state=JobState.DONE, usage=Usage(prompt_tokens=1, completion_tokens=2))


def changed(raw: bytes, **changes: Any) -> bytes:
    return orjson.dumps({**orjson.loads(raw), **changes})


def test_messages_of_the_previous_protocol_version_are_decoded() -> None:
    last = PROTOCOL_VERSION - 1
    assert decode_job(changed(encode_job(JOB), v=last)) == JOB
    assert decode_events(changed(encode_events(EVENTS), v=last)) == EVENTS
    assert decode_result(changed(encode_result(RESULT), v=last)) == RESULT


@pytest.mark.parametrize("version", [PROTOCOL_VERSION + 1, PROTOCOL_VERSION - 2, None, "1"])
def test_messages_of_other_versions_are_refused(version: object) -> None:
    with pytest.raises(ProtocolMismatch, match="protocol version"):
        decode_job(changed(encode_job(JOB), v=version))


def test_fields_of_a_newer_release_are_dropped() -> None:
    wire = orjson.loads(encode_job(JOB))
    wire["sampling"]["novelty"] = 1
    assert decode_job(orjson.dumps({**wire, "novelty": 2})) == JOB
    result = orjson.loads(encode_result(RESULT))
    result["usage"]["novelty"] = 3
    assert decode_result(orjson.dumps({**result, "novelty": 4})) == RESULT


def test_a_field_that_an_older_release_does_not_write_has_its_default() -> None:
    wire = orjson.loads(encode_job(replace(JOB, echo=True, fingerprint="fp", priority=3)))
    for name in ("echo", "fingerprint", "priority"):
        del wire[name]
    assert decode_job(orjson.dumps(wire)) == JOB
