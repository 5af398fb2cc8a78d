"""A job whose schema can't be compiled fails without affecting the worker or other jobs."""

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

# Compiling it without limits takes minutes and gigabytes.
COSTLY = {"type": "integer", "multipleOf": 99_999_989}


def with_schema(schema: dict[str, Any]) -> SamplingParams:
    return SamplingParams(seed=1, max_tokens=5, json_schema=orjson.dumps(schema).decode())


async def test_a_schema_that_can_not_be_enforced_fails_its_job_and_names_the_field(
    client: Client, engine: ScriptedEngine, start: Start
) -> None:
    async with start(engine):
        job = await client.send(sampling=with_schema({"type": "array", "uniqueItems": True}))
        end = await client.end_of(job)
    assert end.state is JobState.FAILED
    assert end.error is not None
    assert (end.error.code, end.error.param) == (ErrorCode.INVALID_VALUE, "response_format")
    assert "uniqueItems" in end.error.message
    assert engine.added_ids == []


async def test_a_costly_schema_is_rejected_while_other_jobs_run(
    client: Client, engine: ScriptedEngine, start: Start
) -> None:
    async with start(engine):
        costly = await client.send(sampling=with_schema(COSTLY))
        plain = await client.send()
        end = await client.end_of(plain)
        assert client.events[costly.id] == []
        rejected = await client.end_of(costly, deadline_s=60)
        start_s = time.monotonic()
        again = await client.end_of(await client.send(sampling=with_schema(COSTLY)))
    assert end.state is JobState.DONE
    for ended in (rejected, again):
        assert ended.error is not None
        assert ended.error.code is ErrorCode.INVALID_VALUE
        assert "too much time or memory" in ended.error.message
    assert time.monotonic() - start_s < 1.0  # the rejection is cached
