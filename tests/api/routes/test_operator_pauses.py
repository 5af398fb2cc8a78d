"""Pauses of single workers and adapters, and the history and incidents of a pool."""

import httpx
import pytest
from api_support import ADAPTER, BASE, ScriptedWorker, error_of, worker_info
from queue_support import LIMITS, make_job

from shared.errors import LeaseLost
from shared.protocol.ids import WorkerId
from shared.store.audit.auditor import Auditor
from shared.store.jobs.queue import Queue
from shared.store.processes import Processes, ProcessKind
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from shared.store.views.history import LONG_STEPS_MS, MAX_BYTES, MAX_SAMPLES

NAME = "a1b2"
FULL = WorkerId(f"host:1:{NAME}{'0' * 28}")
EARLY_MS = 10**8


async def claimed_by(queue: Queue, wid: WorkerId) -> list[str]:
    claim = await queue.claim(
        wid,
        sequences=64,
        tokens=100_000,
        steal_ms=0,
        max_cold=1,
        residents=(BASE.version, ADAPTER.version),
    )
    return [claimed.job.id for claimed in claim.jobs]


async def test_a_paused_worker_gets_no_job_until_it_is_resumed(
    http: httpx.AsyncClient, queue: Queue, worker: ScriptedWorker
) -> None:
    await queue.register(FULL, lease_ms=60_000, info=worker_info(), residents=())
    for action, state in (("pause", "paused"), ("drain", "draining")):
        reply = await http.post(f"/v1/workers/{NAME}/{action}")
        assert reply.json() == {"object": "worker", "id": FULL, "name": NAME, "state": state}
    waiting = make_job(ADAPTER.version)
    await queue.enqueue(waiting, LIMITS)
    assert await claimed_by(queue, FULL) == []
    shown = {each["name"]: each for each in (await http.get("/v1/pool")).json()["workers"]}
    assert shown[NAME]["state"] == "draining"
    assert shown[NAME]["id"] == FULL
    assert (await http.post(f"/v1/workers/{FULL}/resume")).json()["state"] == "serving"
    assert await claimed_by(queue, FULL) == [waiting.id]
    log = (await http.get("/v1/audit_log")).json()["data"]
    assert [change["action"] for change in log[:3]] == [
        "worker_resumed",
        "worker_draining",
        "worker_paused",
    ]


async def test_an_unknown_worker_is_a_404_and_one_of_an_earlier_release_a_409(
    http: httpx.AsyncClient, queue: Queue, redis: Redis, keys: Keys, worker: ScriptedWorker
) -> None:
    reply = await http.post("/v1/workers/none/pause")
    assert error_of(reply)[:2] == (404, "worker_not_found")
    await redis.hdel(keys.worker(worker.id), "knows_modes")  # type: ignore[misc]
    reply = await http.post(f"/v1/workers/{worker.id}/pause")
    assert error_of(reply)[:2] == (409, "worker_conflict")


async def test_the_jobs_of_a_paused_adapter_wait_and_nothing_is_lost(
    http: httpx.AsyncClient, queue: Queue, redis: Redis, keys: Keys, worker: ScriptedWorker
) -> None:
    name = ADAPTER.name
    before, after = make_job(ADAPTER.version), make_job(ADAPTER.version)
    late, other = make_job(ADAPTER.version, deadline_ms=0), make_job(BASE.version)
    await queue.enqueue(before, LIMITS)
    assert (await http.post(f"/v1/adapters/{name}/pause")).json()["is_paused"]
    for job in (after, late, other):
        await queue.enqueue(job, LIMITS)
    assert await claimed_by(queue, worker.id) == [other.id]
    body = (await http.get("/v1/pool")).json()
    shown = {each["name"]: each for each in body["adapters"]}
    assert [shown[each]["is_paused"] for each in (name, "base")] == [True, False]
    assert shown[name]["waiting"] == 3
    await queue.reap()
    assert (await http.get(f"/v1/jobs/{late.id}")).json()["state"] == "expired", "deadlines hold"
    assert not (await Auditor(redis, keys).audit(settle_s=0)).strays
    assert not (await http.post(f"/v1/adapters/{name}/resume")).json()["is_paused"]
    assert await claimed_by(queue, worker.id) == [before.id, after.id]


