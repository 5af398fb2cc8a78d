from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from queue_support import INFO, make_adapter
from running_jobs import WID, add_job
from structlog.testing import capture_logs

from shared.errors import LeaseLost, RedisUnavailable, SettingsError
from shared.protocol.adapters import Adapter, BaseModel
from shared.protocol.ids import AdapterVersion, JobId, WorkerId
from shared.protocol.queue_replies import Standing
from shared.protocol.workers import WorkerInfo
from worker.jobs.running import RunningJobs
from worker.membership import MISMATCHES_UNTIL_RECONCILED, Membership

LEASE_MS = 900
BASE = BaseModel(
    name="base",
    version=AdapterVersion("base@0"),
    max_model_len=100,
    source="base",
    created_s=0,
)
ADAPTER = make_adapter("a@1")


class FakeQueue:
    """Records calls; the reply to a heartbeat is scripted."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.reply: Standing | Exception = Standing()
        self.known: Mapping[JobId, int] = {}
        self.loading: Sequence[AdapterVersion] = ()

    async def register(
        self, wid: WorkerId, *, lease_ms: int, info: WorkerInfo, residents: Sequence[AdapterVersion]
    ) -> None:
        self.calls.append(("register", wid, lease_ms, info, list(residents)))

    async def beat(
        self,
        wid: WorkerId,
        *,
        lease_ms: int,
        info: WorkerInfo,
        loading: Sequence[AdapterVersion],
        known: Mapping[JobId, int],
    ) -> Standing:
        self.calls.append(("beat", wid, lease_ms, info))
        self.known, self.loading = known, loading
        if isinstance(self.reply, Exception):
            raise self.reply
        return self.reply

    async def reconcile(self, wid: WorkerId, known: Sequence[JobId], *, grace_ms: int) -> int:
        self.calls.append(("reconcile", wid, list(known), grace_ms))
        return 1

    async def leave(self, wid: WorkerId) -> None:
        self.calls.append(("leave", wid))

    @property
    def names(self) -> list[str]:
        return [call[0] for call in self.calls]


class FakeRegistry:
    """Records what is registered; a test changes the epoch as a lost Redis would."""

    def __init__(self) -> None:
        self.epoch = "epoch-1"
        self.bases: list[BaseModel] = []
        self.adapters: list[Adapter] = []
        self.served_version: AdapterVersion | None = None
        self.error: Exception | None = None

    async def set_base(self, base: BaseModel) -> str:
        if self.error:
            raise self.error
        self.bases.append(base)
        return self.epoch

    async def add_adapter(self, adapter: Adapter) -> AdapterVersion:
        self.adapters.append(adapter)
        return self.served_version or adapter.version


class FakePublisher:
    """Records what the pool has reported."""

    def __init__(self) -> None:
        self.standings: list[tuple[Standing, Mapping[JobId, int]]] = []
        self.num_outages = 0

    def apply_standing(self, standing: Standing, claim_epochs: Mapping[JobId, int]) -> None:
        self.standings.append((standing, claim_epochs))

    def on_redis_away(self) -> None:
        self.num_outages += 1


class Setup:
    """A membership with fakes of its collaborators."""

    def __init__(self) -> None:
        self.queue, self.registry = FakeQueue(), FakeRegistry()
        self.publisher, self.jobs = FakePublisher(), RunningJobs()
        self.ends = SimpleNamespace(job_ids=[])
        self.num_tidied = 0
        self.info = INFO
        versions = SimpleNamespace(
            held={AdapterVersion("b@2"), AdapterVersion("a@1")},
            loading={AdapterVersion("c@3")},
        )
        fakes: dict[str, Any] = {
            "queue": self.queue,
            "ends": self.ends,
            "registry": self.registry,
            "residency": versions,
            "retention": SimpleNamespace(tidy=self.tidy),
            "publisher": self.publisher,
        }
        self.membership = Membership(
            **fakes, jobs=self.jobs, base=BASE, lease_ms=LEASE_MS, describe=lambda: self.info
        )

    def tidy(self) -> None:
        self.num_tidied += 1

    async def beat(self, **standing: Any) -> None:
        """Renew the lease; the pool replies with `standing`."""
        self.queue.reply = Standing(**standing)
        await self.membership.beat(WID)


@pytest.fixture
def setup() -> Setup:
    return Setup()


async def test_a_worker_of_another_base_model_is_not_registered(setup: Setup) -> None:
    setup.membership.add_adapter(ADAPTER)
    setup.registry.error = SettingsError("scripted")
    with pytest.raises(SettingsError):
        await setup.membership.enter(WID)
    assert setup.registry.adapters == []
    assert setup.queue.calls == []


async def test_adapters_are_registered_again_only_after_the_registry_has_lost_them(
    setup: Setup,
) -> None:
    setup.membership.add_adapter(ADAPTER)
    for _ in range(2):
        await setup.membership.enter(WID)
    assert setup.registry.adapters == [ADAPTER]
    setup.registry.epoch = "epoch-2"
    for _ in range(2):
        await setup.membership.enter(WID)
    assert setup.registry.adapters == [ADAPTER, ADAPTER]
    assert setup.queue.names == ["register"] * 4


async def test_an_adapter_whose_name_has_a_newer_version_is_logged(setup: Setup) -> None:
    setup.membership.add_adapter(ADAPTER)
    setup.registry.served_version = AdapterVersion("a@9")
    with capture_logs() as logs:
        await setup.membership.enter(WID)
    (entry,) = logs
    assert entry["event"] == "adapter_superseded"
    assert (entry["version"], entry["served"]) == ("a@1", "a@9")


async def test_a_heartbeat_names_the_jobs_and_its_reply_is_applied_to_them(setup: Setup) -> None:
    job = add_job(setup.jobs, claim_epoch=7)
    setup.info = replace(INFO, device="cuda")
    await setup.beat(booked=1, fenced=frozenset({job.id}))
    assert setup.queue.calls == [("beat", WID, LEASE_MS, setup.info)]
    assert setup.queue.known == {job.id: 7}
    assert setup.queue.loading == ["c@3"]
    ((standing, claim_epochs),) = setup.publisher.standings
    assert standing.fenced == {job.id}
    assert claim_epochs == {job.id: 7}


@pytest.mark.parametrize(
    ("error", "num_outages"), [(RedisUnavailable("scripted"), 1), (LeaseLost("scripted"), 0)]
)
async def test_an_outage_is_reported_to_the_publisher(
    setup: Setup, error: Exception, num_outages: int
) -> None:
    setup.queue.reply = error
    with pytest.raises(type(error)):
        await setup.membership.beat(WID)
    assert setup.publisher.num_outages == num_outages
    assert setup.publisher.standings == []


async def test_copies_are_tidied_once_for_each_change_of_the_forgotten_versions(
    setup: Setup,
) -> None:
    await setup.beat()
    assert setup.num_tidied == 0
    for _ in range(3):
        await setup.beat(num_forgotten=2)
    assert setup.num_tidied == 1
    await setup.beat(num_forgotten=3)
    assert setup.num_tidied == 2


async def test_mismatches_are_counted_only_in_a_row(setup: Setup) -> None:
    for _ in range(3):
        await setup.beat(booked=1)
        await setup.beat(booked=0)
    assert "reconcile" not in setup.queue.names


async def test_ended_jobs_that_may_still_be_lost_are_known(setup: Setup) -> None:
    setup.ends.job_ids.append(JobId("ended"))
    for _ in range(MISMATCHES_UNTIL_RECONCILED):
        await setup.beat(booked=1)
    name, _, known, _ = setup.queue.calls[-1]
    assert (name, known) == ("reconcile", ["ended"])
