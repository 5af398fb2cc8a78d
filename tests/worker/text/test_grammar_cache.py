"""Jobs whose schema can't be compiled end by themselves; the worker and other jobs go on."""

import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import orjson
from scripted_engine import ScriptedEngine
from worker_support import Client

from shared.errors import ErrorCode
from shared.protocol.jobs import JobState, SamplingParams
from worker.service import Worker

Start = Callable[..., AbstractAsyncContextManager[Worker]]

# Compiled in this process it would take minutes and gigabytes.
EXCESSIVE = {"type": "integer", "multipleOf": 99_999_989}


def under(schema: dict[str, Any]) -> SamplingParams:
    return SamplingParams(seed=1, max_tokens=5, json_schema=orjson.dumps(schema).decode())


async def test_a_schema_that_can_not_be_enforced_ends_its_job_by_name(
    client: Client, engine: ScriptedEngine, start: Start
) -> None:
    async with start(engine):
        job = await client.send(sampling=under({"type": "array", "uniqueItems": True}))
        end = await client.end_of(job)
    assert end.state is JobState.FAILED
    assert end.error is not None
    assert (end.error.code, end.error.param) == (ErrorCode.INVALID_VALUE, "response_format")
    assert "uniqueItems" in end.error.message
    assert engine.seen == []


async def test_an_excessive_schema_is_refused_and_other_jobs_run_meanwhile(
    client: Client, engine: ScriptedEngine, start: Start
) -> None:
    async with start(engine):
        excessive = await client.send(sampling=under(EXCESSIVE))
        plain = await client.send()
        end = await client.end_of(plain)
        assert client.events[excessive.id] == []
        refused = await client.end_of(excessive, deadline_s=60)
        began = time.monotonic()
        again = await client.end_of(await client.send(sampling=under(EXCESSIVE)))
    assert end.state is JobState.DONE
    for ended in (refused, again):
        assert ended.error is not None
        assert ended.error.code is ErrorCode.INVALID_VALUE
        assert "too much time or memory" in ended.error.message
    assert time.monotonic() - began < 1.0  # what was found out once is kept
