"""Adapters that a trainer sends as bodies, while two workers serve."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from adapter_traffic import NUM_TOKENS, PROMPTS, Folders, complete, files_of, send, text_of
from peft import PeftModel
from queue_support import eventually
from reference import greedy
from served_tiny import TinyModels
from sse_events import sse_events
from tiny import save_adapter, tiny_model

from shared.store.audit.auditor import Auditor
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys

pytestmark = pytest.mark.slow

PATIENCE_S = 60.0
LONG = {"max_tokens": 80, "ignore_eos": True}


def expected(folder: Path, models: TinyModels) -> str:
    reference = PeftModel.from_pretrained(tiny_model(), str(folder)).eval()
    return models.text(greedy(reference, models.text_ids(PROMPTS[0]), NUM_TOKENS))


async def test_each_version_answers_as_peft_does_and_running_requests_keep_theirs(
    http: httpx.AsyncClient, folders: Folders, models: TinyModels
) -> None:
    texts, versions = [], []
    for name in ("a", "b"):
        versions.append((await send(http, "policy", folders.root / name))["version"])
        reply = (await complete(http, "policy", PROMPTS[0])).json()
        texts.append(reply["choices"][0]["text"])
        assert reply["weight_version"] == versions[-1]
        assert expected(folders.root / name, models).startswith(texts[-1])
    assert texts[0] != texts[1]

    old = await text_of(http, "policy", **LONG)
    body = {"model": "policy", "prompt": PROMPTS[0], "temperature": 0, "stream": True, **LONG}
    async with http.stream("POST", "/v1/completions", json=body) as stream:
        parts = stream.aiter_text()
        first = await anext(parts)
        assert (await send(http, "policy", folders.root / "a"))["version"] == versions[0]
        text = "".join([first, *[part async for part in parts]])
    chunks = [event.json for event in sse_events(text) if event.data not in ("", "[DONE]")]
    assert {chunk["weight_version"] for chunk in chunks} == {versions[1]}
    assert "".join(c["choices"][0]["text"] for c in chunks if c["choices"]) == old
    assert await text_of(http, "policy") == texts[0]


async def test_versions_beyond_keep_versions_are_deleted_everywhere(
    http: httpx.AsyncClient,
    folders: Folders,
    redis: Redis,
    store: Path,
) -> None:
    made = []
    for seed in range(4):
        folder = folders.root / f"seed-{seed}"
        save_adapter(folder, seed=100 + seed, r=4, target_modules=["q_proj"])
        made.append((await send(http, "rolling", folder))["version"])
        await text_of(http, "rolling")

    async def sources() -> set[str]:
        return {key async for key in redis.scan_iter("*}:upload:*")}

    def copies() -> set[str]:
        names = {path.read_text() for path in store.glob("main/*/.version")}
        return {name for name in names if name.startswith("rolling@")}

    async def is_small() -> bool:
        listed = (await http.get("/v1/adapters")).json()
        rest = [*listed["data"], *(v for each in listed["data"] for v in each["previous"])]
        rest += listed["draining"]
        kept = {each["version"] for each in rest if each["version"].startswith("rolling@")}
        uploads = {each["source"] for each in rest if each["source"].startswith("upload:")}
        return kept == copies() == set(made[-2:]) and len(await sources()) == len(uploads)

    await eventually(is_small, within_s=PATIENCE_S)
    assert (await complete(http, made[0], "x")).status_code == 404
    assert (await complete(http, made[-2], "x")).status_code == 200
    assert (await Auditor(redis, Keys("main")).audit(settle_s=0)).strays == ()


async def test_bad_bodies_are_refused_before_the_name_changes(
    http: httpx.AsyncClient, folders: Folders, redis: Redis
) -> None:
    """tests/worker/adapters/remote/test_attacks.py has the bad files."""
    version = (await send(http, "strict", folders.root / "a"))["version"]
    config, weights = files_of(folders.root / "a")
    num_uploads = len([key async for key in redis.scan_iter("*}:upload:*")])

    async def unending() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield bytes(1 << 18)

    for query, body, status, reason in (
        ({"config": config}, weights[:-100], 400, "adapter_rejected"),
        ({"config": config}, b"", 400, "the body is empty"),
        ({}, weights, 400, "adapter_config.json is missing"),
        ({"config": config, "nme": "x"}, weights, 400, "unknown field: nme"),
        ({"config": config, "name": "a b"}, weights, 400, "name: must be a name"),
        ({"config": config, "name": "tiny"}, weights, 409, "name of the base model"),
        ({"config": config}, weights + bytes(1 << 20), 413, "--max-adapter-mb"),
        ({"config": config}, unending(), 413, "--max-adapter-mb"),
    ):
        reply = await http.post("/v1/adapters", params={"name": "strict", **query}, content=body)
        assert (reply.status_code, reason in reply.text) == (status, True), reply.text
    reply = await http.post("/v1/adapters", params={"name": "strict"}, json={})
    assert (reply.status_code, "/v1/load_lora_adapter" in reply.text) == (400, True)
    stolen = {"lora_name": "thief", "lora_path": f"upload:{'0' * 32}"}
    assert (await http.post("/v1/load_lora_adapter", json=stolen)).status_code == 400
    assert (await complete(http, "strict", "x")).json()["weight_version"] == version
    assert len([key async for key in redis.scan_iter("*}:upload:*")]) == num_uploads


async def test_redis_without_room_refuses_the_adapter_and_takes_jobs(
    http: httpx.AsyncClient, folders: Folders, redis: Redis
) -> None:
    used = (await redis.info("memory"))["used_memory"]
    await redis.config_set("maxmemory", int(used / 0.72))
    try:
        config, weights = files_of(folders.root / "a")
        query = {"name": "full", "config": config}
        reply = await http.post("/v1/adapters", params=query, content=weights)
        assert (reply.status_code, "too little free memory" in reply.text) == (503, True)
        assert (await complete(http, "tiny", "x")).status_code == 200
    finally:
        await redis.config_set("maxmemory", 0)
    assert (await http.get("/v1/adapters/full")).status_code == 404


async def test_trainers_for_vllm_may_ask_for_a_pause_that_keeps_requests(
    http: httpx.AsyncClient,
) -> None:
    reply = await http.post("/pause", params={"mode": "keep"})
    assert (reply.status_code, reply.json()["paused"]) == (200, False)
    assert (await http.post("/resume")).status_code == 200
    for query in ({}, {"mode": "abort"}, {"mode": "wait"}):
        reply = await http.post("/pause", params=query)
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, "mode")
