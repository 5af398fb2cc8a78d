"""Random changes of the registry, compared with a model, and the revision of the registry."""

import asyncio
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, ClassVar, TypeVar

import pytest
from adapter_versions import BASE
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from queue_support import LIMITS, Actor, make_adapter, make_job
from redis_facts import Facts
from registry_model import Name, Refused, RegistryModel

from shared.errors import ErrorCode, JobFailed, RegistryChanged
from shared.protocol.ids import AdapterVersion
from shared.store.adapters.audit_log import Changes
from shared.store.adapters.candidates import CandidateMode, Candidates
from shared.store.adapters.pins import Pins
from shared.store.adapters.registry import Found, Registry
from shared.store.audit.auditor import Auditor
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis, connect
from shared.store.redis.keys import Keys
from shared.store.views.incidents import IncidentsView

T = TypeVar("T")
MODELS = ["base", "base@2", "a", "b", "base:a", "a@1", "b@2"]
NAMES, DIGESTS = "ab", "123"
names, digests = st.sampled_from(NAMES), st.sampled_from(DIGESTS)
modes = st.sampled_from(CandidateMode)


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
    """Changes of adapters do what the model expects, and a revision stands for what was found."""

    url: ClassVar[str]
    examples = 0

    def __init__(self) -> None:
        super().__init__()
        type(self).examples += 1
        self.runner = asyncio.Runner()
        self.keys = Keys(f"revision-{uuid.uuid4().hex[:12]}")
        self.redis = self.run(self.make_client())
        self.registry = Registry(self.redis, self.keys)
        self.candidates = Candidates(self.redis, self.keys)
        self.queue = Queue(self.redis, self.keys)
        self.model = RegistryModel()
        self.remembered: dict[str, Found] = {}
        self.num_workers = 0
        self.run(self.registry.set_base(BASE))

    async def make_client(self) -> Any:
        return connect(self.url)

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(call)

    def compare(self, call: Coroutine[Any, Any, T], expect: Callable[[], T]) -> None:
        """Make a call, which must return or refuse what the model does."""
        try:
            expected = expect()
        except Refused as refusal:
            with pytest.raises(JobFailed, match=str(refusal)) as failed:
                self.run(call)
            codes = ErrorCode.ADAPTER_CONFLICT, ErrorCode.ADAPTER_EXISTS
            assert failed.value.error.code in codes
        else:
            assert self.run(call) == expected

    @rule(digest=digests, max_model_len=st.integers(8, 9))
    def set_base(self, digest: str, max_model_len: int) -> None:
        version = AdapterVersion(f"base@{digest}")
        base = replace(BASE, version=version, max_model_len=max_model_len)
        self.run(self.registry.set_base(base))
        self.model.set_base(version)

    @rule(name=names, digest=digests, rank=st.integers(8, 9), created_s=st.integers(0, 2))
    def start_with_adapter(self, name: str, digest: str, rank: int, created_s: int) -> None:
        adapter = make_adapter(f"{name}@{digest}", rank=rank, created_s=created_s)
        self.compare(
            self.registry.add_adapter(adapter),
            lambda: self.model.start_with(name, adapter.version, created_s),
        )

    @rule(name=names, digest=digests, keep=st.integers(0, 2), is_replaced=st.booleans())
    def load(self, name: str, digest: str, keep: int, is_replaced: bool) -> None:
        adapter = make_adapter(f"{name}@{digest}")
        version, options = adapter.version, {"replace": is_replaced}
        self.compare(
            self.registry.load_adapter(adapter, keep_versions=keep, by="red", **options),
            lambda: self.model.load(name, version, keep, by="red", **options),
        )

    @rule(
        name=names,
        digest=digests,
        keep=st.integers(0, 2),
        mode=modes,
        percent=st.sampled_from((None, 0, 12.5)),
    )
    def add_candidate(
        self, name: str, digest: str, keep: int, mode: CandidateMode, percent: float | None
    ) -> None:
        adapter = make_adapter(f"{name}@{digest}")
        self.compare(
            self.registry.add_candidate(
                adapter, keep_versions=keep, by="red", mode=mode, percent=percent
            ),
            lambda: self.model.add_candidate(name, adapter.version, keep, mode, percent, by="red"),
        )

    @rule(name=names, digest=st.none() | digests, mode=modes, percent=st.sampled_from((12.5, 100)))
    def set_candidate(
        self, name: str, digest: str | None, mode: CandidateMode, percent: float
    ) -> None:
        version = AdapterVersion(f"{name}@{digest}") if digest else None
        self.compare(
            self.candidates.set(name, version, mode=mode, percent=percent, by="blue"),
            lambda: self.model.set_candidate(name, version, mode, percent, by="blue"),
        )

    @rule(name=names, is_promoted=st.booleans())
    def end_candidate(self, name: str, is_promoted: bool) -> None:
        end = self.candidates.promote if is_promoted else self.candidates.drop
        self.compare(
            end(name, by="blue"),
            lambda: self.model.end_candidate(name, is_promoted=is_promoted, by="blue"),
        )

    @rule(name=names)
    def unload(self, name: str) -> None:
        call = self.registry.unload_adapter(name, by="green")
        self.compare(call, lambda: self.model.unload(name, by="green"))

    @rule(name=names, digest=st.none() | digests)
    def roll_back(self, name: str, digest: str | None) -> None:
        version = AdapterVersion(f"{name}@{digest}") if digest else None
        self.compare(
            self.registry.roll_back_adapter(name, version, by="red"),
            lambda: self.model.roll_back(name, version, by="red"),
        )

    @rule(name=names, replicas=st.integers(0, 2))
    def pin(self, name: str, replicas: int) -> None:
        call = Pins(self.redis, self.keys).set(name, replicas, by="green")
        self.compare(call, lambda: self.model.pin(name, replicas, by="green"))

    @rule(name=names)
    def release(self, name: str) -> None:
        self.compare(
            self.registry.release_adapter(name, by="tester"), lambda: self.model.release(name)
        )

    @rule()
    def forget_unused(self) -> None:
        for version in self.run(self.registry.forget_unused()):
            self.model.forget(version)

    @rule(name=names, digest=digests)
    def quarantine(self, name: str, digest: str) -> None:
        """One more job of a version kills its workers."""
        version = AdapterVersion(f"{name}@{digest}")
        if self.model.states.get(version) in ("ready", "retired"):
            self.run(self.bury_job_of(version))
            self.model.quarantine(version)

    async def bury_job_of(self, version: AdapterVersion) -> None:
        await self.redis.hset(self.keys.version(version), "dead_jobs", 2)
        job = make_job(version)
        await self.queue.enqueue(job, LIMITS)
        self.num_workers += 1
        worker = Actor(self.queue, self.redis, self.keys, f"w{self.num_workers}", [version])
        await worker.register()
        await worker.die_of(job)
        await self.queue.leave(worker.id)

    @invariant()
    def names_and_versions_are_as_expected(self) -> None:
        self.run(self.check_names_and_versions())

    async def check_names_and_versions(self) -> None:
        facts, keys, model = Facts(self.redis), self.keys, self.model
        for name in NAMES:
            known = model.names.get(name)
            author = {True: "client", False: "start"}[known.is_set_by_client] if known else ""
            known = known or Name()
            fields = {"version": known.current, "by": author, "candidate": known.candidate}
            facts.texts(keys.adapter(name), fields)
            facts.items(keys.previous(name), known.previous)
            facts.numbers(keys.pins, {name: known.replicas})
            for digest in DIGESTS:
                version = AdapterVersion(f"{name}@{digest}")
                facts.texts(keys.version(version), {"state": model.states.get(version, "")})
        facts.members(keys.adapters, model.loaded)
        facts.ranked(keys.retired, model.retired)
        _, changes, newest = await asyncio.gather(
            facts.check(),
            Changes(self.redis, keys).newest(100, before=None, wanted=lambda _: True),
            IncidentsView(self.redis, keys).newest(200),
        )
        rows = [(each.action, each.adapter, each.by, each.before, each.after) for each in changes]
        assert rows == model.changes[::-1]
        of_adapters = [(i.kind, i.version) for i in newest if i.kind.startswith("adapter_")]
        assert of_adapters == model.incidents[::-1]

    @invariant()
    def what_was_found_is_the_same_at_its_revision(self) -> None:
        self.run(self.check_found())

    async def check_found(self) -> None:
        revision = (await self.redis.hget(self.keys.counters, "registry")).decode()
        everything = await asyncio.gather(*map(self.find, MODELS))
        for model, found in zip(MODELS, everything, strict=True):
            remembered = self.remembered.get(model)
            if remembered and revision == remembered.revision:
                assert found == remembered
            if found and found.version:
                self.remembered[model] = found

    async def find(self, model: str) -> Found | None:
        try:
            return await self.registry.find(model)
        except JobFailed:
            return None

    def teardown(self) -> None:
        audit = Auditor(self.redis, self.keys).audit(settle_s=0)
        assert self.run(audit).strays == ()
        self.run(self.redis.aclose())
        self.runner.close()


def test_every_change_does_what_the_model_expects_and_a_revision_stands_for_it(
    redis_url: str,
) -> None:
    RegistryMachine.url = redis_url
    run_state_machine_as_test(
        RegistryMachine,
        settings=settings(
            max_examples=60,
            stateful_step_count=20,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert RegistryMachine.examples >= 60
