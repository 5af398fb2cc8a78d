"""A job whose schema can't be compiled fails without affecting the worker or other jobs."""

import time
from typing import Any

import orjson
import pytest
from scripted_engine import ScriptedEngine
from worker_support import Client, Start

from shared.errors import ErrorCode
from shared.protocol.jobs import JobState, SamplingParams
from worker.text import tenant_turns

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
        assert ended.error.code is ErrorCode.INVALID_VALUE
        assert "too much time or memory" in ended.error.message
    assert time.monotonic() - start_s < 1.0  # the rejection is cached


@pytest.mark.parametrize(
    ("grammar", "reason"),
    [
        ("root ::= missing", "Rule 'missing' not found"),
        ('root ::= "a"' + 100_000 * "\n", "too much time or memory"),
    ],
    ids=["an unknown rule", "costly to convert"],
)
async def test_a_grammar_that_can_not_be_converted_fails_its_job(
    grammar: str, reason: str, client: Client, engine: ScriptedEngine, start: Start
) -> None:
    sampling = SamplingParams(seed=1, grammar=grammar, constrained_by="guided_grammar")
    async with start(engine):
        end = await client.end_of(await client.send(sampling=sampling), deadline_s=60)
    assert (end.error.code, end.error.param) == (ErrorCode.INVALID_VALUE, "guided_grammar")
    assert reason in end.error.message


def costly_schemas(number: int) -> list[SamplingParams]:
    return [with_schema({**COSTLY, "multipleOf": 99_999_989 + 2 * i}) for i in range(number)]


async def test_a_schema_waits_for_no_costly_schemas_of_another_tenant(
    client: Client, engine: ScriptedEngine, start: Start
) -> None:
    async with start(engine):
        hostile = [await client.send(sampling=each, tenant="a") for each in costly_schemas(12)]
        await client.end_of(hostile[0], deadline_s=60)
        victim = await client.send(sampling=with_schema({"const": 1}), tenant="b")
        end = await client.end_of(victim, deadline_s=60)
        num_ended = sum(client.events[job.id] != [] for job in hostile)
    assert end.state is JobState.DONE
    assert num_ended < len(hostile) / 2  # those that take no longer than the victim's own


async def test_a_tenant_whose_schemas_take_too_much_cpu_time_is_asked_to_come_back(
    client: Client, engine: ScriptedEngine, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tenant_turns, "MAX_SPENT_S", 0.1)
    async with start(engine):
        costly, refused = [
            await client.send(sampling=each, tenant="a") for each in costly_schemas(2)
        ]
        ends = [await client.end_of(job, deadline_s=60) for job in (costly, refused)]
        other = await client.send(sampling=with_schema({"const": 1}), tenant="b")
        assert (await client.end_of(other, deadline_s=60)).state is JobState.DONE
    assert [end.error and end.error.status for end in ends] == [400, 429]
