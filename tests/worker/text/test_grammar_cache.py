"""Compilation of grammars in turns of the tenants, and their caches."""

from typing import Any
from unittest import mock

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from worker_support import Client

from shared.errors import ErrorCode
from shared.protocol.jobs import JobState, SamplingParams
from worker.text import grammar_cache, tenant_turns
from worker.text.grammar_cache import TenantCache
from worker.text.grammar_sandbox import build_grammar
from worker.text.tenant_turns import FORGIVEN_PER_S, MAX_WAITING, CpuTurns

# Compiling it without limits takes minutes and gigabytes.
COSTLY = {"type": "integer", "multipleOf": 99_999_989}


def with_schema(schema: dict[str, Any]) -> SamplingParams:
    return SamplingParams(seed=1, max_tokens=5, json_schema=orjson.dumps(schema).decode())


def costly_schemas(number: int) -> list[SamplingParams]:
    return [with_schema({**COSTLY, "multipleOf": 99_999_989 + 2 * i}) for i in range(number)]


def with_grammar(grammar: str) -> SamplingParams:
    return SamplingParams(seed=1, grammar=grammar, constrained_by="guided_grammar")


@pytest.mark.parametrize(
    ("sampling", "field", "reason"),
    [
        (with_schema({"type": "array", "uniqueItems": True}), "response_format", "uniqueItems"),
        (with_grammar("root ::= missing"), "guided_grammar", "Rule 'missing' not found"),
        (
            with_grammar('root ::= "a"' + 100_000 * "\n"),
            *("guided_grammar", "too much time or memory"),
        ),
    ],
    ids=["a schema", "an unknown rule", "costly to convert"],
)
async def test_what_can_not_be_enforced_fails_its_job_and_names_the_field(
    sampling: SamplingParams, field: str, reason: str, client: Client
) -> None:
    async with client.worker():
        end = await client.end_of(await client.send(sampling=sampling), deadline_s=60)
    assert end.state is JobState.FAILED
    assert (end.error.code, end.error.param) == (ErrorCode.INVALID_VALUE, field)
    assert reason in end.error.message
    assert client.engine.added_ids == []


async def test_a_costly_schema_is_rejected_once_while_other_jobs_run(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_ = mock.Mock(wraps=build_grammar)
    monkeypatch.setattr(grammar_cache, "build_grammar", compile_)
    async with client.worker():
        costly = await client.send(sampling=with_schema(COSTLY))
        plain = await client.send()
        end = await client.end_of(plain)
        assert client.events[costly.id] == []
        rejected = await client.end_of(costly, deadline_s=60)
        again = await client.end_of(await client.send(sampling=with_schema(COSTLY)))
    assert end.state is JobState.DONE
    for ended in (rejected, again):
        assert ended.error.code is ErrorCode.INVALID_VALUE
        assert "too much time or memory" in ended.error.message
    compile_.assert_called_once()


async def test_a_schema_waits_for_no_costly_schemas_of_another_tenant(client: Client) -> None:
    async with client.worker():
        hostile = [await client.send(sampling=each, tenant="a") for each in costly_schemas(12)]
        await client.end_of(hostile[0], deadline_s=60)
        victim = await client.send(sampling=with_schema({"const": 1}), tenant="b")
        end = await client.end_of(victim, deadline_s=60)
        num_ended = sum(client.events[job.id] != [] for job in hostile)
    assert end.state is JobState.DONE
    assert num_ended < len(hostile) / 2  # those that take no longer than the victim's own


async def test_a_tenant_whose_schemas_take_too_much_cpu_time_is_asked_to_come_back(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tenant_turns, "MAX_SPENT_S", 0.1)
    async with client.worker():
        costly, refused = [
            await client.send(sampling=each, tenant="a") for each in costly_schemas(2)
        ]
        ends = [await client.end_of(job, deadline_s=60) for job in (costly, refused)]
        other = await client.send(sampling=with_schema({"const": 1}), tenant="b")
        assert (await client.end_of(other, deadline_s=60)).state is JobState.DONE
    assert [end.error and end.error.status for end in ends] == [400, 429]


MAX_RUNNING = 4

TENANTS = st.sampled_from("abcdef")


class TurnsMachine(RuleBasedStateMachine):
    """Compares the queue with lists of what waits and what runs."""

    def __init__(self) -> None:
        super().__init__()
        self.turns: CpuTurns[int] = CpuTurns(MAX_RUNNING)
        self.now_s = 0.0
        self.num_added = 0
        self.waiting: list[tuple[str, int]] = []
        self.running: list[str] = []

    @rule(tenant=TENANTS)
    def add(self, tenant: str) -> None:
        self.turns.add(tenant, self.num_added)
        self.waiting.append((tenant, self.num_added))
        self.num_added += 1

    @rule()
    def begin(self) -> None:
        able = {tenant for tenant, _ in self.waiting if tenant not in self.running}
        found = self.turns.next(self.now_s)
        if not able or len(self.running) == MAX_RUNNING:
            assert found is None
            return
        assert found is not None
        tenant, item = found
        least_s = min(self.turns.spent_s(each, self.now_s) for each in able)
        assert tenant in able
        assert self.turns.spent_s(tenant, self.now_s) == least_s
        assert item == min(number for each, number in self.waiting if each == tenant)
        self.waiting.remove(found)
        self.running.append(tenant)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), cpu_s=st.floats(0, 2))
    def end(self, data: st.DataObject, cpu_s: float) -> None:
        tenant = data.draw(st.sampled_from(self.running))
        before_s = self.turns.spent_s(tenant, self.now_s)
        self.running.remove(tenant)
        self.turns.end(tenant, cpu_s, self.now_s)
        assert self.turns.spent_s(tenant, self.now_s) == pytest.approx(before_s + cpu_s)

    @rule(seconds=st.floats(0, 10))
    def wait(self, seconds: float) -> None:
        before_s = {tenant: self.turns.spent_s(tenant, self.now_s) for tenant in "abcdef"}
        self.now_s += seconds
        for tenant, spent_s in before_s.items():
            left_s = max(0.0, spent_s - FORGIVEN_PER_S * seconds)
            assert self.turns.spent_s(tenant, self.now_s) == pytest.approx(left_s, abs=1e-6)

    @invariant()
    def no_tenant_runs_twice(self) -> None:
        assert len(set(self.running)) == len(self.running) <= MAX_RUNNING


test_turns_are_fair_in_any_order_of_events = TurnsMachine.TestCase


def test_the_number_of_a_tenants_waiting_compilations_is_limited() -> None:
    turns: CpuTurns[int] = CpuTurns(MAX_RUNNING)
    for number in range(MAX_WAITING):
        assert turns.has_room("a")
        turns.add("a", number)
    assert not turns.has_room("a")
    assert turns.has_room("b")


MAX_VALUES = 8
USES = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 12)), max_size=80)


@given(USES)
def test_a_fair_share_of_the_latest_values_is_kept(uses: list[tuple[str, int]]) -> None:
    cache: TenantCache[int] = TenantCache(MAX_VALUES)
    order: dict[str, list[int]] = {"a": [], "b": [], "c": []}
    for tenant, number in uses:
        key = bytes([number])
        if cache.get(tenant, key) is None:
            cache.put(tenant, key, number)
        if number in order[tenant]:
            order[tenant].remove(number)
        order[tenant].append(number)
        assert all(cache.get(each, key) is None for each in order if number not in order[each])
        for each, numbers in order.items():
            for recent in numbers[-(MAX_VALUES // len(order)) :]:
                assert bytes([recent]) in cache._values[each]
        assert sum(map(len, cache._values.values())) <= MAX_VALUES
