"""A pool whose workers are all gone: jobs are accepted, and wait for the next worker."""

from pathlib import Path

import httpx
import pytest
from api_support import running_app
from queue_support import eventually
from simulated_workers import NAME, worker_process

from shared.settings import ApiSettings

LIMIT_S = 90
BODY = {"model": NAME, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}
CHAT = "/v1/chat/completions"


@pytest.mark.slow
async def test_jobs_are_accepted_without_workers_and_answered_by_the_next_one(
    redis_url: str, pool: str, tmp_path: Path
) -> None:
    settings = ApiSettings(redis_url=redis_url, pool=pool)
    async with (
        running_app(settings) as running,
        httpx.AsyncClient(base_url=running.url, timeout=LIMIT_S) as http,
    ):

        async def has_worker(expected: bool) -> bool:
            return (await http.get("/ready/worker")).is_success is expected

        assert (await http.get("/ready")).status_code == 503
        refused = await http.post(CHAT, json=BODY)
        assert refused.status_code == 503
        assert "no worker has registered a base model" in refused.json()["error"]["message"]

        with worker_process(redis_url, pool) as worker:
            await eventually(lambda: has_worker(True), within_s=LIMIT_S)
            worker.terminate()
            await eventually(lambda: has_worker(False), within_s=LIMIT_S)
        assert (await http.get("/ready")).json()["has_worker"] is False

        # Everything that admission needs of the model is in the registry.
        sent = await http.post(CHAT, json={**BODY, "background": True})
        assert (sent.status_code, sent.json()["position"]) == (202, 1)
        tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
        with_tools = await http.post(CHAT, json={**BODY, "tools": [tool], "background": True})
        assert with_tools.status_code in (202, 400)  # as with a worker: depends on the template
        pool_body = (await http.get("/v1/pool")).json()
        assert pool_body["reason"] == "no worker is alive"
        assert pool_body["slots"]["load"] > 0

        with worker_process(redis_url, pool):

            async def is_done() -> bool:
                body = (await http.get(f"/v1/jobs/{sent.json()['id']}")).json()
                return bool(body["state"] == "done")

            await eventually(is_done, within_s=LIMIT_S)
            assert (await http.post(CHAT, json=BODY)).status_code == 200