async def test_an_unloaded_adapter_is_resumed(
    http: httpx.AsyncClient, queue: Queue, redis: Redis, keys: Keys, worker: ScriptedWorker
) -> None:
    job = make_job(ADAPTER.version)
    await queue.enqueue(job, LIMITS)
    await http.post(f"/v1/adapters/{ADAPTER.name}/pause")
    assert await claimed_by(queue, worker.id) == []
    await http.delete(f"/v1/adapters/{ADAPTER.name}")
    assert await claimed_by(queue, worker.id) == [job.id]
    assert not await redis.exists(keys.paused_adapters)
    reply = await http.post("/v1/adapters/none/pause")
    assert error_of(reply)[:2] == (404, "model_not_found")


async def test_two_workers_never_have_the_same_name(queue: Queue, worker: ScriptedWorker) -> None:
    await queue.register(FULL, lease_ms=60_000, info=worker_info(), residents=())
    with pytest.raises(LeaseLost, match=NAME):
        await queue.register(
            WorkerId(f"other:2:{NAME}{'1' * 28}"),
            lease_ms=60_000,
            info=worker_info(),
            residents=(),
        )


async def test_the_long_histories_have_a_point_each_step_within_their_bytes(
    http: httpx.AsyncClient, queue: Queue, redis: Redis, keys: Keys, worker: ScriptedWorker
) -> None:
    await queue.reap()
    line = (await redis.lrange(keys.history, 0, 0))[0]  # type: ignore[misc]
    now_ms, *numbers = (int(number) for number in line.split())
    lists = {keys.history: 1000, **{keys.long_history(step): step for step in LONG_STEPS_MS}}
    for key, step_ms in lists.items():
        await redis.delete(key)
        for ago in range(MAX_SAMPLES):
            totals = [10**12 - ago * 1000 + number for number in numbers]
            sample = " ".join(map(str, (now_ms - ago * step_ms, *totals)))
            await redis.rpush(key, sample)  # type: ignore[misc]
    sizes = [await redis.memory_usage(key, samples=0) for key in lists]
    assert sum(size or 0 for size in sizes) < MAX_BYTES
    for window, step_s in (("5m", 1), ("1h", 12), ("24h", 288)):
        body = (await http.get("/v1/pool/history", params={"window": window})).json()
        assert (body["window"], body["step_s"]) == (window, step_s)
        for name in ("tokens_per_s", "jobs_per_s", "failed_per_s"):
            values = [value for value in body["series"][name] if value is not None]
            assert len(body["series"][name]) == MAX_SAMPLES
            assert len(values) >= MAX_SAMPLES - 3
            assert set(values) == {round(1000 / step_s, 3)}
        assert "worker_joined" in {each["kind"] for each in body["incidents"]}
    reply = await http.get("/v1/pool/history", params={"window": "1y"})
    assert error_of(reply)[::2] == (400, "window")


async def test_sweeps_thin_the_samples_out(queue: Queue, redis: Redis, keys: Keys) -> None:
    for _ in range(3):
        await redis.hdel(keys.counters, "sampled", "swept")  # type: ignore[misc]
        await queue.reap()
    lengths = [await redis.llen(keys.long_history(step)) for step in LONG_STEPS_MS]  # type: ignore[misc]
    assert (await redis.llen(keys.history), lengths) == (3, [1, 1])  # type: ignore[misc]


async def test_ends_deaths_and_outages_are_incidents(
    http: httpx.AsyncClient, queue: Queue, redis: Redis, keys: Keys
) -> None:
    processes = Processes(redis, keys)
    for process in ("host:1:a", "host:2:b"):
        await processes.report(ProcessKind.CONTROL, process)
    await processes.end(ProcessKind.CONTROL, "host:1:a")
    await redis.zincrby(keys.processes, -EARLY_MS, "control host:2:b")
    await queue.reap()
    for _ in range(2):  # two front ends report the same outage
        await processes.record_outage(5)
    await redis.hset(keys.counters, "run_id", "0" * 40)  # type: ignore[misc]
    await queue.reap()
    found = (await http.get("/v1/pool")).json()["incidents"]
    texts = {each["kind"]: each["text"] for each in found}
    assert texts["control_left"] == "control process host:1 left"
    assert "host:2 was lost" in texts["control_lost"]
    kinds = [each["kind"] for each in found]
    assert (kinds.count("redis_lost"), kinds.count("redis_back")) == (1, 1)
    assert kinds.count("redis_restarted") == 1
    times = {each["kind"]: each["time"] for each in found}
    assert times["redis_back"] - times["redis_lost"] == pytest.approx(5, abs=0.1)
    assert "front_end_joined" in kinds
