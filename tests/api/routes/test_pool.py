"""/v1/pool, its stream of events, and the rates and the load that they show."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import orjson
import pytest
from api_support import (
    ADAPTER,
    BASE,
    RunningApp,
    ScriptedWorker,
    client_of,
    queue_counts,
    running_app,
    until,
    worker_info,
)
from sse_events import EventReader, SseEvent

from api.app import create_app
from api.pool_state.load import load_of
from api.pool_state.rates import PLOT_S, Rates, current_rates, points, quantile, rates_at
from api.pools.pool_status import PoolReports
from api.schema.pool import PoolBody
from ops.local.embedded_redis import EmbeddedRedis
from shared.protocol.adapters import Adapter
from shared.protocol.ids import AdapterVersion, WorkerId
from shared.protocol.workers import FIRST_TOKEN_BOUNDS_S
from shared.settings import ApiSettings
from shared.store.adapters.registry import Registry
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from shared.store.views.history import Sample
from shared.store.views.pool_views import PoolViews
from worker.jobs.running import FirstTokens

BODY = {"model": "extract", "messages": [{"role": "user", "content": "hi"}], "background": True}
CHAT, POOL, EVENTS = "/v1/chat/completions", "/v1/pool", "/v1/pool/events"
HELD, OTHER = AdapterVersion("held@2"), AdapterVersion("other@3")
LIMIT_S = 30


async def pool_of(http: httpx.AsyncClient) -> Any:
    reply = await http.get(POOL)
    assert reply.status_code == 200
    PoolBody.model_validate(reply.json())
    return reply.json()


@asynccontextmanager
async def stream(http: httpx.AsyncClient) -> AsyncIterator[EventReader]:
    async with asyncio.timeout(LIMIT_S), http.stream("GET", EVENTS) as response:
        assert response.status_code == 200, await response.aread()
        assert response.headers["content-type"].startswith("text/event-stream")
        yield EventReader(response)


async def next_named(reader: EventReader, name: str) -> SseEvent:
    while event := await reader.next():
        if event.event == name:
            return event
    raise AssertionError(f"the stream ended without {name}")


async def test_a_pool_without_workers_accepts_jobs(http: httpx.AsyncClient) -> None:
    body = await pool_of(http)
    assert (body["accepts_jobs"], body["has_worker"]) == (True, False)
    assert (body["base"], body["reason"]) == (BASE.name, "no worker is alive")
    assert [each["name"] for each in body["adapters"]] == ["base", "extract"]
    assert body["slots"] == {"total": 0, "used": 0, "per_worker": 0, "needed": 0, "load": 0.0}
    assert abs(body["time"] - time.time()) < 60


async def test_a_pool_without_a_base_model_needs_one_worker(settings: ApiSettings) -> None:
    async with client_of(create_app(settings)) as http:  # no fixture has registered a base model
        body = await pool_of(http)
    assert (body["base"], body["accepts_jobs"]) == (None, False)
    assert body["reason"] == "no base model is registered"
    assert body["slots"]["load"] == 1


async def test_the_load_stays_known_after_the_last_worker_has_left(
    http: httpx.AsyncClient, direct: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    await worker.queue.leave(worker.id)
    for _ in range(3):
        assert (await http.post(CHAT, json=BODY)).status_code == 202
    several = {"model": "extract", "prompt": "hi", "n": 3, "background": True}
    assert (await http.post("/v1/completions", json=several)).status_code == 202
    body = await pool_of(direct)
    load = round(6 / 64, 4)
    assert body["slots"] == {"total": 0, "used": 0, "per_worker": 64, "needed": 6, "load": load}
    metrics = (await direct.get("/metrics")).text
    assert f"lorikeet_load {6 / 64}" in metrics
    assert "lorikeet_slots_per_worker 64.0" in metrics


async def test_each_worker_lists_what_it_holds_loads_keeps_and_runs(
    http: httpx.AsyncClient,
    direct: httpx.AsyncClient,
    queue: Queue,
    redis: Redis,
    keys: Keys,
    worker: ScriptedWorker,
) -> None:
    await http.post(CHAT, json=BODY)
    await http.post(CHAT, json=BODY)
    await worker.queue.claim(
        *(worker.id,), sequences=1, tokens=100_000, steal_ms=250, max_cold=0,
        residents=(BASE.version, ADAPTER.version),
    )  # fmt: skip
    info = replace(
        worker_info(),
        running_by_version={ADAPTER.version: 1, OTHER: 2},
        host_adapters=(HELD, ADAPTER.version),
    )
    await queue.beat(worker.id, lease_ms=60_000, info=info)
    body = await pool_of(direct)
    (shown,) = body["workers"]
    assert (shown["id"], shown["running"], shown["max_num_seqs"]) == (worker.id, 1, 64)
    assert shown["kv_used"] == 0.1
    assert 0 < shown["lease_left_s"] <= 60
    assert shown["adapters"] == [
        {"version": BASE.version, "state": "resident", "running": 0},
        {"version": ADAPTER.version, "state": "resident", "running": 1},
        {"version": HELD, "state": "host", "running": 0},
        {"version": OTHER, "state": "loading", "running": 2},
    ]
    (base, extract, other) = body["adapters"]
    assert (base["is_base"], extract["is_base"]) == (True, False)
    assert (extract["waiting"], extract["running"], extract["is_current"]) == (1, 1, True)
    assert extract["oldest_waited_s"] >= 0
    assert (other["version"], other["is_current"]) == (OTHER, False)
    assert (body["queue"]["waiting"], body["queue"]["running"]) == (1, 1)
    assert (body["has_worker"], body["reason"]) == (True, None)


@pytest.mark.parametrize("is_clock_wrong", [False, True])
async def test_rates_and_history_follow_from_what_workers_report(
    direct: httpx.AsyncClient,
    worker: ScriptedWorker,
    redis: Redis,
    keys: Keys,
    monkeypatch: pytest.MonkeyPatch,
    is_clock_wrong: bool,
) -> None:
    counts = [0] * 25
    for number in range(3):
        counts[10] = 2 * number
        info = replace(worker_info(), tokens_total=7 + 100 * number, first_tokens=tuple(counts))
        await worker.queue.beat(worker.id, lease_ms=60_000, info=info)
        await redis.hdel(keys.counters, "sampled", "swept")  # type: ignore[misc]
        await worker.queue.reap()
        await asyncio.sleep(0.05)  # rates need some time between two samples
    right_s, clock = time.time(), time.time
    if is_clock_wrong:  # that of the front end
        monkeypatch.setattr(time, "time", lambda: clock() + 3600)
    body = await pool_of(direct)
    assert abs(body["time"] - right_s) < 60
    assert len(body["history"]) == 3
    assert body["rates"]["tokens_per_s"] > 100
    assert body["rates"]["ttft_p50_s"] < body["rates"]["ttft_p95_s"]


async def test_points_are_sent_after_redis_clock_was_set_back(
    http: httpx.AsyncClient, queue: Queue, worker: ScriptedWorker, redis: Redis, keys: Keys
) -> None:
    ahead_ms = int(time.time() + 3600) * 1000
    await redis.lpush(keys.history, f"{ahead_ms} 0 0 0 0")  # type: ignore[misc]
    async with stream(http) as reader:
        first = (await next_named(reader, "pool")).json
        assert [point[0] for point in first["history"]] == [ahead_ms / 1000]
        await queue.reap()
        points: list[Any] = []
        while not points:
            points = (await next_named(reader, "pool")).json["history"]
        assert points[0][0] < ahead_ms / 1000
        assert (await next_named(reader, "pool")).json["history"] == []


async def test_the_stream_begins_with_the_state_and_goes_on_each_second_with_new_points(
    http: httpx.AsyncClient, queue: Queue, worker: ScriptedWorker
) -> None:
    await queue.reap()
    async with stream(http) as reader:
        first = (await next_named(reader, "pool")).json
        PoolBody.model_validate(first)
        assert len(first["history"]) == 1
        assert "worker_joined" in {each["kind"] for each in first["incidents"]}
        times = [first["time"]]
        points: list[Any] = []
        while not points:
            await queue.reap()
            body = (await next_named(reader, "pool")).json
            times.append(body["time"])
            points += body["history"]
    assert points[0][0] > first["history"][0][0]
    assert times == sorted(set(times))


async def test_an_incident_is_an_event_of_its_own_and_none_is_repeated(
    http: httpx.AsyncClient, registry: Registry, worker: ScriptedWorker
) -> None:
    async with stream(http) as reader:
        await next_named(reader, "pool")
        await registry.load_adapter(_adapter("sql@1"), replace=False)
        await registry.unload_adapter("sql")
        start = time.monotonic()
        loaded, unloaded = [(await next_named(reader, "incident")).json for _ in range(2)]
        assert time.monotonic() - start < 30
        assert (loaded["kind"], loaded["adapter"]) == ("adapter_loaded", "sql@1")
        assert unloaded["text"] == "sql@1 was unloaded"
        assert loaded["time"] <= unloaded["time"]
        await next_named(reader, "pool")
        await next_named(reader, "pool")
        assert [event.event for event in reader.events].count("incident") == 2


async def test_all_streams_share_one_read_per_second(
    server: RunningApp, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    num_reads, read = 0, PoolViews.backlogs

    async def counting(views: PoolViews) -> Any:
        nonlocal num_reads
        num_reads += 1
        return await read(views)

    monkeypatch.setattr(PoolViews, "backlogs", counting)

    async def follow() -> None:
        async with stream(http) as reader:
            for _ in range(3):
                await next_named(reader, "pool")

    await asyncio.gather(*(follow() for _ in range(8)))
    assert num_reads <= 6
    await until(lambda: server.pool.part(PoolReports).feed.num_streams == 0)


async def test_the_stream_reports_an_outage_and_goes_on_after_it(
    own_server: EmbeddedRedis, settings: ApiSettings, start_server: Any
) -> None:
    async with (
        running_app(settings.model_copy(update={"redis_url": own_server.url})) as running,
        httpx.AsyncClient(base_url=running.url, timeout=60) as http,
        stream(http) as reader,
    ):
        await next_named(reader, "pool")
        own_server.stop()
        error = (await next_named(reader, "error")).json
        assert error["error"]["code"] == "service_unavailable"
        assert "Redis doesn't answer" in error["error"]["message"]
        start_server(port=own_server.port)
        assert (await next_named(reader, "pool")).json["object"] == "pool"


async def test_a_large_pool_is_a_small_event(
    direct: httpx.AsyncClient, registry: Registry, queue: Queue
) -> None:
    versions = [AdapterVersion(f"adapter-{number}@{number:012x}") for number in range(100)]
    for version in versions:
        await registry.load_adapter(_adapter(version), replace=False)
    info = replace(worker_info(), running_by_version=dict.fromkeys(versions[:64], 1))
    for number in range(16):
        wid = WorkerId(f"host-{number}:1:{number:04x}{number:028x}")
        await queue.register(wid, lease_ms=60_000, info=info, residents=versions)
    body = await pool_of(direct)
    assert sum(len(each["adapters"]) for each in body["workers"]) == 1600
    assert len(orjson.dumps(body)) < 200_000


def _adapter(version: str) -> Adapter:
    name = version.partition("@")[0]
    return replace(ADAPTER, name=name, version=AdapterVersion(version))


START_MS = 1_700_000_000_000


def sample(second: float, tokens: int = 0, done: int = 0, first: Sequence[int] = ()) -> Sample:
    return Sample(
        time_ms=START_MS + int(second * 1000),
        waiting=2,
        running=3,
        done=done,
        tokens=tokens,
        first_tokens=tuple(first) or (0,) * (len(FIRST_TOKEN_BOUNDS_S) + 1),
    )


def test_rates_are_averages_over_the_period_before_a_sample() -> None:
    samples = [sample(n, tokens=100 * n, done=2 * n) for n in range(30)]
    rates = rates_at(samples, 29, 10)
    assert (rates.tokens_per_s, rates.requests_per_s) == (100, 2)


def test_at_first_and_after_a_gap_or_a_loss_of_data_there_are_no_rates() -> None:
    assert rates_at([sample(0, tokens=500)], 0, 10) == Rates()
    assert rates_at([sample(0), sample(100, tokens=500)], 1, 10) == Rates()
    assert rates_at([sample(0, tokens=900), sample(1, tokens=5)], 1, 10) == Rates()


def test_rates_are_zero_once_nobody_samples_the_pool() -> None:
    samples = [sample(0), sample(1, tokens=10)]
    assert current_rates(samples, START_MS / 1000 + 2).tokens_per_s == 10
    assert current_rates(samples, START_MS / 1000 + 60) == Rates()
    assert current_rates([], 0) == Rates()


@pytest.mark.parametrize("share", [0.5, 0.95])
def test_a_quantile_of_counted_times_is_near_that_of_the_times(share: float) -> None:
    draw = random.Random(1)
    times = sorted(draw.lognormvariate(-1, 0.8) for _ in range(5000))
    counted = FirstTokens()
    for seconds in times:
        counted.observe(seconds)
    found = quantile(counted.counts, share)
    assert found == pytest.approx(times[int(share * len(times))], rel=0.08)


def test_a_quantile_of_no_times_is_none_and_long_times_count_as_the_last_bound() -> None:
    assert quantile((0,) * 25, 0.5) is None
    counted = FirstTokens()
    counted.observe(1e6)
    assert quantile(counted.counts, 0.5) == FIRST_TOKEN_BOUNDS_S[-1]


def test_a_point_has_the_rates_and_counts_of_its_sample() -> None:
    early, late = [0] * 25, [0] * 25
    late[10] = 4
    samples = [sample(0, first=early), sample(PLOT_S, tokens=50, first=late)]
    (point,) = points(samples, [1])
    time_s, tokens_per_s, p50, p95, waiting, running = point
    assert (time_s, tokens_per_s) == (START_MS / 1000 + PLOT_S, 10)
    assert p50 is not None
    assert p95 is not None
    assert FIRST_TOKEN_BOUNDS_S[9] < p50 < p95 < FIRST_TOKEN_BOUNDS_S[10]
    assert (waiting, running) == (2, 3)


@pytest.mark.parametrize(
    ("waiting", "slots", "load"), [(56, 16, 4), (0, 0, 0), (1, 0, 1), (64, 0, 1)]
)
def test_the_load_is_the_number_of_workers_that_the_jobs_need(
    waiting: int, slots: int, load: float
) -> None:
    counts = queue_counts(waiting=waiting, running=8 if slots else 0, slots_per_worker=slots)
    assert load_of(counts, BASE) == load
