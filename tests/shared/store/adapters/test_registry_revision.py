"""The registry's revision: whoever remembers a model can notice that it is outdated."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar

import pytest
from adapter_versions import BASE
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from queue_support import LIMITS, Actor, make_adapter, make_job

from shared.errors import JobFailed, RegistryChanged
from shared.protocol.ids import AdapterVersion
from shared.store.adapters.registry import Found, Registry
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis, connect
from shared.store.redis.keys import Keys

T = TypeVar("T")
MODELS = ["base", "base@2", "a", "b", "base:a", "a@1", "b@2"]
names, digests = st.sampled_from("ab"), st.sampled_from("123")
DEATHS = 3


@pytest.fixture
async def registry(registry: Registry) -> Registry:
    await registry.add_adapter(make_adapter("a@1"))
    return registry


async def test_a_job_of_an_outdated_model_is_refused(
    queue: Queue, registry: Registry, redis: Redis, keys: Keys
) -> None:
    found = await registry.find("a")
    await queue.enqueue(make_job("a@1"), LIMITS, registry_revision=found.revision)
    await registry.load_adapter(make_adapter("a@2"), replace=True)
    outdated = make_job("a@1")
    with pytest.raises(RegistryChanged):
        await queue.enqueue(outdated, LIMITS, registry_revision=found.revision)
    assert await redis.exists(keys.job(outdated.id)) == 0
    await queue.enqueue(outdated, LIMITS)


async def test_a_flushed_registry_has_no_revision(
    queue: Queue, registry: Registry, redis: Redis, keys: Keys
) -> None:
    found = await registry.find("base")
    await redis.delete(keys.counters, keys.base)
    with pytest.raises(RegistryChanged):
        await queue.enqueue(make_job("base@1"), LIMITS, registry_revision=found.revision)


class RegistryMachine(RuleBasedStateMachine):
    """A model that was found stays the same for as long as the revision stays the same."""

    url = ""
    examples = 0

    @initialize()
    def connect(self) -> None:
        type(self).examples += 1
        self.runner = asyncio.Runner()
        self.keys = Keys(f"revision-{self.examples}")
        self.redis = self.run(self.make_client())
        self.registry = Registry(self.redis, self.keys)
        self.queue = Queue(self.redis, self.keys)
        self.remembered: dict[str, Found] = {}
        self.num_workers = 0
        self.run(self.registry.set_base(BASE))

    async def make_client(self) -> Any:
        return connect(self.url)

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(call)

    @rule(digest=digests, max_model_len=st.integers(8, 9))
    def set_base(self, digest: str, max_model_len: int) -> None:
        version = AdapterVersion(f"base@{digest}")
        self.run(
            self.registry.set_base(replace(BASE, version=version, max_model_len=max_model_len))
        )

    @rule(name=names, digest=digests, rank=st.integers(8, 9), created_s=st.integers(0, 2))
    def start_with_adapter(self, name: str, digest: str, rank: int, created_s: int) -> None:
        adapter = make_adapter(f"{name}@{digest}", rank=rank, created_s=created_s)
        self.run(self.registry.add_adapter(adapter))

    @rule(name=names, digest=digests, keep_versions=st.integers(0, 2))
    def load(self, name: str, digest: str, keep_versions: int) -> None:
        adapter = make_adapter(f"{name}@{digest}")
        self.refusable(
            self.registry.load_adapter(adapter, replace=True, keep_versions=keep_versions)
        )

    @rule(name=names)
    def unload(self, name: str) -> None:
        self.run(self.registry.unload_adapter(name))

    @rule(name=names, digest=st.none() | digests)
    def roll_back(self, name: str, digest: str | None) -> None:
        version = AdapterVersion(f"{name}@{digest}") if digest else None
        self.refusable(self.registry.roll_back_adapter(name, version))

    @rule(name=names)
    def release(self, name: str) -> None:
        self.refusable(self.registry.release_adapter(name))

    @rule()
    def forget_unused(self) -> None:
        self.run(self.registry.forget_unused())

    @precondition(lambda self: self.remembered)
    @rule(data=st.data())
    def quarantine(self, data: st.DataObject) -> None:
        """One more job of a version kills its workers."""
        found = self.remembered[data.draw(st.sampled_from(sorted(self.remembered)))]
        if found.adapter and self.run(self.redis.exists(self.keys.version(found.adapter.version))):
            self.run(self.bury_job_of(found.adapter.version))

    async def bury_job_of(self, version: AdapterVersion) -> None:
        await self.redis.hset(self.keys.version(version), "dead_jobs", 2)
        try:
            await self.queue.enqueue(make_job(version), LIMITS)
        except JobFailed:  # it is quarantined or unloaded already
            return
        for _ in range(DEATHS):
            self.num_workers += 1
            worker = Actor(self.queue, self.redis, self.keys, f"w{self.num_workers}", [version])
            await worker.register()
            assert await worker.claim()
            await worker.die()

    def refusable(self, call: Coroutine[Any, Any, Any]) -> None:
        with suppress(JobFailed):
            self.run(call)

    @invariant()
    def what_was_found_is_the_same_at_its_revision(self) -> None:
        for model in MODELS:
            found = self.find(model)
            remembered = self.remembered.get(model)
            if remembered and self.revision() == remembered.revision:
                assert found == remembered
            if found and found.version:
                self.remembered[model] = found

    def revision(self) -> str:
        raw = self.run(self.redis.hget(self.keys.counters, "registry"))
        return str(raw.decode())

    def find(self, model: str) -> Found | None:
        try:
            return self.run(self.registry.find(model))
        except JobFailed:
            return None

    def teardown(self) -> None:
        self.run(self.redis.aclose())
        self.runner.close()


def test_a_found_model_is_current_for_as_long_as_the_revision_is(redis_url: str) -> None:
    RegistryMachine.url = redis_url
    run_state_machine_as_test(
        RegistryMachine,
        settings=settings(
            max_examples=60,
            stateful_step_count=12,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert RegistryMachine.examples >= 60
