"""GET /metrics."""

import asyncio

import httpx
import pytest
from api_support import (
    ADAPTER,
    RunningApp,
    ScriptedWorker,
    waiting_job,
)

from api.pools import pool_status

BODY = {"model": "extract", "messages": [{"role": "user", "content": "hi"}]}
URL = "/v1/chat/completions"


async def test_metrics_cover_requests_queue_and_workers(
    http: httpx.AsyncClient,
    server: RunningApp,
    worker: ScriptedWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool_status, "MAX_AGE_S", 0)
    request = asyncio.create_task(http.post(URL, json=BODY))
    await waiting_job(server)
    waiting = (await http.get("/metrics")).text
    assert "lorikeet_jobs_waiting 1.0" in waiting
    assert f'lorikeet_adapter_workers{{adapter="{ADAPTER.name}"}} 1.0' in waiting
    assert f'lorikeet_adapter_jobs_waiting{{adapter="{ADAPTER.name}"}} 1.0' in waiting
    job = await worker.take()
    assert "lorikeet_jobs_running 1.0" in (await http.get("/metrics")).text
    await worker.answer(job)
    await request
    metrics = (await http.get("/metrics")).text
    for line in (
        'lorikeet_requests_total{endpoint="/v1/chat/completions",status="200"} 1.0',
        "lorikeet_resume_diverged_total 0.0",
        "lorikeet_redis_up 1.0",
        "lorikeet_workers_alive 1.0",
        'lorikeet_jobs_ended_total{state="done"} 1.0',
        f'lorikeet_worker_kv_blocks{{worker="{worker.id}"}} 100.0',
        f'lorikeet_worker_kv_blocks_free{{worker="{worker.id}"}} 90.0',
        f'lorikeet_worker_tokens_total{{worker="{worker.id}"}} 7.0',
        f'lorikeet_worker_preemptions_total{{worker="{worker.id}"}} 3.0',
        f'lorikeet_worker_forced_tokens_total{{worker="{worker.id}"}} 2.0',
        f'lorikeet_worker_drafted_tokens_total{{worker="{worker.id}"}} 6.0',
        f'lorikeet_worker_accepted_tokens_total{{worker="{worker.id}"}} 1.0',
        f'lorikeet_worker_adapter_loads_total{{worker="{worker.id}"}} 4.0',
        f'lorikeet_worker_adapter_load_seconds_total{{worker="{worker.id}"}} 1.5',
        f'lorikeet_worker_adapter_reads_total{{worker="{worker.id}"}} 0.0',
        f'lorikeet_worker_adapter_evictions_total{{worker="{worker.id}"}} 2.0',
        f'lorikeet_worker_adapter_spreads_total{{worker="{worker.id}"}} 5.0',
        f'lorikeet_worker_adapter_shrinks_total{{worker="{worker.id}"}} 0.0',
        f'lorikeet_worker_weight_bytes{{worker="{worker.id}"}} 270.0',
        f'lorikeet_worker_kv_bytes{{worker="{worker.id}"}} 200.0',
        f'lorikeet_worker_adapter_bytes{{worker="{worker.id}"}} 30.0',
        f'lorikeet_worker_adapter_bytes_max{{worker="{worker.id}"}} 40.0',
        f'lorikeet_worker_host_adapter_bytes{{worker="{worker.id}"}} 50.0',
        f'lorikeet_worker_host_adapter_bytes_max{{worker="{worker.id}"}} 60.0',
        'lorikeet_jobs_requeued_total{reason="worker_lost"} 0.0',
        "lorikeet_workers_lost_total 0.0",
    ):
        assert line in metrics
